"""One run and one process in a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forage.configure import load
from forage.errors import RunFolderError
from forage.runfolder import RunFolder

BASE = ["data.entities=100", "search=random"]


def config(folder: Path, *words: str):
    return load(None, [*BASE, f"run.dir={folder}", *words])


def opened(folder: Path, *words: str, resume: bool = False) -> RunFolder:
    return RunFolder.open(folder, config(folder, *words), resume=resume)


def test_a_new_folder_holds_configuration_and_environment(tmp_path):
    folder = tmp_path / "runs" / "a"
    with opened(folder, "run.seed=3") as run:
        assert run.path == folder
    assert load(folder) == config(folder, "run.seed=3")
    found = json.loads((folder / "environment.json").read_text())
    assert found["seed"] == 3
    assert found["versions"]["torch"]
    assert found["torch"]["threads"] >= 1
    assert found["cpu"]
    assert found["cores"] >= 1


def test_two_runs_in_one_folder_are_refused_with_the_process(tmp_path):
    script = (
        "import sys, pathlib\nfrom forage.configure import load\nfrom forage.runfolder import RunFolder\n"
        f"folder = RunFolder.open(pathlib.Path({str(tmp_path)!r}), load(None, {BASE!r}))\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(RunFolderError, match=f"process {other.pid} is working in .* run.dir=OTHER"):
            opened(tmp_path, resume=True)
        with pytest.raises(RunFolderError, match=f"process {other.pid}"):
            RunFolder.refuse_if_in_use(tmp_path)
        other.kill()
    opened(tmp_path, resume=True).close()


def test_a_run_that_fails_before_it_did_anything_leaves_no_folder(tmp_path):
    folder = tmp_path / "run"

    def fail(*, after=()):
        with opened(folder):
            for name in after:
                (folder / name).write_text("{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError):
        fail(after=["metrics.jsonl"])
    assert (folder / "config.toml").exists()


def test_a_folder_that_is_left_is_free(tmp_path):
    opened(tmp_path).close()
    RunFolder.refuse_if_in_use(tmp_path)
    RunFolder.refuse_if_in_use(tmp_path / "none")


def test_another_run_is_not_overwritten(tmp_path):
    opened(tmp_path).close()
    before = (tmp_path / "config.toml").read_bytes()
    with pytest.raises(RunFolderError, match=r"holds a run already .*--resume"):
        opened(tmp_path, "run.seed=9")
    assert (tmp_path / "config.toml").read_bytes() == before


def test_nothing_to_resume(tmp_path):
    with pytest.raises(RunFolderError, match=r"no run in .* to resume"):
        opened(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_search_server_may_move(tmp_path):
    opened(tmp_path, "search=http", "search.url=http://a:8000").close()
    opened(tmp_path, "search=http", "search.url=http://b:8000", "search.retries=1", resume=True).close()
    with pytest.raises(RunFolderError, match=r"search\.api"):
        opened(tmp_path, "search=http", "search.url=http://a:8000", "search.api=search-r1", resume=True)


def test_resuming_with_what_may_change(tmp_path):
    opened(tmp_path).close()
    opened(tmp_path, "train.steps=7", "run.threads=1", "tracking.console=false", resume=True).close()
    assert load(tmp_path).train.steps == 7


def test_resuming_with_other_settings_names_them(tmp_path):
    opened(tmp_path, "learner.lr=1e-3").close()
    with pytest.raises(RunFolderError) as caught:
        opened(tmp_path, "learner.lr=2e-3", "search=empty", resume=True)
    message = str(caught.value)
    assert "learner.lr was 0.001 and is now 0.002" in message
    assert "search.kind was 'random' and is now 'empty'" in message
    assert "model.init_from=" in message
