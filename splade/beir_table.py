"""Collect what splade.beir_eval and splade.bm25 left in config.out_dir into one table.

Published values, reported by others, stand beside those measured here; beir.reference chooses whose.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.beir_table", __doc__)
