"""Draw what the tasks left in a folder: posting lists, weights, terms, FLOPS, training curves, sweeps.

Each figure is a PNG, an SVG, and its data as CSV. What cannot be drawn is named with the reason. Without a folder, the
figures are those of config.checkpoint_dir, config.index_dir and config.out_dir.

Example: python -m splade.figures experiments/debug
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.figures", __doc__)
