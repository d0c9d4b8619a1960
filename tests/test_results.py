"""The page of results is what its generator makes of the words and the measured rows."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))

from make_results import RESULTS, SOURCE, pages, slug  # noqa: E402


def result(name, group="KL", **more):
    return {
        "name": name,
        "group": group,
        "note": "",
        "overrides": [],
        "seeds": [0, 1],
        "em": [0.95, 1.0],
        "em_mean": 0.975,
        "em_ci": [0.91, 1.0],
        "em_start": 0.02,
        "samples": 11520,
        "steps_to_90": 12,
        "samples_to_90": None,
        "steps_to_95": 20,
        "curve": [[0.1, 0.5, 0.9], [0.2, 0.6, 1.0]],
        "seconds": 99.6,
        "collapsed": [],
        "stability": 0.0312,
        "commit": "0123456789",
        "versions": {"torch": "2.13.0"},
        "cpu": "Example",
        "versus": None,
    } | more


def against(difference, spread, p):
    interval = [difference - spread, difference + spread]
    return {"row": "none", "difference": difference, "ci": interval, "ci_seeds": interval, "p": p, "p_holm": p}


def test_the_page_is_what_its_generator_makes():
    made = pages(SOURCE.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8")))
    for path, text in made.items():
        assert (ROOT / "docs" / path).read_text("utf-8") == text, "run: python docs/make_results.py"
    drawn = {f"results/{file.name}" for file in (ROOT / "docs" / "results").glob("*.svg")}
    assert drawn == made.keys() - {"results.md"}, "a drawing that nobody makes any more"


def test_every_group_of_the_table_of_ablations_has_its_place():
    groups = set(re.findall(r'^group = "(.*)"$', (ROOT / "benchmarks" / "ablations.toml").read_text("utf-8"), re.M))
    assert set(re.findall(r"<!-- table: (.*?) -->", SOURCE.read_text("utf-8"))) == groups


def test_a_table_says_what_was_measured():
    rows = [
        result("none", note="the recipe"),
        result("kl", overrides=["learner.kl_coef=0.01"], versus=against(-0.05, 0.01, 0.001), collapsed=[1]),
        result("less", samples_to_90=2304, versus=against(0.01, 0.02, 0.3)),
    ]
    lines = pages("<!-- table: KL -->", rows)["results.md"].splitlines()
    assert "| **none** | the recipe's | .975 [.910, 1.000] | .950 1.000 | – | 11,520 | never | 100 | .031 |" in lines
    assert "**−5.0 [−6.0, −4.0]**" in lines[4]
    assert "`learner.kl_coef=0.01`" in lines[4]
    assert "| +1.0 [−1.0, +3.0] | 11,520 | 2,304 |" in lines[5]
    assert lines[-1] == "`none`: the recipe. Collapsed on the way: `kl` (seed 1)."


def test_figures_stand_in_sentences():
    rows = [result("none"), result("kl.1", versus=against(-0.05, 0.01, 0.001), commit="abc, 0123456789")]
    text = pages("{{none.em}} {{kl.1.difference}} {{none.samples_to_90}} at {{commit}}, {{torch}}", rows)["results.md"]
    assert text.endswith(".975 [.910, 1.000] −5.0 [−6.0, −4.0] never at `0123456789`, `abc`, 2.13.0")


@pytest.mark.parametrize("word", ["nonne.em", "none.emm", "none"])
def test_a_figure_that_there_is_not_is_refused(word):
    with pytest.raises(ValueError, match="there is no such"):
        pages(f"{{{{{word}}}}}", [result("none")])


def test_groups_that_were_not_run_say_so():
    assert pages("<!-- table: KL -->\n<!-- plot: KL -->", [])["results.md"].strip().endswith("*Not run yet.*")
    assert slug("Losses, four optimizer steps a rollout") == "losses-four-optimizer-steps-a-rollout"


def test_drawings_stand_alone_and_hold_every_row():
    made = pages("<!-- plot: KL -->", [result("none"), result("a<b")])
    drawn = made["results/kl.svg"]
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "a&lt;b" in drawn
    assert drawn.count('class="band') == 2
    assert "![KL: exact match](results/kl.svg)" in made["results.md"]


def test_lines_are_drawn_over_a_number_in_the_names():
    rows = [result(f"stale_{age}_{way}", "Off") for age in (0, 8, 2) for way in ("token", "plain")]
    drawn = pages(r"<!-- lines: Off | age | stale_(\d+)_(\w+) -->", rows)["results/age.svg"]
    assert drawn.count('class="whisker') == 6
    assert ">token<" in drawn
    assert ">plain<" in drawn


def test_a_row_without_a_word_is_on_every_line_and_lines_of_nothing_are_left_out():
    directive = r"<!-- lines: Off | age | ^stale_(\d+)(?:_(\w+))?$ -->"
    rows = [result("stale_0", "Off"), result("stale_2_token", "Off"), result("stale_2_plain", "Off")]
    assert pages(directive, rows)["results/age.svg"].count('class="whisker') == 4
    assert pages(directive, [result("other", "Off")]).keys() == {"results.md"}
