"""Move a trained model to a collection, with or without judged queries: splade.adapt BEIR_FOLDER OUT_FOLDER.

One command: training on the judged queries of qrels/train.tsv where there are some, else on queries made from the
collection itself (adapt.queries=made, judged, both), and the better model for queries that were held out, in
config.out_dir/checkpoint/model. qrels/test.tsv gives figures before and after. Instead of a
BEIR folder, files: data.COLLECTION_PATH, data.TRAIN.Q_COLLECTION_PATH, data.TRAIN.QREL_PATH; for a test also
data.EVAL_QREL_PATH=[FILE], data.Q_COLLECTION_PATH=[FILE]. The same command goes on where an interrupted one was.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.adapt", __doc__)
