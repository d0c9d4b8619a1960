"""What README and docs say is so: commands and settings exist, links lead somewhere, tables are those of the code."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer
from test_architecture import LAYERS

from forage.cli import app
from forage.configure import load, recipes
from forage.options import signature
from forage.registry import PARTS
from forage.schema import fields, parts, tables

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "docs"), str(ROOT / "examples")]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?: {4})?(?:PYTHONPATH=\S+ )?(forage .+)", re.MULTILINE)
SETTING = re.compile(rf"\b({'|'.join(map(re.escape, sorted(tables(), key=len, reverse=True)))})\.([a-z][a-z0-9_]*)")
FILES = {"py", "md", "toml", "json", "jsonl"}


def commands(page: Path) -> list[str]:
    """The command lines of a page, without what is said beside them."""
    found = (re.split(r"\s{3,}|\s#", line)[0].strip() for line in COMMAND.findall(page.read_text("utf-8")))
    return [line for line in found if not re.search(r" \.\.\.|\||\[", line) and not re.search(r"[A-Z]{4,}\b", line)]


def test_the_page_of_commands_is_up_to_date():
    from make_cli import PAGE, page

    assert PAGE.read_text("utf-8") == page(), "run: python docs/make_cli.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_given_so(page: Path):
    for line in commands(page):
        command, words = typer.main.get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        given = command.make_context(line, list(words)).params
        if overrides := given.get("overrides"):
            recipe = given.get("recipe")
            assert load(recipe if recipe in recipes() else "demo", overrides, complete=False), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_exists(page: Path):
    known = {f"{table}.{name}" for table in tables() for name in fields(table)} | set(tables())
    known |= {f"{part}.{name}" for part in parts() for kind in PARTS[part] for name in signature(part, kind)}
    known |= {"reward.price", "search.min_words", "algorithm.loss.tau"}  # of the examples
    known |= {"reward.prise"}  # wrong on purpose
    text = re.sub(r"\]\([^)]*\)|(?s:```python.*?```)", "", page.read_text("utf-8"))
    said = {f"{table}.{name}" for table, name in SETTING.findall(text) if name not in FILES}
    assert not said - known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target, anchor in re.findall(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


def test_the_table_of_layers_is_the_one_that_is_tested():
    rows = re.findall(r"^\| \d+ \| (`.*`) \|$", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE)
    assert tuple(set(re.findall(r"`(\w+)`", row)) for row in rows) == LAYERS


def test_every_recipe_is_on_the_page_of_training():
    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    assert {name for name in recipes() if f"`{name}`" not in text} == set()
