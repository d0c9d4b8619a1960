"""A run's configuration, read: a recipe or TOML file, what it extends, and `key=value` over it, typed and checked.

    load("smoke", ["run.seed=3", "search=random"])  ->  Config        dump(config)  ->  TOML, every option in it

Layers lie over each other: first the recipe that a file extends, then the file, then the command line. `PART=NAME`
means `PART.kind=NAME`. A layer that changes a kind discards the options that lower layers gave the old kind.
"""

from __future__ import annotations

import difflib
import inspect
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from forage.config import Config, Diagnosis, Part
from forage.errors import ConfigError
from forage.options import Setting, arguments, convert, place, required, signature, takes_strings
from forage.registry import find, nearest
from forage.schema import fields, parts, tables
from forage.toml import dump_key, dump_value, flatten, literal, nest

Settings = dict[str, Setting]
"""Dotted key -> what was written for it."""

COMMAND_LINE = "on the command line"


def load(
    name_or_path: str | Path | None,
    overrides: Iterable[str] = (),
    *,
    check_parts: bool = True,
    complete: bool = True,
) -> Config:
    """The configuration of a recipe, a TOML file or a run's folder, with `key=value` overrides over it.

    Args:
        name_or_path: name of a recipe, path of a .toml file, or a run's folder (its config.toml is read); None: the
            defaults.
        overrides: `key=value` words; values are TOML (`3`, `true`, `[0.9, 0.95]`), other words are strings.
        check_parts: import the chosen parts and check their options, filling in every default. Off, options are
            kept as they were written.
        complete: refuse where a part needs an option that is not given; otherwise it is left out (see `missing`).

    Raises:
        ConfigError: nothing of that name, a file that is no TOML, or a key or value that is not usable.
    """
    notes: list[str] = []
    settings: Settings = {}
    below = [] if name_or_path is None else _file_layers(str(name_or_path))
    for layer in (*below, _command_line(overrides)):
        _lay_over(settings, layer, notes)
    config = _typed(settings, check_parts, complete)
    config.run.dir = config.run.dir or str(Path("runs") / Path(name_or_path or "run").stem)
    config.notes = notes
    _check(config)
    if check_parts and complete and _lacks_corpus(config):
        raise ConfigError(
            f"data.corpus is missing: search.kind = {config.search.kind!r} searches its passages. "
            "Set it to a file of passages, or search.kind=indexed search.path=DIR to an index of them"
        )
    return config


def changed(config: Config, overrides: Iterable[str]) -> Config:
    """A configuration with `key=value` words over it, checked as a whole.

    Raises:
        ConfigError: a key or value is not usable.
    """
    layer = {key: Setting(value, "in the run") for key, value in flatten(tomllib.loads(dump(config)))}
    settings: Settings = {}
    notes: list[str] = []
    for over in (layer, _command_line(overrides)):
        _lay_over(settings, over, notes)
    config = _typed(settings, check_parts=True, complete=True)
    config.notes = notes
    _check(config)
    return config


def options(part: str, table: Part) -> dict[str, Any]:
    """The keyword arguments of a part's constructor, typed and checked, with every default.

    Raises:
        ConfigError: an option is unknown, of the wrong type, or missing.
    """
    return arguments(part, table.kind, table.options, shared=fields(part))


def recipes() -> dict[str, str]:
    """Every recipe of the package, with the first line of its comment."""
    folder = files("forage") / "recipes"
    texts = {item.name: item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(".toml")}
    return {name.removesuffix(".toml"): text.partition("\n")[0].lstrip("# ") for name, text in sorted(texts.items())}


# Layers ---------------------------------------------------------------------------------------------------------------


def _file_layers(name: str, seen: tuple[str, ...] = ()) -> list[Settings]:
    """The file's layer, behind those of what it extends."""
    if name in seen:
        raise ConfigError(f"{' extends '.join((*seen, name))}: a circle")
    where, text = _source(name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is no TOML: {error}") from None
    below = table.pop("extends", None)
    if not isinstance(below, str | None):
        raise ConfigError(f"extends ({where}): expected the name of a recipe or file, got {below!r}")
    layer = {key: Setting(value, f"in {where}") for key, value in flatten(table)}
    return [*(_file_layers(below, (*seen, name)) if below else []), _spelled_out(layer)]


def _source(name: str) -> tuple[str, str]:
    """What to call a config file, and its text."""
    path = Path(name) / "config.toml" if Path(name).is_dir() else Path(name)
    if path.suffix != ".toml":
        known = recipes()
        if name not in known:
            raise ConfigError(f"there is no recipe {name!r}, and no such file; {nearest(name, list(known))}")
        return f"recipe {name}", (files("forage") / "recipes" / f"{name}.toml").read_text("utf-8")
    try:
        return str(path), path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error


def _command_line(overrides: Iterable[str]) -> Settings:
    layer: Settings = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} {COMMAND_LINE}: expected key=value, such as run.seed=1")
        value = literal(text)
        leaves = dict(flatten(value, f"{key}.")) if isinstance(value, Mapping) else {key: value}
        layer |= {leaf: Setting(item, COMMAND_LINE, text) for leaf, item in leaves.items()}
    return _spelled_out(layer)


def _spelled_out(layer: Settings) -> Settings:
    """`PART = NAME` as `PART.kind = NAME`."""
    return {f"{key}.kind" if key in parts() else key: setting for key, setting in layer.items()}


def _lay_over(settings: Settings, layer: Settings, notes: list[str]) -> None:
    """Lay `layer` over `settings`, discarding the options of every kind that it changes."""
    if own_file := _own_file(settings, layer):
        layer = {**layer, "data.kind": Setting("jsonl", layer[own_file].where)}
        notes.append(f"data.kind is jsonl, because {own_file} is set")
    for part in parts():
        old, new = _kind(settings, part), _kind(layer, part, _kind(settings, part))
        if old != new and (dropped := [key for key in settings if _is_option(key, part)]):
            notes.append(
                f"{part}.kind is {new}, no longer {old}: left out {', '.join(map(_as_said(settings), dropped))}"
            )
            for key in dropped:
                del settings[key]
    settings |= layer


def _own_file(settings: Settings, layer: Settings) -> str | None:
    """The key that names the user's own questions or corpus, where the kind of data set so far takes no files."""
    keys = [key for key in ("data.questions", "data.corpus") if key in layer and isinstance(layer[key].value, str)]
    if not keys or "data.kind" in layer:
        return None
    known = signature("data", _kind(settings, "data"))
    names = {key: known.get(key.removeprefix("data.")) for key in keys}
    return next((key for key, option in names.items() if not option or not takes_strings(option.type)), None)


def _as_said(settings: Settings) -> Any:
    return lambda key: f"{key} = {settings[key].value!r} ({settings[key].where})"


def _kind(settings: Settings, part: str, default: str | None = None) -> str:
    kind = settings.get(f"{part}.kind")
    return str(kind.value) if kind else default or str(fields(part)["kind"].default)


def _is_option(key: str, part: str) -> bool:
    return key.startswith(f"{part}.") and key.removeprefix(f"{part}.") not in fields(part)


# Types ----------------------------------------------------------------------------------------------------------------


def _typed(settings: Settings, check_parts: bool, complete: bool) -> Config:
    """Every setting in its place, checked."""
    config = Config()
    given: dict[str, dict[str, Setting]] = {part: {} for part in parts()}
    for table, name, setting in _placed(settings):
        if name in fields(table):
            setattr(config.table(table), name, convert(f"{table}.{name}", setting, fields(table)[name].type))
        else:
            given[table][name] = setting
    for part, chosen in given.items():
        of_kind = config.part(part)
        if check_parts:
            of_kind.options = arguments(part, of_kind.kind, chosen, shared=fields(part), complete=complete)
        else:
            of_kind.options = {name: setting.value for name, setting in chosen.items()}
    return config


def _placed(settings: Settings) -> Iterator[tuple[str, str, Setting]]:
    """Table, name and setting of each; keys below a name (a table as a value) are put together again."""
    together: dict[tuple[str, str], Settings] = {}
    for key, setting in settings.items():
        table = _table_of(key)
        name, _, below = key.removeprefix(f"{table}.").partition(".") if table else ("", "", "")
        if not name or not (name in fields(table) or table in parts()):
            raise ConfigError(_unknown(key, setting))
        together.setdefault((table, name), {})[below] = setting
    for (table, name), leaves in together.items():
        first = next(iter(leaves.values()))
        if list(leaves) == [""]:
            yield table, name, first
        else:
            inner = nest({below: setting.value for below, setting in leaves.items() if below})
            yield table, name, Setting(inner, first.where)


def _table_of(key: str) -> str:
    """The longest table name that `key` lies in; empty where there is none."""
    return max((name for name in tables() if key.startswith(f"{name}.")), key=len, default="")


def missing(config: Config) -> list[str]:
    """The options that parts need and that are not given, where `load` did not insist on them."""
    needed = {part: required(signature(part, config.part(part).kind)) for part in parts()}
    found = [
        f"{part}.{name}" for part, names in needed.items() for name in names if name not in config.part(part).options
    ]
    return [*found, *(["data.corpus"] if _lacks_corpus(config) else [])]


def _lacks_corpus(config: Config) -> bool:
    """Whether no corpus is given and the search engine needs one: its passages have no default then."""
    if config.data.options.get("corpus", "") is not None:
        return False
    first = next(iter(inspect.signature(find("search", config.search.kind)).parameters.values()), None)
    return first is not None and first.default is inspect.Parameter.empty


def _unknown(key: str, setting: Setting) -> str:
    if key in tables():
        example = next(iter(fields(key)))
        return f"{key} = {setting.value!r}{place(setting)}: {key} is a table of settings, such as {key}.{example}"
    return f"there is no setting {key}{place(setting)}; {_hint(key)}"


def _hint(key: str) -> str:
    """The nearest setting: of the same table, then of any, then an option of that name in another part."""
    known = [f"{table}.{name}" for table in tables() for name in fields(table)]
    if same_table := [other for other in known if _table_of(key) and other.startswith(f"{_table_of(key)}.")]:
        return nearest(key, same_table)
    if close := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
        return f"did you mean {close[0]!r}?"
    last = key.rpartition(".")[2]
    same_name = [other for other in [*known, *_default_options()] if other.endswith(f".{last}")]
    return f"did you mean {' or '.join(map(repr, same_name))}?" if same_name else nearest(key, known)


def _default_options() -> Iterator[str]:
    """Options of the default kinds of all parts; imports those, so only a message asks for this."""
    for part in parts():
        yield from (f"{part}.{name}" for name in signature(part, fields(part)["kind"].default))


def _check(config: Config) -> None:
    """Settings that contradict each other."""
    limits = config.rollout
    if limits.max_turn_tokens >= limits.max_tokens:
        raise ConfigError(
            f"rollout.max_turn_tokens = {limits.max_turn_tokens} leaves no room for a prompt in "
            f"rollout.max_tokens = {limits.max_tokens}; lower the first or raise the second"
        )
    _check_retry(config.diagnosis)


def _check_retry(rules: Diagnosis) -> None:
    """A run that is taken back with nothing changed would collapse again; retries are for nothing else."""
    if rules.on_collapse == "rollback" and not rules.retry:
        raise ConfigError(
            "diagnosis.on_collapse = 'rollback' needs settings to go on with, such as "
            "diagnosis.retry='[\"learner.lr=1e-4\"]'"
        )
    if rules.retry and rules.on_collapse != "rollback":
        raise ConfigError(
            f"diagnosis.retry does nothing with diagnosis.on_collapse = {rules.on_collapse!r}; set 'rollback'"
        )


# TOML -----------------------------------------------------------------------------------------------------------------


def dump(config: Config, *, explain: bool = False) -> str:
    """The whole configuration as TOML that `load` reads back to an equal one.

    Args:
        config: a configuration, loaded with its parts checked where their defaults are to be written too.
        explain: put each setting's help behind it.
    """
    return "\n".join(_dump_table(config, name, explain) for name in tables())


def _dump_table(config: Config, name: str, explain: bool) -> str:
    table, known = config.table(name), fields(name)
    values = {key: getattr(table, key) for key in known}
    lines = {key: option.help for key, option in known.items()}
    if isinstance(table, Part):
        values |= table.options
        lines |= {key: option.help for key, option in signature(name, table.kind).items()} if explain else {}
    body = "".join(_dump_line(key, value, lines.get(key, "") if explain else "") for key, value in values.items())
    return f"[{name}]\n{body}"


def _dump_line(key: str, value: Any, line: str) -> str:
    # TOML has no null: what is None is left to its default, and shown as a comment.
    setting = f"# {dump_key(key)} is not set" if value is None else f"{dump_key(key)} = {dump_value(value)}"
    if not line:
        return f"{setting}\n"
    beside = f"{setting:<36}  # {line}"
    above = textwrap.fill(line, 118, initial_indent="# ", subsequent_indent="# ")
    return f"{beside}\n" if len(beside) <= 120 else f"{above}\n{setting}\n"
