"""Write out_dir/docs_anserini.jsonl and out_dir/queries_anserini.tsv with integer weights round(factor * weight).

The factors are quantization_factor_document and quantization_factor_query, 100 each. Several query collections give
one file each, queries_anserini.<name>.tsv. The commands that index and search them in Anserini are printed.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.create_anserini", __doc__)
