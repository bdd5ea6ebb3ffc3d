"""Move a trained model to a collection, with or without judged queries: splade.adapt BEIR_FOLDER OUT_FOLDER.

One command. First queries are made from the collection itself, and the model learns from what it, BM25 and a dense
model together say about them; then, with qrels/train.tsv, the same with the judged queries. A model that ranks held-out
queries better is kept, in config.out_dir/checkpoint/model. qrels/test.tsv gives figures before and after. Instead of a
BEIR folder, files: data.COLLECTION_PATH, data.TRAIN.Q_COLLECTION_PATH, data.TRAIN.QREL_PATH; for a test also
data.EVAL_QREL_PATH=[FILE], data.Q_COLLECTION_PATH=[FILE]. The same command goes on where an interrupted one was.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.adapt", __doc__)
