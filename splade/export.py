"""Hand a model to other systems: target=onnx writes encoder and head as ONNX files into config.out_dir/onnx."""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.export", __doc__)
