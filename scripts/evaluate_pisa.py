"""Search the files of `splade.export target=pisa` in PISA's library, as in arXiv 2207.03834, and print what it takes.

Usage: python scripts/evaluate_pisa.py FOLDER

`block_simdbp`, fixed blocks of 40, `block_max_wand`, weighted queries, 10 and 1000 documents, one thread: what
`evaluate.sh`, in the folder, does with PISA's programs, here through `pip install pyterrier-pisa`. Runs are written to
`<queries>.<k>.trec`.
"""

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from splade.datasets.runs import Run, write_run_trec
from splade.interop.pisa import BLOCK_SIZE
from splade.reports.tables import Column, Table

PASSES = 3


class PisaFolder:
    """What the export wrote, compressed for `block_simdbp` and block-max search.

    Attributes:
        seconds: of compressing.
        n_bytes: of what is searched.
    """

    def __init__(self, folder: Path):
        import pyterrier_pisa as library

        self._library, self._folder = library, folder
        start = time.perf_counter()
        for names, lexicon in (("terms", "termlex"), ("documents", "doclex")):
            library._pisathon.build_binlex(str(folder / f"fwd.{names}"), str(folder / f"fwd.{lexicon}"))
        for old in folder.glob("quantized*"):
            old.unlink()
        self._search(10)
        self.seconds = time.perf_counter() - start
        self.n_bytes = sum(file.stat().st_size for file in folder.glob("quantized*"))
        self._terms = (folder / "fwd.terms").read_text("utf-8").split("\n")

    def run(self, queries: Path, top_k: int) -> tuple[Run, float]:
        """Return the run of a file of queries, and milliseconds per query: the mean of the fastest pass."""
        rows = []
        for line in queries.read_text("utf-8").splitlines():
            query_id, _, numbers = line.partition(":")
            words = Counter(self._terms[int(number)] for number in numbers.split())
            rows.append({"qid": query_id, "query_toks": dict(words)})
        frame, search = pd.DataFrame(rows), self._search(top_k)
        times = []
        for _ in range(PASSES):
            start = time.perf_counter()
            hits = search(frame)
            times.append(1e3 * (time.perf_counter() - start) / len(frame))
        run: Run = {query_id: {} for query_id in frame.qid}
        for query_id, doc_id, score in zip(hits.qid, hits.docno, hits.score, strict=True):
            run[query_id][doc_id] = float(score)
        return run, min(times)

    def _search(self, top_k: int) -> "object":
        index = self._library.PisaIndex(str(self._folder), stemmer="none", index_encoding="block_simdbp", stops="none")
        return self._library.PisaRetrieve(
            index,
            "quantized",
            num_results=top_k,
            threads=1,
            stops="none",
            query_algorithm="block_max_wand",
            query_weighted=True,
            toks_scale=1,
            block_size=BLOCK_SIZE,
        )


def main() -> None:
    """Compress, search all queries of the folder, print a table."""
    folder = Path(sys.argv[1])
    pisa, rows = PisaFolder(folder), []
    for queries in sorted(folder.glob("*.pisa")):
        for top_k in (10, 1000):
            run, ms = pisa.run(queries, top_k)
            write_run_trec(folder / f"{queries.stem}.{top_k}.trec", run.items(), "pisa")
            found = np.mean([len(ranking) for ranking in run.values()])
            rows.append((queries.stem, top_k, float(found), ms, pisa.n_bytes / 1e6, pisa.seconds))
    columns = (Column("queries"), Column("k", 0), Column("found", 1), Column("ms /query", 2))
    columns += (Column("index MB", 1), Column("build s", 1))
    sys.stdout.write(Table("PISA, one thread", columns, tuple(rows)).to_markdown() + "\n")


if __name__ == "__main__":
    main()
