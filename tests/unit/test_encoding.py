import logging
import threading

import numpy as np
import pytest
import torch

import splade
from splade.distributed import shard_range
from splade.encoding.batching import encode_batches
from splade.encoding.lengths import settle_max_length
from splade.encoding.text_encoder import TextEncoder
from splade.encoding.tokens import padded_batch
from splade.errors import ConfigError, DataError, ModelError
from splade.models.encoder import EncoderSettings, SparseEncoder
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.pretrained import load_masked_lm
from splade.vectors import SparseVectors


class WordTokenizer:
    """A word is its number; 1 and 2 stand around a text."""

    pad_token_id = 0

    def __init__(self):
        self.threads = set()

    def num_special_tokens_to_add(self):
        return 2

    def __call__(self, texts, truncation, max_length, **_):
        self.threads.add(threading.current_thread().name)
        return {"input_ids": [[1, *map(int, text.split()), 2][:max_length] for text in texts]}


class CountingEncoder:
    """The vector of a text counts its tokens; remembers the shape of every batch."""

    vocab_size = 50

    def __init__(self):
        self.batches = []

    def encode(self, input_ids, attention_mask):
        self.batches.append(tuple(input_ids.shape))
        dense = torch.zeros(len(input_ids), self.vocab_size)
        dense.scatter_add_(1, input_ids, attention_mask.float())
        return SparseVectors.from_dense(dense.numpy())

    gather = SparseEncoder.gather

    def parameters(self):
        return iter(())

    buffers = parameters


def texts_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(map(str, rng.integers(3, 50, length))) for length in lengths]


def expected(text, max_length=100):
    return np.bincount(WordTokenizer()([text], True, max_length)["input_ids"][0], minlength=50)


LENGTHS = [3, 0, 17, 5, 5, 40, 1, 2, 9, 30, 30, 4, 0]


@pytest.mark.parametrize("window", [1, 4, 13, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_vectors_come_in_the_order_of_the_texts(window, batch_size):
    texts = texts_of(LENGTHS)
    encoder = CountingEncoder()
    groups = list(encode_batches(encoder, WordTokenizer(), iter(texts), 100, batch_size, window=window))
    assert [len(group) for group in groups] == [len(texts[i : i + window]) for i in range(0, len(texts), window)]
    vectors = SparseVectors.concatenate(groups, 50).to_dense()
    np.testing.assert_array_equal(vectors, [expected(text) for text in texts])
    assert max(rows for rows, _ in encoder.batches) <= batch_size


def test_batches_hold_similar_lengths_within_the_token_budget():
    encoder = CountingEncoder()
    list(encode_batches(encoder, WordTokenizer(), texts_of(LENGTHS), 100, batch_size=50, token_budget=64))
    assert all(rows * length <= 64 for rows, length in encoder.batches)
    assert [length for _, length in encoder.batches] == sorted((length for _, length in encoder.batches), reverse=True)
    in_reading_order = CountingEncoder()
    list(encode_batches(in_reading_order, WordTokenizer(), texts_of(LENGTHS), 100, batch_size=2, window=2))
    computed, unsorted = (sum(rows * length for rows, length in e.batches) for e in (encoder, in_reading_order))
    assert computed < unsorted


def test_a_text_longer_than_the_budget_is_encoded_alone():
    encoder = CountingEncoder()
    list(encode_batches(encoder, WordTokenizer(), texts_of([40, 40]), 100, batch_size=8, token_budget=10))
    assert encoder.batches == [(1, 48), (1, 48)]


def test_batches_have_few_shapes_and_never_exceed_the_maximum():
    encoder = CountingEncoder()
    list(encode_batches(encoder, WordTokenizer(), texts_of(range(90)), 86, batch_size=1))
    assert sorted({length for _, length in encoder.batches}) == [8, 16, 24, 32, 40, 48, 56, 64, 80, 86]


def test_long_texts_are_cut():
    texts = texts_of([40])
    (vectors,) = encode_batches(CountingEncoder(), WordTokenizer(), texts, 10, batch_size=8)
    np.testing.assert_array_equal(vectors.to_dense()[0], expected(texts[0], 10))


def test_no_texts_no_vectors():
    assert list(encode_batches(CountingEncoder(), WordTokenizer(), [], 10, batch_size=8)) == []


def test_texts_are_read_only_one_window_ahead():
    read = []

    def texts():
        for text in texts_of([2] * 100):
            read.append(text)
            yield text

    windows = encode_batches(CountingEncoder(), WordTokenizer(), texts(), 10, batch_size=8, window=10)
    next(windows)
    assert len(read) <= 20
    windows.close()
    assert len(read) <= 20


def test_tokenisation_runs_in_a_thread():
    tokenizer = WordTokenizer()
    list(encode_batches(CountingEncoder(), tokenizer, texts_of(LENGTHS), 10, batch_size=8))
    assert tokenizer.threads and threading.current_thread().name not in tokenizer.threads


def test_an_error_while_reading_reaches_the_caller():
    def texts():
        yield "3 4"
        raise ConfigError("line 2 is broken")

    with pytest.raises(ConfigError, match="line 2"):
        list(encode_batches(CountingEncoder(), WordTokenizer(), texts(), 10, batch_size=8))


@pytest.mark.parametrize("name", ["batch_size", "token_budget", "window"])
def test_sizes_below_one_are_named(name):
    sizes = {"batch_size": 4, name: 0}
    with pytest.raises(ConfigError, match=f"{name}=0"):
        list(encode_batches(CountingEncoder(), WordTokenizer(), ["3"], 10, **sizes))
    with pytest.raises(ConfigError, match="max_length=0"):
        list(encode_batches(CountingEncoder(), WordTokenizer(), ["3"], 0, 4))


def test_single_queries():
    encoder = CountingEncoder()
    terms, weights = TextEncoder(encoder, WordTokenizer(), 100).encode_one("7 9 7").row(0)
    assert terms.tolist() == [1, 2, 7, 9] and weights.tolist() == [1, 1, 2, 1]
    assert TextEncoder(encoder, WordTokenizer(), 3).encode("7 9 7").row(0)[0].tolist() == [1, 7, 9]
    assert encoder.batches == [(1, 5), (1, 3)]


def test_one_text_several_a_generator_and_none():
    encoder = TextEncoder(CountingEncoder(), WordTokenizer(), 100)
    texts = texts_of(LENGTHS)
    together = encoder.encode(text for text in texts)
    np.testing.assert_array_equal(together.to_dense(), encoder.encode(texts).to_dense())
    np.testing.assert_array_equal(together.to_dense()[2], encoder.encode(texts[2]).to_dense()[0])
    assert len(encoder.encode([])) == 0 and encoder.encode([]).vocab_size == 50
    for wrong in (["3", None], [b"3"], [3]):
        with pytest.raises(DataError, match="must be a string"):
            encoder.encode(wrong)


def test_pairs_keep_their_ids():
    encoder = TextEncoder(CountingEncoder(), WordTokenizer(), 100)
    texts = texts_of([3] * 1100)
    groups = list(encoder.encode_pairs((f"d{i}", text) for i, text in enumerate(texts)))
    assert [doc_id for ids, _ in groups for doc_id in ids] == [f"d{i}" for i in range(1100)]
    assert [len(vectors) for _, vectors in groups] == [512, 512, 76]


def test_texts_that_are_nearly_all_cut_are_noticed():
    encoder = TextEncoder(CountingEncoder(), WordTokenizer(), 10)
    assert encoder.check_truncation(texts_of([8] * 20)) == []
    (finding,) = encoder.check_truncation(texts_of([30] * 20))
    assert finding.code == "documents-cut" and "20 of the first 20" in finding.message


def test_padded_batch():
    input_ids, attention_mask = padded_batch([[5, 6, 7], [], [8]], pad_id=9)
    assert input_ids.tolist() == [[5, 6, 7], [9, 9, 9], [8, 9, 9]]
    assert attention_mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("n", [0, 1, 7, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_shards_cover_everything_once_and_evenly(n, world_size):
    shards = [shard_range(n, rank, world_size) for rank in range(world_size)]
    assert [item for shard in shards for item in shard] == list(range(n))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("n", "rank", "world_size"), [(3, 2, 2), (3, -1, 2), (-1, 0, 1), (3, 0, 0)])
def test_shards_that_do_not_exist(n, rank, world_size):
    with pytest.raises(ConfigError, match="process"):
        shard_range(n, rank, world_size)


def test_the_own_limit_of_a_model_is_followed_and_another_is_said_once(tiny_model, caplog):
    caplog.set_level(logging.INFO, "splade.encoding.lengths")
    network = splade.load(tiny_model()).network
    assert settle_max_length(None, network) == settle_max_length(512, network) == 512  # its positions
    network.tokenizer.model_max_length = 64
    assert settle_max_length(None, network) == 64
    assert caplog.records == []
    for _ in range(2):
        assert settle_max_length(128, network) == 128
    (said,) = caplog.records
    assert "config.max_length=128 tokens" in said.getMessage() and "is 64" in said.getMessage()
    network.document_settings = EncoderSettings(max_length=32)  # by the folder: it is what counts, and a warning
    assert settle_max_length(None, network) == 32 and settle_max_length(100, network) == 100
    assert len(caplog.records) == 1


def test_a_small_model_encodes_a_batch_in_each_thread_with_the_same_result(tiny_model, monkeypatch):
    loaded = load_masked_lm(str(tiny_model()))
    encoder = MaskedLMEncoder(loaded.model)
    texts = [" ".join(["word"] * (1 + i % 23)) + f" {i}" for i in range(90)]
    text_encoder = TextEncoder(encoder, loaded.tokenizer, 32, batch_size=4)
    threads, encode = set(), encoder.encode

    def seen(*batch):
        threads.add((threading.get_ident(), torch.get_num_threads()))
        return encode(*batch)

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        monkeypatch.setattr(encoder, "encode", seen)
        together = text_encoder.encode(texts)
        assert len(threads) > 1 and {number for _, number in threads} == {1}
        assert torch.get_num_threads() == 3
        threads.clear()
        monkeypatch.setattr("splade.models.threads.SMALL", 0)
        torch.set_num_threads(1)
        alone = text_encoder.encode(texts)
    finally:
        torch.set_num_threads(before)
    assert len(threads) == 1
    for name in ("indptr", "term_ids"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
    np.testing.assert_allclose(together.weights, alone.weights, rtol=1e-5)


def test_an_error_in_a_thread_reaches_the_caller_and_the_threads_are_as_before(tiny_model, monkeypatch):
    loaded = load_masked_lm(str(tiny_model()))
    encoder = MaskedLMEncoder(loaded.model)
    monkeypatch.setattr(encoder, "encode", lambda *batch: (_ for _ in ()).throw(ModelError("not finite")))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ModelError, match="not finite"):
            TextEncoder(encoder, loaded.tokenizer, 32, batch_size=1).encode(["a", "b", "c"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
