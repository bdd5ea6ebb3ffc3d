"""Move a trained model to a collection that has some judged queries: splade.adapt BEIR_FOLDER OUT_FOLDER.

One command: the model as it is, hard negatives from its own ranking of the training queries, training on them, the
adapted model. The one that ranks the held-out training queries better is kept, in config.out_dir/checkpoint/model. The
folder needs qrels/train.tsv; qrels/test.tsv gives figures before and after. Instead of a BEIR folder, files:
data.COLLECTION_PATH, data.TRAIN.Q_COLLECTION_PATH, data.TRAIN.QREL_PATH; for a test also data.EVAL_QREL_PATH=[FILE],
data.Q_COLLECTION_PATH=[FILE]. The same command goes on where an interrupted one was.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.adapt", __doc__)
