"""Imports run downwards, layers hold, and what must stay light imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "forage"

LAYERS = (
    {"types", "errors", "toml", "text", "concurrency", "environment", "interrupt", "intervals"},
    {"interfaces", "registry", "options", "config", "schema", "configure"},
    {"batch", "aggregation", "kl", "correction", "logprobs", "records", "diagnosis", "clients"},
    {"datasets", "renderers", "rewards", "advantages", "losses", "trackers"},
    {"indexing"},
    {"retrievers", "models", "testing"},
    {"engines", "learners", "weights", "server", "encoders"},
    {"rollout", "sources", "checkpoint", "metrics", "resume", "runfolder", "demonstrations", "health", "gain"},
    {"algorithm", "build"},
    {"evaluation", "run"},
    {
        "training",
        "sft",
        "ask",
        "search",
        "export",
        "doctor",
        "needs",
        "reporting",
        "report",
        "compare",
        "recall",
        "fuse",
        "coverage",
    },
    {"demo"},
    {"boundary", "output", "commands", "cli", "__main__"},
)
"""Names at the top of forage/, lowest first. A name imports from its own layer and from lower ones; a folder never
imports another folder of its layer. `forage/__init__.py` stands above all."""

LIGHT = (
    "datasets",
    "renderers",
    "indexing",
    "retrievers",
    "server",
    "rewards",
    "trackers",
    "testing",
    "configure",
    "cli",
    "records",
)
HEAVY = ("torch", "transformers", "tokenizers")


def top_names() -> set[str]:
    entries = (path for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())
    return {path.stem for path in entries} - {"__init__"}


def imported(name: str) -> set[str]:
    """The top names that a file or folder of forage imports, in functions and for type checkers too."""
    path = ROOT / f"{name}.py"
    files = [path] if path.exists() else sorted((ROOT / name).rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [
        f"forage.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "forage"
        for alias in node.names
    ]
    return {module.split(".")[1] for module in modules if module.startswith("forage.")} - {name}


def test_every_name_has_a_layer_and_every_layer_exists():
    assert top_names() == set().union(*LAYERS)


@pytest.mark.parametrize("height", range(len(LAYERS)))
def test_imports_run_downwards(height: int):
    reachable = set().union(*LAYERS[: height + 1])
    above = {name: imported(name) - reachable for name in LAYERS[height]}
    assert not {name: wrong for name, wrong in above.items() if wrong}


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: min(layer))
def test_folders_of_a_layer_do_not_know_each_other(layer: set[str]):
    folders = {name for name in layer if (ROOT / name).is_dir()}
    assert not {name: imported(name) & folders for name in folders if imported(name) & folders}


def loaded(code: str) -> set[str]:
    """The top names of all modules that are loaded after `code`, in a Python of its own."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_forage_loads_nothing_heavy():
    assert not loaded("import forage") & {*HEAVY, "numpy", "rich"}


def test_help_of_every_command_loads_nothing_heavy():
    code = """
from typer.testing import CliRunner
from forage.cli import app
runner = CliRunner()
commands = "demo train sft eval ask report diagnose compare data load search serve export doctor recipes".split()
for words in [[], *([name] for name in commands), ["data", "fictional"]]:
    done = runner.invoke(app, [*words, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output, words
"""
    assert not loaded(code) & {*HEAVY, "numpy"}


@pytest.mark.parametrize("name", LIGHT)
def test_these_import_without_torch(name: str):
    path = ROOT / name
    stems = [f".{file.stem}" for file in sorted(path.glob("[a-z]*.py"))] if path.is_dir() else [""]
    assert not loaded("\n".join(f"import forage.{name}{stem}" for stem in stems)) & set(HEAVY)
