import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from forage.errors import CheckpointError, ConfigError, RetrieverError
from forage.models.cross_encoder import CrossEncoder
from forage.models.texts import batches
from forage.types import Passage

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "tower", "river", "the", "of"]
SHORT, LONG = Passage("1", "Red", "tower"), Passage("2", "", "the river of the blue tower " * 10)


def tokenizer():
    inner = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def config(labels=1):
    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=labels,
        initializer_range=0.5,
    )


def made(folder, labels=1, kind=BertForSequenceClassification, with_tokenizer=True):
    torch.manual_seed(0)
    model = kind(config(labels)).eval()
    model.save_pretrained(folder)
    if with_tokenizer:
        tokenizer().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross")
    made(folder)
    return folder


def test_the_score_is_the_models_output_for_query_and_passage(folder):
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = model(
            input_ids=torch.tensor([[2, 5, 3, 4, 6, 3]]), token_type_ids=torch.tensor([[0, 0, 0, 1, 1, 1]])
        ).logits.item()
    assert CrossEncoder(path=str(folder)).score([("blue", SHORT)]) == [pytest.approx(wanted, rel=1e-5)]


def test_of_two_outputs_the_log_odds_of_the_second_are_the_score(tmp_path):
    model = made(tmp_path, labels=2)
    with torch.no_grad():
        no, yes = model(
            input_ids=torch.tensor([[2, 5, 3, 4, 6, 3]]), token_type_ids=torch.tensor([[0, 0, 0, 1, 1, 1]])
        ).logits[0]
    assert CrossEncoder(path=str(tmp_path)).score([("blue", SHORT)]) == [pytest.approx((yes - no).item(), rel=1e-5)]


def test_a_score_does_not_depend_on_the_other_pairs(folder):
    pairs = [(query, passage) for query in ("red tower", "blue", "the river of red") for passage in (LONG, SHORT)]
    reranker = CrossEncoder(path=str(folder), batch_tokens=100)
    alone = [reranker.score([pair])[0] for pair in pairs]
    assert reranker.score(pairs) == pytest.approx(alone, abs=1e-5)
    assert reranker.score(pairs[::-1]) == pytest.approx(alone[::-1], abs=1e-5)
    assert len(set(alone)) > 4


def test_the_passage_is_cut_and_never_the_query(folder):
    reranker = CrossEncoder(path=str(folder))  # 32 positions
    query = "red " * 10
    fits = Passage("3", "", " ".join(LONG.text.split()[: 32 - 10 - 3]))
    assert reranker.score([(query, LONG)]) == pytest.approx(reranker.score([(query, fits)]), abs=1e-5)
    assert len(reranker.score([("red " * 28, LONG)])) == 1
    with pytest.raises(RetrieverError, match="has 29 tokens, and the reranker reads fewer than 29"):
        reranker.score([("blue", SHORT), ("red " * 29, SHORT)])
    assert CrossEncoder(path=str(folder), max_tokens=16).score([("red", LONG)]) != reranker.score([("red", LONG)])


def test_passages_without_their_title_and_odd_texts(folder):
    untitled = CrossEncoder(path=str(folder), title=False)
    assert untitled.score([("blue", SHORT)]) == untitled.score([("blue", Passage("1", "", "tower"))])
    odd = [("", SHORT), ("\ud800 red", SHORT), ("red", Passage("1", "", ""))]
    assert len(untitled.score(odd)) == 3
    assert untitled.score([]) == []


def test_bfloat16_is_near(folder):
    pair = ("blue tower", SHORT)
    near = CrossEncoder(path=str(folder), dtype="bfloat16").score([pair])
    assert near == pytest.approx(CrossEncoder(path=str(folder)).score([pair]), rel=0.05, abs=0.05)


def test_batches_hold_rows_of_like_lengths_within_the_budget():
    assert list(batches([3, 9, 4, 1, 30], 20)) == [[4], [1, 2], [0, 3]]
    assert list(batches([], 20)) == []


def test_a_model_without_a_head_is_refused(tmp_path):
    made(tmp_path, kind=BertModel)
    with pytest.raises(CheckpointError, match=r"is no cross-encoder: it lacks classifier\.bias"):
        CrossEncoder(path=str(tmp_path))


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    made(tmp_path, with_tokenizer=False)
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        CrossEncoder(path=str(tmp_path))


def test_a_model_of_three_outputs_is_refused(tmp_path):
    made(tmp_path, labels=3)
    with pytest.raises(ConfigError, match="has 3 outputs"):
        CrossEncoder(path=str(tmp_path))


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        CrossEncoder(path=str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="holds no model"):
        CrossEncoder(path=str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(folder):
    with pytest.raises(ConfigError, match="sees no GPU"):
        CrossEncoder(path=str(folder), device="cuda")
