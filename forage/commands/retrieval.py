"""Commands around search engines: index, search, recall, fuse, coverage, chunk, dedupe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forage.boundary import say
from forage.commands.words import Json, Opening, whole_numbers
from forage.output import counting, progress, show

if TYPE_CHECKING:
    from forage.types import Passage

Corpus = Annotated[Path, typer.Argument(metavar="CORPUS", help="Passages: .jsonl (.gz, .zst), .parquet, or a folder.")]
Index = Annotated[Path, typer.Argument(metavar="DIR", help="An index folder.")]
Questions = Annotated[Path, typer.Argument(metavar="QUESTIONS.jsonl", help="Questions, one JSON object a line.")]


class Kind(StrEnum):
    """Kinds of index."""

    bm25 = "bm25"
    dense = "dense"
    hybrid = "hybrid"


def index(
    corpus: Corpus,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; it appears once it is whole.")],
    options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of the kind.")] = None,
    kind: Annotated[Kind, typer.Option(help="By words, by meaning, or both.")] = Kind.bm25,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted call left.")] = False,
    as_json: Json = False,
) -> None:
    """Make an index of a corpus.

    Reads the corpus as a stream, in bounded memory, which is said first. Its options are in docs/retrieval.md.

    \b
      forage index corpus.jsonl --out indexes/mine
      forage index wiki.jsonl.gz --kind bm25 --out indexes/wiki stemmer=none k1=1.2 b=0.75
      forage index wiki.jsonl.gz --out indexes/wiki duplicates=near near=0.9
      forage index wiki.jsonl.gz --out indexes/wiki --resume
    """
    from forage.indexing.build import build_index, command_line_options

    chosen = command_line_options(options or [])
    info = build_index(corpus, kind.value, out, options=chosen, resume=resume, progress=counting(), say=say)
    found = {"dir": str(out), "kind": info.kind, "passages": info.passages, "corpus": info.corpus}
    size, gone = sum(info.files.values()), info.deduplicated
    if gone:
        found |= {"duplicates_removed": gone.removed}
    without = f" without {gone.removed:,} duplicates" if gone else ""
    show(found | {"bytes": size}, as_json, f"{info.passages:,} passages{without}, {size / 1e6:,.1f} MB in {out}")


class Elsewhere(StrEnum):
    """Engines that run elsewhere."""

    opensearch = "opensearch"
    qdrant = "qdrant"


def load(
    corpus: Corpus,
    engine: Annotated[Elsewhere, typer.Argument(help="What runs there; OpenSearch is Elasticsearch, too.")],
    options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of the engine.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an index that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Load a corpus, or the passages of an index folder, into a search engine on other machines.

    Its options are in docs/retrieval.md; keys and passwords are read from the environment.

    \b
      forage load wiki.jsonl.gz opensearch url=http://localhost:9200 index=wiki
      forage load indexes/wiki opensearch url=http://localhost:9200 index=wiki vectors=indexes/wiki
      forage load wiki.jsonl.gz qdrant url=http://localhost:6333 collection=wiki encoder=my_parts:Encoder
    """
    from forage.indexing.build import command_line_options
    from forage.indexing.elsewhere import load_corpus

    chosen = command_line_options(options or [])
    told = _counted("passages loaded")
    count = load_corpus(corpus, engine.value, chosen, resume=resume, progress=told, say=say)
    show({"engine": engine.value, "passages": count}, as_json, f"{count:,} passages are in {engine.value}")


def search(
    corpus: Annotated[Path, typer.Argument(metavar="DIR|CORPUS|RUN", help="An index, a corpus (BM25), or a run.")],
    query: Annotated[str, typer.Argument(help="The query, in quotes.")],
    options: Opening = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many passages.")] = 3,
    as_json: Json = False,
) -> None:
    """Search an index, a corpus, or what a run searches, as a model would.

    \b
      forage search indexes/wiki "capital of Norway" --k 5
      forage search indexes/wiki "capital of Norway" reranker.path=models/reranker
      forage search corpus.jsonl "capital of Norway"
      forage search runs/demo "founder of Zurimba"
    """
    from forage.indexing.build import command_line_options
    from forage.search import marked, search_corpus

    found = search_corpus(corpus, query, k=k, options=command_line_options(options or []))
    lines = [
        f"{p['score']:8.3f}  {marked(p['title'], query, _bold)}  [{p['id']}]\n"
        f"          {marked(p['text'], query, _bold)}"
        for p in ([] if as_json else found["results"])
    ]
    show(found, as_json, "\n".join(lines) or "nothing found")


def recall(
    folder: Index,
    questions: Questions,
    options: Opening = None,
    k: Annotated[str, typer.Option("--k", "-k", metavar="K,K", help="Depths, with commas between them.")] = "3,10",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the measures of each question.")] = None,
    removed: Annotated[Path | None, typer.Option(metavar="FILE", help="What forage dedupe left out before.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what an index finds for questions whose passages are known.

    Questions carry `positive_ids` or `supporting_titles`, and answers where there are. Each is asked alone. A passage
    that was left out as a duplicate counts as found with the one that stands for it.

    \b
      forage recall indexes/wiki questions.jsonl
      forage recall indexes/wiki questions.jsonl --k 3,10 --json
      forage recall indexes/both questions.jsonl fusion=weighted lexical_weight=.4
    """
    from forage.indexing.build import command_line_options
    from forage.recall import duplicates_of, measure_recall, read_judged, recall_text
    from forage.retrievers.rerank import open_searcher

    asked, same = list(read_judged(questions)), duplicates_of(folder, removed)
    index = open_searcher(folder, command_line_options(options or []))
    found = measure_recall(index, asked, whole_numbers(k), stands_for=same, out=out, progress=progress("questions"))
    show(found, as_json, recall_text(found))


def fuse(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A hybrid index.")],
    questions: Annotated[Path, typer.Argument(metavar="TRAIN.jsonl", help="Training questions, one a line.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of opening the index (encoder.path=...).")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Passages that count.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Choose how a hybrid index is fused, by training questions.

    Measures recall of reciprocal ranks and of weights from 0 to 1, and writes the best into the index, for all queries.
    Questions carry `positive_ids` or `supporting_titles`; report nothing on those that it was chosen by.

    \b
      forage fuse indexes/both train.jsonl
      forage fuse indexes/both train.jsonl --k 5 --dry-run
    """
    from forage.fuse import fit_fusion, fuse_text
    from forage.indexing.build import command_line_options

    opening = command_line_options(options or [])
    found = fit_fusion(folder, questions, k=k, options=opening, keep=not dry_run, progress=progress("questions"))
    show(found, as_json, fuse_text(found))


def coverage(
    questions: Questions,
    target: Annotated[Path, typer.Argument(metavar="DIR|CORPUS", help="An index folder, or a corpus.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it by question, for data.coverage.")] = None,
    as_json: Json = False,
) -> None:
    """Say which questions a corpus can answer at all.

    A gold answer stands in some passage, or all supporting titles are there. With data.coverage training leaves the
    others out, and evaluation tells both figures.

    \b
      forage coverage questions.jsonl indexes/wiki --out coverage.jsonl
      forage train smoke data.questions=questions.jsonl data.corpus=wiki.jsonl data.coverage=coverage.jsonl
    """
    from forage.coverage import coverage_summary, coverage_text, measure_coverage
    from forage.datasets.coverage import write_coverage
    from forage.datasets.jsonl import read_questions
    from forage.indexing.corpus import passages_of
    from forage.indexing.duplicates import REMOVED, read_removed

    asked = tuple(read_questions(questions))
    left_out = [each.title for each in read_removed(target / REMOVED)] if target.is_dir() else []
    found = measure_coverage(asked, passages_of(target), _counted("passages read"), left_out=left_out)
    if out:
        write_coverage(out, found)
    summary = coverage_summary(found)
    show(summary, as_json, coverage_text(summary))


def chunk(
    documents: Annotated[Path, typer.Argument(metavar="DOCS", help="Long documents, in a form that passages have.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to: .jsonl, .jsonl.gz or .jsonl.zst.")],
    words: Annotated[int, typer.Option(min=1, help="Words of a passage, at most.")] = 100,
    stride: Annotated[int, typer.Option(min=0, help="Words from one beginning to the next; 0: as --words.")] = 0,
    sentences: Annotated[bool, typer.Option("--sentences", help="Cut between sentences only.")] = False,
    as_json: Json = False,
) -> None:
    """Cut long documents into passages.

    Ids are the document's with #0, #1, ... behind; each passage has its document's title.

    \b
      forage chunk articles.jsonl --out passages.jsonl.zst
      forage chunk articles.jsonl --out passages.jsonl --words 120 --stride 60 --sentences
    """
    from forage.datasets.jsonl import write_passages
    from forage.indexing.chunk import chunk as cut
    from forage.indexing.corpus import read_passages

    written = 0

    def counted() -> Iterator[Passage]:
        nonlocal written
        for passage in cut(read_passages(documents), words=words, stride=stride, sentences=sentences):
            written += 1
            yield passage

    write_passages(out, counted())
    show({"passages": written, "file": str(out)}, as_json, f"{written:,} passages in {out}")


def dedupe(
    corpus: Corpus,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to: .jsonl, .jsonl.gz or .jsonl.zst.")],
    near: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Leave out near duplicates, too: least similarity, up to 1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Leave out passages that say what an earlier one says.

    Equal ones (case and white space aside), or with --near those whose sets of three words in a row have at least that
    Jaccard similarity. FILE.removed says which passage stands for each that was left out; one that is there already is
    not written over.

    \b
      forage dedupe passages.jsonl --out unique.jsonl.zst
      forage dedupe passages.jsonl --out unique.jsonl.zst --near 0.9
    """
    from forage.indexing.duplicates import Deduplication, dedupe_corpus

    chosen = Deduplication("exact" if near is None else "near", near)
    found = dedupe_corpus(corpus, out, chosen, progress=counting(), say=say)
    text = f"{found['passages']:,} passages in {out}, {found['removed']:,} duplicates in {found['removed_file']}"
    show(found, as_json, text)


def _counted(what: str) -> Callable[[int], None]:
    """Tells how many are done, where it is not known of how many."""
    told = counting()

    def tell(done: int) -> None:
        if told:
            told(what, done, 0)

    return tell


def _bold(text: str) -> str:
    return typer.style(text, bold=True)
