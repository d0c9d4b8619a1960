"""Recipes, files and overrides to a checked configuration."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.config import Config
from forage.configure import dump, load, missing, options, recipes
from forage.errors import ConfigError
from forage.schema import field_help, fields, tables
from forage.toml import dump_value


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def refusal(*words: str, path: Path | None = None, check_parts: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, words, check_parts=check_parts)
    assert caught.value.exit_code == 2
    return str(caught.value)


class Shop:
    """A search engine of somebody's own.

    Args:
        city: where it stands, and where
            one looks.
        shelves: how many.
    """

    def __init__(self, passages: Any, *, city: str, shelves: int | None = None, open: tuple[int, int] = (8, 18)):
        self.passages = passages


def praise(trajectory: Any) -> float:
    return 1.0


HERE = f"{__name__}:"


def test_every_setting_has_a_line_of_help():
    assert set(tables()) >= {"run", "search", "algorithm.advantage", "sft.fresh"}
    for table in tables():
        assert all(option.help for option in fields(table).values()), table
    assert field_help(Config) == {}


def test_words_lie_over_the_file_which_lies_over_what_it_extends(tmp_path):
    written(tmp_path, "[train]\nsteps = 1\nkeep = 1\neval_every = 1\n", "base.toml")
    path = written(tmp_path, f'extends = "{tmp_path}/base.toml"\n[train]\nkeep = 2\neval_every = 2\n')
    config = load(path, ["train.eval_every=3"], check_parts=False)
    assert (config.train.steps, config.train.keep, config.train.eval_every) == (1, 2, 3)
    assert config.run.dir == "runs/mine"


def test_a_file_that_extends_itself_is_refused(tmp_path):
    path = written(tmp_path, f'extends = "{tmp_path}/mine.toml"\n')
    assert "a circle" in refusal(path=path)


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_loads_and_has_a_line(name):
    assert recipes()[name]
    load(name, complete=False)


def test_a_recipe_is_found_by_name_and_the_nearest_named():
    assert load("smoke", check_parts=False).run.dir == "runs/smoke"
    with pytest.raises(ConfigError, match=r"no recipe 'smok'.*did you mean 'smoke'"):
        load("smok")


def test_files_that_are_missing_or_broken_are_named(tmp_path):
    assert "there is no file" in refusal(path=tmp_path / "none.toml")
    assert "mine.toml is no TOML" in refusal(path=written(tmp_path, "steps = = 1"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.step=1", "no setting train.step .on the command line.; did you mean 'train.steps'"),
        ("trian.steps=1", "did you mean 'train.steps'"),
        ("lr=1", "did you mean 'critic.lr' or 'learner.lr'"),
        ("search.kk=1", "search.kind = 'bm25' has no such option; did you mean 'search.k"),
        ("search.stemer=none", "did you mean 'search.stemmer'"),
        ("train=1", "train is a table of settings, such as train.steps"),
        ("train.steps.more=1", "train.steps = .'more': 1.*expected a whole number >= 0, got a table"),
        ("steps", "'steps' on the command line: expected key=value"),
        ("=1", "expected key=value"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_known_one(word, message):
    assert re.search(message, refusal(word))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.steps=ten", "train.steps = 'ten' (on the command line): expected a whole number >= 0, got a string"),
        ("train.steps=1.5", "expected a whole number >= 0, got a number"),
        ("train.steps=-1", "train.steps = -1 (on the command line): expected a whole number >= 0, got -1"),
        ("run.seed=true", "expected a whole number >= 0, got true or false"),
        ("run.device=gpu", "expected one of 'auto', 'cpu', 'cuda'; did you mean 'cpu'?"),
        ("rollout.temperature=nan", "expected a number > 0, got nan"),
        ("search.max_failure_rate=2", "expected a number >= 0 and <= 1, got 2"),
        ("model.gradient_checkpointing=1", "expected true or false, got a whole number"),
        ("search.k1=high", "search.k1 = 'high' (on the command line): expected a number, got a string"),
        ("learner.betas=[1]", "expected a list [a number, a number]"),
        ("learner.minibatch_questions=-1", "expected a whole number >= 0, got -1"),  # would learn nothing
        ("learner.kl_horizon=0", "expected a whole number >= 1, got 0"),
        ("learner.schedule=cosin", "did you mean 'cosine'?"),
    ],
)
def test_wrong_types_say_what_was_expected_and_what_was_got(word, message):
    assert message in refusal(word)


def test_a_message_names_the_file_of_a_wrong_value(tmp_path):
    path = written(tmp_path, '[train]\nsteps = "ten"\n')
    assert f"(in {path})" in refusal(path=path)


def test_words_stay_as_typed_where_strings_are_asked_for():
    config = load(None, ["run.dir=2026", "model.path=1e3", "search.stemmer=none"])
    assert (config.run.dir, config.model.path, config.search.options["stemmer"]) == ("2026", "1e3", "none")


def test_a_part_is_named_by_its_table_and_defaults_are_filled_in():
    config = load(None, ["search=random", "search.seed=7"])
    assert (config.search.kind, config.search.options) == ("random", {"seed": 7})
    assert config.part("algorithm.loss").options == {"clip_low": 0.2, "clip_high": 0.2}


def test_changing_a_kind_discards_the_old_kinds_options_and_says_so(tmp_path):
    path = written(tmp_path, '[search]\nkind = "bm25"\nk1 = 1.2\nk = 5\n')
    config = load(path, ["search=random"])
    assert "k1" not in config.search.options
    assert config.search.k == 5
    assert config.notes == [f"search.kind is random, no longer bm25: left out search.k1 = 1.2 (in {path})"]


def test_naming_the_same_kind_again_keeps_its_options(tmp_path):
    path = written(tmp_path, '[search]\nkind = "bm25"\nk1 = 1.2\n')
    config = load(path, ["search=bm25"])
    assert config.search.options["k1"] == 1.2
    assert not config.notes


def test_own_files_mean_jsonl_and_a_note_says_so():
    config = load("smoke", ["data.questions=q.jsonl", "data.corpus=c.jsonl"])
    assert config.data.kind == "jsonl"
    assert config.data.options["questions"] == Path("q.jsonl")
    assert config.notes[0] == "data.kind is jsonl, because data.questions is set"


def test_a_count_of_questions_is_no_file():
    assert load(None, ["data.questions=50"]).data.kind == "fictional"


def test_an_option_without_a_default_is_asked_for():
    assert "data.corpus is missing: search.kind = 'bm25' searches its passages" in refusal("data.questions=q.jsonl")


def test_what_is_missing_can_be_told_instead():
    config = load(None, ["data.questions=q.jsonl"], complete=False)
    assert missing(config) == ["data.corpus"]
    assert missing(load(None)) == []


def test_a_class_of_ones_own_brings_its_options():
    config = load(None, [f"search={HERE}Shop", "search.city=Ulm", "search.open=[7,20]"])
    assert config.search.options == {"city": "Ulm", "shelves": None, "open": (7, 20)}
    assert options("search", config.search) == config.search.options
    text = dump(config, explain=True)
    assert "where it stands, and where one looks." in text
    assert "# shelves is not set" in text


def test_a_function_has_no_options():
    assert load(None, [f"reward={HERE}praise"]).reward.options == {}
    assert "has no such option" in refusal(f"reward={HERE}praise", "reward.weight=1")


def test_unknown_kinds_are_refused_when_parts_are_checked_and_not_before():
    assert "did you mean 'bm25'" in refusal("search=bm52")
    assert load(None, ["search=bm52", "search.x=1"], check_parts=False).search.options == {"x": 1}


def test_limits_that_contradict_each_other_are_refused():
    assert "leaves no room" in refusal("rollout.max_tokens=100", "rollout.max_turn_tokens=100")


def test_tables_as_values_can_be_added_to(tmp_path):
    path = written(tmp_path, "[[sft.phases]]\nshare = 0.5\nhasty = 1\n")
    assert load(path, check_parts=False).sft.phases == [{"share": 0.5, "hasty": 1.0}]


@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipes_come_back_from_their_dump(name, tmp_path):
    config = load(name, complete=False)
    assert load(written(tmp_path, dump(config)), complete=False) == config
    assert load(written(tmp_path, dump(config, explain=True)), complete=False) == config


word = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=12)
chosen = st.fixed_dictionaries(
    {},
    optional={
        "run.dir": word.filter(bool),
        "run.seed": st.integers(0, 2**40),
        "model.path": word,
        "search.k": st.integers(1, 50),
        "search.timeout_s": st.floats(1e-3, 1e9),
        "search.b": st.floats(0, 1),
        "learner.lr": st.floats(0, 1),
        "learner.betas": st.tuples(st.floats(0, 1), st.floats(0, 1)),
        "train.steps": st.integers(0, 10**9),
        "tracking.wandb": st.booleans(),
    },
)


@given(chosen)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_dump_holds_everything(tmp_path, values):
    config = load(None, [f"{key}={dump_value(value)}" for key, value in values.items()])
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        part = config.table(table)
        assert (getattr(part, name) if hasattr(part, name) else part.options[name]) == value
    again = load(written(tmp_path, dump(config)))
    assert dataclasses.asdict(again) == dataclasses.asdict(config)
