import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import IndexFolderError
from forage.indexing.structures import Structure, build_structure
from forage.indexing.vectors import longest
from forage.retrievers.nearest import Nearest

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 9), st.integers(1, 12), st.integers(1, 70))


def brute(vectors, queries, k):
    """The k best of each query by float64 products, ties to the earlier row."""
    scores = (vectors.astype(np.float64) @ queries.astype(np.float64).T).T.astype(np.float32)
    return [sorted(zip(-row, range(len(row)), strict=True))[:k] for row in scores]


def found(vectors, queries, k, **options):
    nearest = Nearest(vectors, Structure(**options), None, longest(vectors))
    return [list(zip(-scores, rows, strict=True)) for rows, scores in nearest.best(queries, k)]


@given(SIZES, st.integers(0, 10_000))
def test_comparing_with_all_is_exact_and_ties_go_to_the_earlier(sizes, seed):
    passages, dimensions, queries, k = sizes
    dice = np.random.default_rng(seed)
    vectors = dice.integers(-2, 3, (passages, dimensions)).astype(np.float16)  # few values: many ties
    asked = dice.integers(-2, 3, (queries, dimensions)).astype(np.float32)
    assert found(vectors, asked, k) == brute(vectors, asked, k)


@given(st.integers(5, 12), st.integers(1, 40), st.integers(0, 10_000))
def test_alone_or_with_others_a_query_finds_the_same(queries, k, seed):
    dice = np.random.default_rng(seed)
    vectors = dice.standard_normal((3000, 8)).astype(np.float16)
    vectors[1500:] = vectors[:1500]  # every vector twice
    asked = dice.standard_normal((queries, 8)).astype(np.float32)
    together = found(vectors, asked, k)
    assert together == [found(vectors, query[None], k)[0] for query in asked]
    assert together == brute(vectors, asked, k)


def clustered(passages, dimensions=16):
    dice = np.random.default_rng(1)
    centres = dice.standard_normal((20, dimensions))
    vectors = centres[dice.integers(0, 20, passages)] + 0.5 * dice.standard_normal((passages, dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:50] + 0.05 * dice.standard_normal((50, dimensions))
    return vectors.astype(np.float16), queries.astype(np.float32)


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_structures_find_nearly_all_and_score_exactly(tmp_path, kind):
    vectors, queries = clustered(3000)
    chosen = Structure(kind=kind, nlist=16).settled(*vectors.shape)
    build_structure(chosen, vectors, tmp_path, lambda *_: None)
    nearest = Nearest(vectors, chosen, tmp_path, longest(vectors))
    exact = brute(vectors, queries, 10)
    hits = 0
    for (rows, scores), wanted in zip(nearest.best(queries, 10), exact, strict=True):
        assert sorted(zip(-scores, rows, strict=True)) == list(zip(-scores, rows, strict=True))
        shared = {row: score for score, row in wanted}
        hits += sum(shared.get(row, 0) == -score for row, score in zip(rows, scores, strict=True))
    assert hits / 500 > 0.98
    for k in (2999, 5000):  # more than they find: then all are compared
        for rows, scores in nearest.best(queries[:2], k):
            assert len(rows) == len(set(rows.tolist())) == min(k, 3000)
            assert rows.min() >= 0
            assert list(scores) == sorted(scores, reverse=True)


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_structures_are_the_same_each_time(tmp_path, kind):
    vectors, _ = clustered(600)
    chosen = Structure(kind=kind).settled(*vectors.shape)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build_structure(chosen, vectors, tmp_path / name, lambda *_: None)
    (first,), (second,) = ([path.read_bytes() for path in (tmp_path / name).iterdir()] for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_a_structure_of_other_vectors_or_none_is_refused(tmp_path, kind):
    vectors, _ = clustered(600)
    chosen = Structure(kind=kind).settled(*vectors.shape)
    with pytest.raises(IndexFolderError, match="can't be read"):
        Nearest(vectors, chosen, tmp_path, 1.0)
    build_structure(chosen, vectors, tmp_path, lambda *_: None)
    with pytest.raises(IndexFolderError, match="is of 600 vectors of 16 dimensions, not 599 of 16"):
        Nearest(vectors[:-1].copy(), chosen, tmp_path, 1.0)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IndexFolderError, match="can't be read"):
        Nearest(vectors, chosen, tmp_path, 1.0)
