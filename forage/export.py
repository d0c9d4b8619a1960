"""What other tools can use: a checkpoint as a plain Hugging Face folder, a fictional world as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from forage.configure import load, options
from forage.errors import RunFolderError

QUESTIONS = 1000  # of an exported world, where nothing else is said


def export_model(
    run: Path, out: Path, *, step: int | None = None, best: bool = False, dtype: str = "float32"
) -> dict[str, Any]:
    """Write a run's checkpoint (the last; or of a step, or the best) as a folder that transformers loads.

    `dtype` is that of the weights: float32, as they were trained, or bfloat16, half as large.

    Returns:
        `step` and `dir`.

    Raises:
        CheckpointError: there is no such checkpoint, or `out` holds something else.
    """
    from forage import build, checkpoint

    config = load(run, ["run.device=cpu"])
    at = checkpoint.choose(run / "checkpoints", step=step, best=best)
    build.policy(config, weights=at).export(out, dtype=dtype)
    return {"step": checkpoint.step_of(at), "dir": str(out)}


def export_world(
    seed: int, split: Literal["train", "eval"], out: Path, *, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Write a fictional world as `corpus.jsonl` and `questions.jsonl` into `out`.

    Args:
        seed: names the world.
        split: names of training and evaluation worlds never meet.
        overrides: `key=value` words of [data], such as `data.entities=300`.

    Returns:
        `dir`, `passages`, `questions`: how many of each.

    Raises:
        RunFolderError: `out` is a file.
    """
    from forage.datasets.fictional import Fictional
    from forage.datasets.jsonl import write_passages, write_questions

    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; --out names a folder")
    words = [f"data.questions={QUESTIONS}", *overrides, "data.kind=fictional", f"data.seed={seed}"]
    chosen = load(None, words, check_parts=False)
    world = Fictional(split, **options("data", chosen.data))
    passages, questions = list(world.passages()), world.questions()
    out.mkdir(parents=True, exist_ok=True)
    write_passages(out / "corpus.jsonl", passages)
    write_questions(out / "questions.jsonl", questions)
    return {"dir": str(out), "passages": len(passages), "questions": len(questions)}
