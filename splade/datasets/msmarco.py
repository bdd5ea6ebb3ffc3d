"""Fetches MS MARCO passage and TREC DL 2019/2020 and arranges them as the configurations of `conf/` expect.

    splade-download-msmarco                     # collection, queries, judgements, TREC DL: 1.1 GB
    splade-download-msmarco hard_negatives      # also the cross-encoder scores
    splade-download-msmarco all --folder /big/disk/msmarco

Interrupt it whenever you like: the same command goes on where it was, in the middle of a file too. A file that exists
is whole: it is checked, then renamed into place. The layout is that of the data archive published for SPLADE;
`conf/README.md` describes it.

Checksums: where the MD5 of a file is publicly known, it stands in the table below. For the others the SHA-256 of the
first download is kept in `downloads/checksums.json`, and every later use of that file is checked against it; that
notices damage and a changed file, not one that was wrong from the beginning.

MS MARCO is for non-commercial research: https://microsoft.github.io/msmarco/ has the terms.
"""

import argparse
import gzip
import hashlib
import heapq
import logging
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from splade.config.command import report, report_error
from splade.datasets.collections import open_collection, open_queries
from splade.datasets.msmarco_downloads import CHUNK_BYTES, Downloads, Source
from splade.datasets.qrels import read_qrels
from splade.errors import DataError, SpladeError, nearest
from splade.progress import progress
from splade.storage.atomic import replacing, write_json
from splade.storage.locks import FolderLock

logger = logging.getLogger(__name__)

MSMARCO = "https://msmarco.z22.web.core.windows.net/msmarcoranking/"
TREC = "https://trec.nist.gov/data/deep/"
CROSS_ENCODER_SCORES = "cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz"
VIENNA_SCORES = "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv"

VALIDATION_QUERIES, VALIDATION_PASSAGES = 1000, 50_000

FORMER_NAMES = {
    "train_queries/raw.tsv": "train_queries/queries/raw.tsv",
    "train_qrel.json": "train_queries/qrels.json",
    "val_queries/raw.tsv": "val_retrieval/queries/raw.tsv",
    "val_collection/raw.tsv": "val_retrieval/collection/raw.tsv",
    "val_qrel.json": "val_retrieval/qrel.json",
    "TREC_DL_2019/queries/raw.tsv": "TREC_DL_2019/queries_2019/raw.tsv",
    "TREC_DL_2020/queries/raw.tsv": "TREC_DL_2020/queries_2020/raw.tsv",
    "downloads/queries.dev.tsv": "all_dev_queries/raw.tsv",
    f"hard_negatives/{CROSS_ENCODER_SCORES}": f"hard_negatives_scores/{CROSS_ENCODER_SCORES}",
    "vienna_triplets/raw.tsv": "distil_mse/raw.tsv",
}
"""Where earlier versions of this script put things, and where they are now."""
FORMER_PARTS = {"vienna_triplets": "distil_mse"}

SOURCES = {
    "collection": Source(MSMARCO + "collectionandqueries.tar.gz", "31644046b18952c1386cd4564ba2ae69"),
    "dev_qrels": Source(MSMARCO + "qrels.dev.tsv", "9157ccaeaa8227f91722ba5770787b16"),
    "triplets": Source(MSMARCO + "triples.train.small.tar.gz", "c13bf99ff23ca691105ad12eab837f84"),
    "2019_queries": Source(MSMARCO + "msmarco-test2019-queries.tsv.gz", "eda71eccbe4d251af83150abe065368c"),
    "2020_queries": Source(MSMARCO + "msmarco-test2020-queries.tsv.gz", "00a406fb0d14ed3752d70d1e4eb98600"),
    "2019_qrels": Source(TREC + "2019qrels-pass.txt", "2f4be390198da108f6845c822e5ada14"),
    "2020_qrels": Source(TREC + "2020qrels-pass.txt", "0355ccee7509ac0463e8278186cdd8d1"),
    "hard_negatives": Source(
        "https://huggingface.co/datasets/sentence-transformers/msmarco-hard-negatives/resolve/main/"
        + CROSS_ENCODER_SCORES
    ),
    "vienna": Source(f"https://zenodo.org/record/4068216/files/{VIENNA_SCORES}?download=1"),
}


class Layout:
    """Makes the files that the configurations name out of the downloads; each is made once, whole or not at all.

    Args:
        folder: the layout's folder.
        downloads: the fetched files.
        validation_queries: queries of the validation set.
        validation_passages: passages of the validation set besides the relevant ones.
    """

    def __init__(
        self,
        folder: Path,
        downloads: Downloads,
        validation_queries: int = VALIDATION_QUERIES,
        validation_passages: int = VALIDATION_PASSAGES,
    ):
        self.folder = folder
        self.downloads = downloads
        self.validation_queries = validation_queries
        self.validation_passages = validation_passages

    def base(self) -> None:
        """Collection, training and dev queries with their judgements, a validation set, TREC DL 2019 and 2020."""
        scratch = self.downloads.folder
        extracted = {
            "collection.tsv": self.folder / "full_collection" / "raw.tsv",
            "queries.train.tsv": self.folder / "train_queries" / "queries" / "raw.tsv",
            "queries.dev.small.tsv": self.folder / "dev_queries" / "raw.tsv",
            "queries.dev.tsv": self.folder / "all_dev_queries" / "raw.tsv",
            "qrels.train.tsv": scratch / "qrels.train.tsv",
            "qrels.dev.small.tsv": scratch / "qrels.dev.small.tsv",
        }
        self._extract("collection", extracted)
        self._make("train_queries/qrels.json", lambda path: _qrels_to_json(scratch / "qrels.train.tsv", path))
        self._make("dev_qrel.json", lambda path: _qrels_to_json(scratch / "qrels.dev.small.tsv", path))
        for year in ("2019", "2020"):
            self._make(f"TREC_DL_{year}/queries_{year}/raw.tsv", partial(self._unzip, f"{year}_queries"))
            self._make(f"TREC_DL_{year}/qrel.json", partial(self._convert_qrels, f"{year}_qrels"))
            self._make(f"TREC_DL_{year}/qrel_binary.json", partial(self._binary_qrels, f"{year}_qrels"))
        self._validation_set()

    def triplets(self) -> None:
        """The official training triplets (27 GB)."""
        self._extract("triplets", {"triples.train.small.tsv": self.folder / "triplets" / "raw.tsv"})

    def hard_negatives(self) -> None:
        """The cross-encoder scores of hard negatives; they stay in their own format."""
        name = f"hard_negatives_scores/{CROSS_ENCODER_SCORES}"
        self._make(name, lambda path: _link_or_copy(self.downloads.get("hard_negatives"), path))

    def distil_mse(self) -> None:
        """Triplets with the scores of the "Vienna" ensemble: ids of the published file replaced by texts."""
        self.base()
        self._make("distil_mse/raw.tsv", self._join_texts)

    def adopt(self) -> None:
        """Move what earlier versions of this script made to its place now."""
        for before, now in FORMER_NAMES.items():
            source, target = self.folder / before, self.folder / now
            if source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
                logger.info("moved %s to %s", source, target)

    def _make(self, name: str, write: Callable[[Path], None]) -> None:
        target = self.folder / name
        if target.is_file():
            return
        _remove_leftovers(target)
        with replacing(target) as temporary:
            write(temporary)
        logger.info("made %s", target)

    def _extract(self, source: str, members: Mapping[str, Path]) -> None:
        """Unpack the members of an archive that are not there yet, in one pass over it."""
        wanted = {member: target for member, target in members.items() if not target.is_file()}
        if not wanted:
            return
        archive = self.downloads.get(source)
        try:
            with tarfile.open(archive, "r|gz") as opened:
                for entry in progress(opened, f"unpacking {archive.name}", unit="file"):
                    name = entry.name.rpartition("/")[2]
                    content = opened.extractfile(entry) if name in wanted and entry.isfile() else None
                    if content is None:
                        continue
                    target = wanted.pop(name)
                    _remove_leftovers(target)
                    with replacing(target) as temporary, open(temporary, "wb") as file:
                        shutil.copyfileobj(content, file, CHUNK_BYTES)
                    logger.info("made %s", target)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{archive}: not a whole .tar.gz archive ({error}); delete it and start again") from error
        if wanted:
            raise DataError(f"{archive}: there is no {', '.join(wanted)} in it")

    def _unzip(self, source: str, path: Path) -> None:
        archive = self.downloads.get(source)
        try:
            with gzip.open(archive) as packed, open(path, "wb") as file:
                shutil.copyfileobj(packed, file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{archive}: not a whole .gz file ({error}); delete it and start again") from error

    def _convert_qrels(self, source: str, path: Path) -> None:
        _qrels_to_json(self.downloads.get(source), path)

    def _binary_qrels(self, source: str, path: Path) -> None:
        """Grades 2 and 3 count as relevant, as in the official evaluation of TREC Deep Learning passages."""
        graded = read_qrels(self.downloads.get(source))
        binary = {query: {doc_id: int(grade >= 2) for doc_id, grade in docs.items()} for query, docs in graded.items()}
        write_json(path, binary, indent=None)

    def _validation_set(self) -> None:
        """Draw judged dev queries outside "dev small", and a sample of the collection with their passages in it.

        The sample is far easier than the whole collection: its figures tell checkpoints apart, nothing else. Dev small
        has no part in it, so that nothing is chosen on the queries that are reported.
        """
        names = ("queries/raw.tsv", "qrel.json", "collection/raw.tsv")
        if all((self.folder / "val_retrieval" / name).is_file() for name in names):
            return
        qrels = read_qrels(self.downloads.get("dev_qrels"))
        reported = set(read_qrels(self.downloads.folder / "qrels.dev.small.tsv"))
        drawn = set(smallest_digests((query for query in qrels if query not in reported), self.validation_queries))
        if not drawn:
            raise DataError(f"{self.downloads.folder}: qrels.dev.tsv judges no query outside qrels.dev.small.tsv")
        chosen = {query: judged for query, judged in qrels.items() if query in drawn}
        collection = self.folder / "full_collection" / "raw.tsv"
        relevant = {doc_id for judged in chosen.values() for doc_id in judged}
        sample = relevant | set(smallest_digests(_ids(collection, "sampling passages"), self.validation_passages))
        queries = self.folder / "all_dev_queries" / "raw.tsv"
        self._make("val_retrieval/queries/raw.tsv", lambda path: _copy_lines(queries, path, drawn))
        self._make("val_retrieval/collection/raw.tsv", lambda path: _copy_lines(collection, path, sample))
        self._make("val_retrieval/qrel.json", lambda path: write_json(path, chosen, indent=None))

    def _join_texts(self, path: Path) -> None:
        scores = self.downloads.get("vienna")
        queries, collection = (
            open_queries(self.folder / "train_queries" / "queries"),
            open_collection(self.folder / "full_collection"),
        )
        with open(scores, encoding="utf-8") as lines, open(path, "w", encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(progress(lines, "joining texts", unit="triplet"), start=1):
                columns = line.split()
                if len(columns) != 5:
                    raise DataError(f"{scores}: line {number}: {len(columns)} columns, expected score, score and 3 ids")
                positive_score, negative_score, query_id, positive, negative = columns
                texts = queries.text(query_id), collection.text(positive), collection.text(negative)
                file.write("\t".join([*texts, positive_score, negative_score]) + "\n")


PARTS: dict[str, Callable[[Layout], None]] = {
    "base": Layout.base,
    "triplets": Layout.triplets,
    "hard_negatives": Layout.hard_negatives,
    "distil_mse": Layout.distil_mse,
}


def smallest_digests(ids: Iterable[str], n: int) -> list[str]:
    """Draw n ids: those of the smallest SHA-1, a random sample that is the same everywhere and at any time."""
    return heapq.nsmallest(n, ids, key=lambda text: hashlib.sha1(text.encode(), usedforsecurity=False).digest())


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (id, whole line) of a TSV file; lines end at LF alone."""
    with open(path, "rb") as file:
        for line in file:
            yield line.partition(b"\t")[0].decode(), line


def _ids(path: Path, what: str) -> Iterator[str]:
    return (text_id for text_id, _ in progress(_lines(path), what, unit="line"))


def _copy_lines(source: Path, target: Path, ids: set[str]) -> None:
    with open(target, "wb") as file:
        for text_id, line in progress(_lines(source), f"reading {source.name}", unit="line"):
            if text_id in ids:
                file.write(line)


def _qrels_to_json(source: Path, target: Path) -> None:
    write_json(target, read_qrels(source), indent=None)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _remove_leftovers(target: Path) -> None:
    """Remove what a killed process has begun to write."""
    for leftover in target.parent.glob(f".{target.name}.*.part"):
        leftover.unlink()


def arrange(layout: Layout, parts: Sequence[str]) -> None:
    """Fetch and arrange the named parts; what is there already is left alone."""
    layout.adopt()
    for part in parts:
        PARTS[part](layout)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, fetch, arrange; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} or all; default: base")
    parser.add_argument("--folder", type=Path, default=Path("data/msmarco"), help="where to put it (%(default)s)")
    parser.add_argument("--base-url", help="fetch all files from this folder of a server (a mirror)")
    given = parser.parse_args(arguments)
    for part in given.parts:
        if part in FORMER_PARTS:
            parser.error(f"the part '{part}' is called '{FORMER_PARTS[part]}' now")
        if part not in [*PARTS, "all"]:
            parser.error(f"no part '{part}'{nearest(part, PARTS)}; there are {', '.join(PARTS)} and all")
    parts = list(PARTS) if "all" in given.parts else given.parts or ["base"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    layout = Layout(given.folder, Downloads(given.folder / "downloads", SOURCES, given.base_url))
    try:
        with FolderLock(given.folder):
            arrange(layout, parts)
    except (SpladeError, OSError) as error:
        report_error(str(error))
        return 1
    except KeyboardInterrupt:
        report_error("interrupted; the same command goes on where it was")
        return 130
    report(f"{', '.join(parts)}: complete in {given.folder.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
