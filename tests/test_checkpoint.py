import os

import pytest

from forage import checkpoint
from forage.errors import CheckpointError


def writer(text="weights"):
    def write(folder):
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_text(text)
        (folder / "learner.json").write_text("{}")

    return write


def weights(folder):
    return folder / "model" / "model.safetensors"


def test_a_checkpoint_is_whole_and_named_after_its_step(tmp_path):
    folder = checkpoint.save(tmp_path, 100, writer())
    assert folder == tmp_path / "step-000100"
    assert weights(folder).read_text() == "weights"
    checkpoint.verify(folder)
    assert checkpoint.latest(tmp_path) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["step-000100"]


def test_without_any_there_is_none(tmp_path):
    assert checkpoint.latest(tmp_path / "nowhere") is None
    assert checkpoint.best_of(tmp_path) is None
    assert checkpoint.steps(tmp_path) == []


def test_a_step_saved_again_is_replaced(tmp_path):
    checkpoint.save(tmp_path, 5, writer("old"))
    assert weights(checkpoint.save(tmp_path, 5, writer("new"))).read_text() == "new"
    assert checkpoint.steps(tmp_path) == [5]


@pytest.mark.parametrize("damage", ["truncated", "missing", "damaged", "manifest"])
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, caplog, damage):
    good = checkpoint.save(tmp_path, 1, writer())
    bad = checkpoint.save(tmp_path, 2, writer())
    file = weights(bad)
    match damage:
        case "truncated":
            file.write_text("wei")
        case "missing":
            file.unlink()
        case "damaged":
            file.write_text("Weights")
        case "manifest":
            (bad / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=damage if damage != "manifest" else "manifest.json"):
        checkpoint.verify(bad)
    assert checkpoint.latest(tmp_path) == good
    assert "going back to the one before" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    def write(folder):
        (folder / "optimizer.pt").write_text("half")
        device = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(device, b"no space")
        finally:
            os.close(device)

    good = checkpoint.save(tmp_path, 1, writer())
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(tmp_path, 2, write)
    assert list(tmp_path.iterdir()) == [good]
    checkpoint.verify(good)


def test_what_a_killed_process_left_is_cleared_away_and_never_read(tmp_path):
    (tmp_path / ".partial-step-000002").mkdir()
    (tmp_path / ".partial-step-000002" / "half").write_text("")
    assert checkpoint.latest(tmp_path) is None
    checkpoint.save(tmp_path, 3, writer())
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: 0.5, 4: 0.9, 5: 0.1}
    for step, score in scores.items():
        checkpoint.save(tmp_path, step, writer())
        assert checkpoint.mark_best(tmp_path, step, score) is (step in (1, 2))  # an equal score is no better
        checkpoint.prune(tmp_path, 2)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]
    assert checkpoint.best_of(tmp_path) == tmp_path / "step-000002"


def test_keeping_all(tmp_path):
    for step in range(4):
        checkpoint.save(tmp_path, step, writer())
    assert checkpoint.prune(tmp_path, 0) == []
    assert checkpoint.steps(tmp_path) == [0, 1, 2, 3]


def test_choosing_one(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.choose(tmp_path)
    folders = [checkpoint.save(tmp_path, step, writer()) for step in (1, 2)]
    checkpoint.mark_best(tmp_path, 1, 0.5)
    assert checkpoint.choose(tmp_path) == folders[1]
    assert checkpoint.choose(tmp_path, best=True) == folders[0]
    assert checkpoint.choose(tmp_path, step=1) == folders[0]
    assert checkpoint.step_of(folders[1]) == 2
    with pytest.raises(CheckpointError, match=r"step 7; there are \[1, 2\]"):
        checkpoint.choose(tmp_path, step=7)
