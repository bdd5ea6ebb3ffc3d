"""Fuse runs: reciprocal rank fusion, or a convex combination of normalised scores; writes a run.

Example: python -m splade.fuse '+runs={bm25: out/bm25/TOY, splade: out/TOY}' +qrels=qrels.json config.out_dir=out/fused.
With qrels the fused run is evaluated and compared with each of the runs. fuse.weights=learn chooses the weights by
cross-validation on judged queries.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.fuse", __doc__)
