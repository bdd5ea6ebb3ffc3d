"""Show a text as the words that stand for it, and a score as the terms that made it.

Texts come from the command line, from a file, or by id from an index. With `query` the terms that made each document's
score are shown, and which token of either text gave each weight; of two documents, why the first is above the second.
explain.other_model shows what another model or checkpoint does otherwise; explain.write=[a.json,b.html] keeps it.

Examples: python -m splade.explain "tea has less caffeine than coffee"
    python -m splade.explain config.index_dir=experiments/debug/index query="what do bees eat"
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.explain", __doc__)
