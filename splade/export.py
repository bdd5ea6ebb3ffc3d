"""Hand a model (target=onnx) or the vectors of config.index_dir to other systems: files in config.out_dir/<target>."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.export", __doc__)
