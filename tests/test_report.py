"""The report of a run, through `write_report` and the page that it writes."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folder import write_evaluation, write_metrics, write_run, write_sft

from forage.errors import RunFolderError
from forage.evaluation import summarise
from forage.models.tiny import syllable_tokenizer
from forage.records import read_records, write_records
from forage.report import write_report
from forage.reporting.charts import smoothed, thin, ticks
from forage.reporting.episodes import Album, Pieces, gold_spans, script_json
from forage.reporting.folder import read_metrics, read_run
from forage.text import contains_answer

HOSTILE = "</script><img src=x onerror=alert(1)><b>bold</b> & \u2028 😀"
LIMIT = 5_000_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything there; not to be changed."""
    return write_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def run(whole, tmp_path):
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "whole")


def page(run):
    return write_report(run).read_text("utf-8")


def embedded(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


class Tags(HTMLParser):
    """Every start tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._inside = [], "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


def change_predictions(run, step, change):
    path = run / "eval" / f"step-{step:06d}" / "predictions.jsonl.zst"
    records = list(read_records(path))
    for record in records:
        change(record)
    write_records(path, records)


def test_the_page_stands_next_to_the_run_or_where_it_is_asked_for(run, tmp_path):
    assert write_report(run) == run / "report.html"
    out = tmp_path / "elsewhere" / "page.html"
    assert write_report(run, out) == out
    assert out.read_bytes() == (run / "report.html").read_bytes()


def test_the_page_needs_nothing_else(whole):
    html = page(whole)
    tags = Tags(html).tags
    assert not {"link", "iframe", "img", "object", "embed", "base", "form"} & {tag for tag, _ in tags}
    assert all("src" not in attrs for _, attrs in tags)
    assert all(attrs["href"].startswith("#") for _, attrs in tags if "href" in attrs)
    assert not re.search(r"https?://|@import|url\(|fetch\(|innerHTML", html)
    assert "default-src 'none'" in html


def test_every_link_leads_to_a_section(whole):
    tags = Tags(page(whole)).tags
    links = {attrs["href"][1:] for tag, attrs in tags if tag == "a"}
    assert links == {attrs["id"] for tag, attrs in tags if tag == "section"}
    assert links == {"results", "health", "curves", "time", "episodes", "training", "settings"}


def test_the_same_run_gives_the_same_page(run):
    assert page(run) == page(run)


def test_the_headline_and_the_table_say_what_the_evaluations_said(whole):
    before, after = (json.loads((whole / "eval" / f"step-{s:06d}" / "summary.json").read_text()) for s in (0, 80))
    text = Tags(page(whole)).text
    assert f"exact match rose from {before['em']:.1%} to {after['em']:.1%}" in text
    for summary in (before, after):
        assert f"{summary['em']:.1%}{100 * summary['em_ci'][0]:.1f}–{summary['em_ci'][1]:.1%}" in text
        assert all(f"{em:.1%}" in text for em in summary["by_hop"].values())
    for fact in ("80 steps of 24 questions × 8 samples", "0123456789", "Example Processor 9000, 2 cores", "16.0 GB"):
        assert fact in text


def test_curves_are_drawn_for_what_was_measured_only(whole):
    text = Tags(page(whole)).text
    for title in ("Exact match, held out", "Reward", "Groups with signal", "How episodes end", "Entropy"):
        assert title in text
    assert "Zero throughout, and so not drawn: clipped tokens." in text
    assert "KL to the start" not in text


def test_the_parts_of_a_step_add_up_to_it(whole):
    text = Tags(page(whole)).text
    shares = [float(share) for share in re.findall(r"\ds(?:econds)?(\d+\.\d)%", text.replace(" ", ""))]
    assert sum(shares) == pytest.approx(100, abs=0.6)
    for figure in ("searches a second", "waiting for retrieval", "tokens thrown away", "KV reused"):
        assert figure in text


def test_both_sides_of_a_question_are_embedded_with_their_tokens(whole):
    data = embedded(page(whole))
    predictions = {
        r["question"]["id"]: r for r in read_records(whole / "eval" / "step-000080" / "predictions.jsonl.zst")
    }
    items = data["pairs"]["items"]
    assert len(items) == sum(data["pairs"]["totals"].values()) == 48
    for item in items:
        record, after = predictions[item["id"]], item["sides"][1]
        assert after["answer"] == record["answer"]
        assert sum(len(numbers) for _, _, numbers, _ in after["segments"]) == len(record["tokens"])
        surprises = [value for _, acted, _, some in after["segments"] if acted for value in some]
        sampled = [v for v, acted in zip(record["logprobs"], record["acted"], strict=True) if acted]
        assert surprises == [round(-100 * v) for v in sampled]
        prompt = "".join(data["pieces"][number] for number in after["segments"][0][2])
        assert prompt == f"Question: {record['question']['text']}\n"


def test_gold_answers_are_marked_in_passages_and_answers(whole):
    data = embedded(page(whole))
    for item in data["pairs"]["items"]:
        for side in item["sides"]:
            if side["em"]:
                ((start, end),) = side["gold"]
                assert side["answer"][start:end] in item["answers"]
            spans = [
                data["passages"][number][1][start:end]
                for turn in side["turns"]
                for found in turn["found"]
                for number, _, in_text in found
                for start, end in in_text
            ]
            assert all(text in item["answers"] for text in spans)
            assert not spans or side["hit"]


@given(st.lists(st.sampled_from(["a", "The", "Kane", "kane", "Bilo", "Bilo,", "(Kane)", "x-y", "é", "."])), st.data())
def test_a_place_is_marked_exactly_where_the_answer_counts_as_found(words, data):
    gold = " ".join(data.draw(st.lists(st.sampled_from(["the", "Kane", "Bilo", "x-y", "é"]), max_size=2)))
    text = " ".join(words)
    spans = gold_spans(text, [gold])
    assert bool(spans) == contains_answer(text, [gold])
    assert all(contains_answer(text[start:end], [gold]) for start, end in spans)


def test_untrusted_text_stays_text(run):
    def poison(record):
        record["question"]["text"] = record["answer"] = HOSTILE
        for turn in record["turns"]:
            for passage in (p for found in turn["results"] for p in found):
                passage["title"] = passage["text"] = HOSTILE

    for step in (0, 80):
        change_predictions(run, step, poison)
    model = HOSTILE.replace("\u2028", "")
    (run / "config.toml").write_text(f"[model]\npath = '{model}'\n")
    html = page(run)
    assert html.count("</script>") == 2
    assert "<img" not in html
    assert embedded(html)["pairs"]["items"][0]["text"] == HOSTILE
    assert "&lt;/script&gt;&lt;img" in html


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_in_a_script_element_survives_any_text(text):
    written = script_json([text])
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == [text]


def test_training_episodes_come_by_group_with_their_advantages(whole):
    train = embedded(page(whole))["train"]
    assert [step["step"] for step in train] == [1, 20, 40]
    for group in (group for step in train for group in step["groups"]):
        rewards = [sample["reward"] for sample in group["samples"]]
        assert len(rewards) == 4
        for sample in group["samples"]:
            above = sample["reward"] - sum(rewards) / 4
            assert sample["advantage"] * above >= 0
            assert (abs(sample["advantage"]) > 0) == (len(set(rewards)) > 1)


def test_a_run_that_has_just_begun_says_so(run):
    shutil.rmtree(run / "eval")
    shutil.rmtree(run / "trajectories")
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").write_text("")
    text = Tags(page(run)).text
    assert "nothing measured yet" in text
    assert "There are no metrics yet" in text
    assert "There is no evaluation" in text


def test_a_run_still_going_with_a_torn_line_has_its_curves(run):
    path = run / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:31]) + '{"step": 31, "reward/me')
    shutil.rmtree(run / "eval" / "step-000080")
    html = page(run)
    assert "The run stands at step 30 of 80" in html
    assert "There is one evaluation only (step 0)" in html
    assert {item["kind"] for item in embedded(html)["pairs"]["items"]} == {"right", "wrong"}


def test_without_a_tokenizer_episodes_are_shown_by_action(run):
    shutil.rmtree(run / "checkpoints")
    html = page(run)
    assert "No tokenizer is saved" in html
    side = embedded(html)["pairs"]["items"][0]["sides"][0]
    assert side["segments"] == []
    assert side["turns"][0]["queries"]


def test_without_predictions_the_summaries_are_shown(run):
    for path in run.glob("eval/*/predictions.jsonl.zst"):
        path.unlink()
    summary = json.loads((run / "eval" / "step-000080" / "summary.json").read_text())
    html = page(run)
    assert f"<strong>{summary['em']:.1%}</strong>" in html
    assert "predictions of some evaluation are missing" in html


def test_damaged_files_are_named_and_left_out(run):
    path = run / "eval" / "step-000080" / "predictions.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-40])
    (run / "trajectories" / "step-000020.jsonl.zst").write_bytes(b"nonsense")
    html = page(run)
    assert "Predictions are left out" in html
    assert "Training episodes are left out" in html
    assert [step["step"] for step in embedded(html)["train"]] == [1, 40]


def test_a_supervised_run_shows_its_losses(tmp_path):
    text = Tags(page(write_sft(tmp_path / "warm"))).text
    assert "warm: loss from 6.01 to 0.51" in text
    assert "Learning rate" in text
    assert "made new: 4 layers of 128" in text
    assert "There is no evaluation" not in text


def test_evaluations_with_other_settings_stand_apart(run):
    records = list(read_records(run / "eval" / "step-000000" / "predictions.jsonl.zst"))
    write_evaluation(run, 80, records, name="-0123abcd")
    text = Tags(page(run)).text
    assert "step-000080-0123abcd" in text
    assert f"to {json.loads((run / 'eval' / 'step-000080' / 'summary.json').read_text())['em']:.1%}" in text


def test_a_drop_is_called_one(run):
    for step, other in ((0, 1.0), (80, 0.0)):
        change_predictions(run, step, lambda record, em=other: record.update(em=em))
        folder = run / "eval" / f"step-{step:06d}"
        (folder / "summary.json").write_text(
            json.dumps(summarise(list(read_records(folder / "predictions.jsonl.zst"))))
        )
    assert "exact match fell from 100.0% to 0.0%" in Tags(page(run)).text


def test_a_big_run_stays_small(run):
    """Long episodes with long passages, many steps, many files."""
    (record, *_) = read_records(run / "eval" / "step-000080" / "predictions.jsonl.zst")
    long = {name: (record[name] * 60)[:4000] for name in ("tokens", "acted", "logprobs", "turn")}
    result = {"id": "p", "title": "T", "score": 1.0}

    def big(i, **more):
        texts = [f"{i} {j} " + "<& long passage " * 400 for j in range(10)]
        found = [[result | {"text": text} for text in texts]]
        turns = [{"action": "search", "queries": ["q"], "results": found}, *record["turns"]]
        question = record["question"] | {"id": str(i), "hops": 1 + i % 3}
        return record | long | {"question": question, "turns": turns, **more}

    for step in (0, 80):
        write_evaluation(run, step, [big(i) for i in range(60)])
    for step in range(81, 93):
        records = [big(i, reward=i % 2, advantage=0.0, group=str(i // 8), step=step) for i in range(16)]
        write_records(run / "trajectories" / f"step-{step:06d}.jsonl.zst", records)
    rows = read_metrics(run / "metrics.jsonl")
    write_metrics(run, [row | {"step": step} for step, row in enumerate(rows * 25)])
    html = page(run)
    assert len(html.encode()) < LIMIT
    data = embedded(html)
    assert len(data["pairs"]["items"]) >= 5
    assert len(data["train"]) == 8
    assert max(len(chart["x"]) for chart in data["charts"].values()) < 300


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="holds no run"):
        write_report(tmp_path)


def test_values_that_are_no_numbers_are_gaps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": null, "b": 2}\n{"step": 1, "c": NaN, "d": 3}\n{"step": 2, "a": 1}\n[]\n')
    assert read_metrics(path) == [{"step": 1, "b": 2, "d": 3}, {"step": 2, "a": 1}]


@pytest.fixture(scope="module")
def tokenizer():
    return syllable_tokenizer()


@pytest.fixture(scope="module")
def pieces(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(path))
    return Pieces(path)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_join_to_the_text_whatever_characters_span_tokens(tokenizer, pieces, text):
    tokens = tokenizer.encode(text, add_special_tokens=False)
    numbers = pieces.cut(tokens)
    assert len(numbers) == len(tokens)
    assert "".join(pieces.table[number] for number in numbers) == tokenizer.decode(tokens)


def test_bytes_are_counted_as_they_are_packed(whole):
    album = Album(read_run(whole).tokenizer)
    packed = [album.pack(r) for r in read_records(whole / "eval" / "step-000000" / "predictions.jsonl.zst")]
    written = len(script_json([packed, album.pieces, album.passages]).encode())
    assert album.bytes == pytest.approx(written, rel=0.02)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_what_is_drawn(low, span):
    marks = ticks(low, low + span)
    assert 2 <= len(marks) <= 9
    assert marks == sorted(set(marks))
    assert marks[0] <= low + 1e-6 * span
    assert marks[-1] >= low + span - 1e-6 * span


@given(st.lists(st.floats(0, 1), min_size=1, max_size=900))
def test_long_lines_are_thinned_without_moving_their_mean(values):
    points = list(enumerate(values))
    kept = thin(points)
    assert len(kept) <= 240
    assert kept[-1][0] == len(values) - 1
    assert min(values) - 1e-9 <= min(y for _, y in smoothed(kept)) <= max(values) + 1e-9
