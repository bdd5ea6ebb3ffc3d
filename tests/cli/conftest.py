"""Small models and BEIR folders for the tests of commands."""

import json
from pathlib import Path

import pytest

TOY = Path(__file__).resolve().parents[2] / "data" / "toy"


@pytest.fixture(scope="session")
def make_model(splade_tiny, tmp_path_factory):
    """Make a folder with a small sparse model of random weights, over SPLADE-tiny's vocabulary, from a seed."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    root = tmp_path_factory.mktemp("models")

    def make(name, seed=0, **settings):
        torch.manual_seed(seed)
        size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        model = BertForMaskedLM(BertConfig(**({"vocab_size": 30522} | size | settings)))
        # Only few of the logits of random weights are this far from zero.
        model.cls.predictions.bias.data.fill_(-0.4)
        model.save_pretrained(root / name)
        AutoTokenizer.from_pretrained(splade_tiny).save_pretrained(root / name)
        return root / name

    return make


@pytest.fixture(scope="session")
def small(make_model):
    """Folder of one such model."""
    return make_model("small", seed=1)


@pytest.fixture(scope="session")
def write_beir():
    """Write (part of) the toy collection as a BEIR folder."""

    def write(folder, n_queries=25):
        (folder / "qrels").mkdir(parents=True)
        corpus = [{"_id": doc_id, "title": "", "text": text} for doc_id, text in rows("collection")]
        queries = [{"_id": query_id, "text": text} for query_id, text in rows("queries/heldout")[:n_queries]]
        for name, records in (("corpus", corpus), ("queries", queries)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        qrels = json.loads((TOY / "qrels" / "heldout.json").read_text())
        judged = [(query["_id"], qrels.get(query["_id"], {})) for query in queries]
        lines = [f"{query_id}\t{doc_id}\t{grade}" for query_id, docs in judged for doc_id, grade in docs.items()]
        (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
        return folder

    return write


def rows(name):
    """Return the (id, text) pairs of a toy TSV file."""
    lines = (TOY / name / "raw.tsv").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("\t", 1)) for line in lines]
