"""A miniature of the data archive that is published for SPLADE: its folders, names and formats, with toy texts.

`python tests/published_archive.py FOLDER` writes it, with tiny middle-trained models, for trying presets by hand.
"""

import gzip
import json
import pickle
import shutil
import sys
from pathlib import Path

TOY = Path(__file__).resolve().parents[1] / "data" / "toy"
SCORES = "hard_negatives_scores/cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz"


def write_archive(folder: Path) -> Path:
    """Write `data/msmarco` below a folder; return it."""
    data = folder / "data" / "msmarco"
    copies = {
        "full_collection/raw.tsv": "collection/raw.tsv",
        "triplets/raw.tsv": "triplets/raw.tsv",
        "distil_mse/raw.tsv": "triplets_with_scores/raw.tsv",
        "splade_triplets/raw.tsv": "triplets_with_scores/raw.tsv",
        "val_retrieval/collection/raw.tsv": "collection/raw.tsv",
    }
    for target, source in copies.items():
        (data / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOY / source, data / target)
    scores = json.loads(gzip.decompress((TOY / "hard_negatives" / "scores.json.gz").read_bytes()))
    published = {number(query): {int(doc): score for doc, score in docs.items()} for query, docs in scores.items()}
    (data / SCORES).parent.mkdir()
    (data / SCORES).write_bytes(gzip.compress(pickle.dumps(published)))
    _queries("train", data / "train_queries" / "queries")
    _qrels("train", data / "train_queries" / "qrels.json")
    _queries("train", data / "val_retrieval" / "queries")
    _qrels("train", data / "val_retrieval" / "qrel.json")
    for name in ("dev_queries", "all_dev_queries", "TREC_DL_2019/queries_2019", "TREC_DL_2020/queries_2020"):
        _queries("heldout", data / name)
    for name in ("dev_qrel.json", "TREC_DL_2019/qrel.json", "TREC_DL_2020/qrel.json"):
        _qrels("heldout", data / name)
    for year in ("2019", "2020"):
        _qrels("heldout", data / f"TREC_DL_{year}" / "qrel_binary.json", binary=True)
    return folder


def write_models(folder: Path) -> None:
    """Write `models/mlm_flops`: two random BERTs, 16 units wide, over one vocabulary learned from the toy texts."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from splade.models.from_scratch import learn_tokenizer

    lines = (TOY / "collection" / "raw.tsv").read_text(encoding="utf-8").splitlines()
    fast = learn_tokenizer(lines, vocab_size=400, max_length=512)
    for name, layers in (("DistilBERT", 2), ("BERTiny", 1)):
        with torch.random.fork_rng():
            torch.manual_seed(layers)
            size = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
            model = BertForMaskedLM(BertConfig(vocab_size=len(fast), **size))
        model.save_pretrained(folder / "models" / "mlm_flops" / name)
        fast.save_pretrained(folder / "models" / "mlm_flops" / name)


def number(query_id: str) -> int:
    """Return the number that stands for a toy query, whose id has a letter: published ids are integers."""
    return {"t": 1000, "h": 2000}[query_id[0]] + int(query_id[1:])


def _queries(split: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = (line.split("\t", 1) for line in (TOY / "queries" / split / "raw.tsv").read_text("utf-8").splitlines())
    text = "".join(f"{number(query_id)}\t{text}\n" for query_id, text in rows)
    (folder / "raw.tsv").write_text(text, encoding="utf-8")


def _qrels(split: str, path: Path, binary: bool = False) -> None:
    qrels = json.loads((TOY / "qrels" / f"{split}.json").read_text())
    judged = {
        str(number(query)): {doc: int(grade >= 2) if binary else grade for doc, grade in docs.items()}
        for query, docs in qrels.items()
    }
    path.write_text(json.dumps(judged))


if __name__ == "__main__":
    write_models(write_archive(Path(sys.argv[1])))
