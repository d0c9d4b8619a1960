"""The `forage` command. Each command reads its words and calls one function, which is imported then and not before."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from forage.boundary import Boundary, check_words, reported, say
from forage.commands import retrieval, serving
from forage.commands.words import Json
from forage.config import Config
from forage.errors import ConfigError
from forage.output import progress, report_end, show, stream, summary_text

SETTINGS = """\b
Settings are KEY=VALUE words, as many as you like, over what the recipe or file says:
  train.steps=50        a number             run.dir=runs/mine            a string
  search=random         a part: short for    reward=my_pkg.rewards:Fluent your own part
                        search.kind=random   data.hops=[1,2]              a list
`forage train NAME --dry-run` prints every setting there is, with its value and help."""

app = typer.Typer(
    cls=Boundary,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data", help="Make data: `forage data fictional`.")

Recipe = Annotated[str, typer.Argument(metavar="NAME|FILE.toml", help="A recipe (`forage recipes`) or a TOML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings over it.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/demo.")]
Step = Annotated[int | None, typer.Option(help="Take the checkpoint of this step instead of the last one.")]
Best = Annotated[bool, typer.Option("--best", help="Take the checkpoint with the best evaluation.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print every setting with its help, then stop.")]


class Dtype(StrEnum):
    """What exported weights are stored as."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Split(StrEnum):
    """Names of one split's worlds never occur in worlds of the other."""

    train = "train"
    eval = "eval"


@app.callback()
def forage(
    debug: Annotated[bool, typer.Option("--debug", envvar="FORAGE_DEBUG", help="Show tracebacks of errors.")] = False,
) -> None:
    """Forage trains language models to reason and search, by reinforcement learning.

    \b
      forage demo                          train a small model here, and see what it learned
      forage train smoke run.dir=runs/a    a real run, with a setting changed
      forage eval runs/a                   measure it on questions it has never seen
      forage ask runs/a "Who ...?"         watch it think, search and answer
    """


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder; an earlier demo in it is replaced.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a small model here, in minutes, and report on it.

    Needs no GPU, no download and no key. Writes DIR/report.html and DIR/result.json: exact match before and after,
    on questions of a world that the model has never seen.
    """
    from forage.demo import run_demo

    result = run_demo(out, seed=seed)
    base, trained = result["base"], result["trained"]
    show(
        result,
        as_json,
        f"exact match on {trained['n']:,} questions of a world never seen: {base['em']:.3f} before, "
        f"{trained['em']:.3f} after {result['steps']} steps, {result['total_seconds']:.0f} s in all\n"
        f"look at it: {out / 'report.html'}",
    )


@app.command(epilog=SETTINGS)
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    init_from: Annotated[str, typer.Option(metavar="RUN|DIR", help="Start with the weights of a run.")] = "",
) -> None:
    """Train by reinforcement learning.

    A run has a folder of its own: run.dir, by default runs/NAME.

    \b
      forage train smoke                                    a recipe of the package
      forage train smoke run.seed=1 run.dir=runs/seed-1     with other settings
      forage train mine.toml --dry-run                      a file of yours, looked at first
      forage train smoke --resume                           on from the last checkpoint

    Ctrl-C ends the step, saves and exits with 130; --resume goes on as if nothing had been.
    """
    words = [*(overrides or []), *([f"model.init_from={json.dumps(init_from)}"] if init_from else [])]
    if (config := _configured(recipe, words, dry_run, reinforced=True)) is None:
        return
    from forage.training import train_from_config

    report_end(train_from_config(config, resume=resume))


@app.command(epilog=SETTINGS)
def sft(
    recipe: Recipe,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    data: Annotated[
        Path | None, typer.Option(metavar="TRAJECTORIES.jsonl", help="Learn from these trajectories (.zst too).")
    ] = None,
) -> None:
    """Warm start: learn from scripted or recorded episodes.

    Scripted ones follow the recipe's [sft]; recorded ones are a file of trajectories.

    \b
      forage sft warm-start                                 how the demo's model was made
      forage sft mine.toml --data good.jsonl.zst            from your own trajectories
    """
    words = [*(overrides or []), *([f"sft.data={json.dumps(str(data))}"] if data else [])]
    if (config := _configured(recipe, words, dry_run)) is None:
        return
    from forage.sft import run_sft

    report_end(run_sft(config, resume=resume))


@app.command(name="eval", epilog=SETTINGS)
def evaluate(
    run: RunDir,
    overrides: Overrides = None,
    step: Step = None,
    best: Best = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the predictions.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a run: greedy, every question, with intervals.

    \b
      forage eval runs/demo data.seed=7                           another world
      forage eval runs/demo search=empty                          does it really need to search?
      forage eval runs/demo data.questions=q.jsonl data.corpus=c.jsonl --json
    """
    _check_run(run)
    from forage.evaluation import evaluate_run

    summary = evaluate_run(run, overrides or [], step=step, best=best, out=out, progress=progress("questions"))
    show(summary, as_json, summary_text(summary))


@app.command()
def ask(
    run: RunDir,
    question: Annotated[str, typer.Argument(help="The question, in quotes.")],
    overrides: Overrides = None,
    step: Step = None,
    best: Best = False,
    as_json: Json = False,
) -> None:
    """Ask a run's model, and watch it think, search, answer.

    \b
      forage ask runs/demo "Where was the founder of Zurimba born?"
      forage ask runs/mine "..." data.questions=q.jsonl data.corpus=c.jsonl --json
    """
    _check_run(run)
    from forage.ask import ask as put

    record = put(run, question, write=stream(as_json), overrides=overrides or [], step=step, best=best)
    answer = record["answer"]
    show(record, as_json, f"\n\nanswer: {answer}" if answer is not None else f"\n\nno answer ({record['stop']})")


@app.command()
def report(
    run: RunDir,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; RUN/report.html without.")] = None,
) -> None:
    """Write a run's report.

    One HTML file with curves, tables and trajectories to page through; it needs no network.
    """
    _check_run(run)
    from forage.report import write_report

    typer.echo(write_report(run, out) if out else write_report(run))


@app.command()
def diagnose(run: RunDir, as_json: Json = False) -> None:
    """Say whether a run is well.

    Looks at its metrics for what comes before a collapse, or is one: what was seen, at which step, and what to try.

    \b
      forage diagnose runs/demo
      forage diagnose runs/demo --json
    """
    from forage.reporting.health import diagnose_run, health_text

    found = diagnose_run(run)
    show(found, as_json, health_text(found))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Where to; without: runs/compare.html, with --json none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs.

    Runs that differ in their seed only form an arm. One HTML file: a table with intervals, paired tests on the same
    questions, curves with bands over seeds, and the settings that differ.

    \b
      forage compare runs/grpo-seed0 runs/grpo-seed1 runs/rloo-seed0 runs/rloo-seed1
      forage compare runs/a runs/b --json
    """
    for run in runs:
        _check_run(run)
    from forage.compare import compare as beside
    from forage.compare import write_comparison

    found = beside(runs)
    page = write_comparison(found, out or Path("runs/compare.html")) if out or not as_json else None
    show(found.as_json() | {"page": str(page) if page else None}, as_json, f"{found.as_text()}\nlook at it: {page}")


@data.command(name="fictional", epilog=SETTINGS)
def fictional(
    seed: Annotated[int, typer.Option(min=0, help="Names the world.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for corpus.jsonl and questions.jsonl.")],
    split: Annotated[Split, typer.Option(help="No name of one split occurs in the other.")] = Split.eval,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write a fictional world as JSON lines, for other tools.

    \b
      forage data fictional --seed 7 --out worlds/7
      forage data fictional --seed 7 --split train --out worlds/7 data.entities=300 data.questions=5000
    """
    from forage.export import export_world

    written = export_world(seed, split.value, out, overrides=overrides or [])
    show(written, as_json, f"{written['passages']:,} passages and {written['questions']:,} questions in {out}")


for command in (
    retrieval.index,
    retrieval.load,
    retrieval.search,
    serving.serve,
    retrieval.recall,
    retrieval.fuse,
    retrieval.coverage,
    retrieval.chunk,
    retrieval.dedupe,
):
    app.command()(command)


@app.command()
def export(
    run: RunDir,
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    step: Step = None,
    best: Best = False,
    dtype: Annotated[Dtype, typer.Option(help="Of the weights; they are trained in float32.")] = Dtype.float32,
) -> None:
    """Write a run's model as a Hugging Face folder.

    \b
      forage export runs/mine models/mine
    """
    _check_run(run)
    from forage.export import export_model

    written = export_model(run, out, step=step, best=best, dtype=dtype.value)
    typer.echo(f"the model of step {written['step']} is in {out}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say whether this machine is ready.

    Looks at versions, processor, memory, disk, GPU and extras, and computes something.
    """
    from forage.doctor import check

    found = check()
    width = max(len(line["name"]) for line in found["findings"])
    lines = [
        f"{'ok ' if line['ok'] else 'NOT'} {line['name']:<{width}}  {line['found']}"
        + (f"   ({line['todo']})" if line["todo"] else "")
        for line in found["findings"]
    ]
    show(found, as_json, "\n".join(lines))
    raise typer.Exit(0 if found["ok"] else 1)


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the recipes; `forage train NAME` runs one."""
    from forage.configure import recipes as known

    found = known()
    width = max(map(len, found), default=0)
    show(found, as_json, "\n".join(f"{name:<{width}}  {line}" for name, line in found.items()))


def _configured(recipe: str, words: list[str], dry_run: bool, *, reinforced: bool = False) -> Config | None:
    """The configuration; None where it was only to be shown. `reinforced`: algorithm and critic have to go together."""
    from forage.configure import dump, load, missing

    config = load(recipe, words, complete=not dry_run)
    if dry_run and reinforced:
        from forage.algorithm import check

        check(config)
    for note in config.notes:
        say(f"note: {note}")
    if not dry_run:
        return config
    from forage.needs import needs

    typer.echo(dump(config, explain=True))
    still = [f"still to be set: {key}" for key in missing(config)]
    typer.echo("\n".join(f"# {line}" for line in [*still, *needs(config)]))
    return None


def _check_run(run: Path) -> None:
    if not (run / "config.toml").exists():
        raise ConfigError(f"{run} is no run's folder: there is no config.toml in it")


def main() -> None:
    """The command `forage`."""
    sys.path.insert(0, "")  # modules of the current directory can be named in a configuration
    try:
        with reported(debug=False, words=sys.argv[1:]):
            words = check_words(sys.argv[1:])
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    app(words, prog_name="forage")


if __name__ == "__main__":
    main()
