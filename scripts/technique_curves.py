"""Train several techniques at several strengths, and draw effectiveness against cost, a line for each.

    python scripts/technique_curves.py                                   # on the toy data, some minutes
    python scripts/technique_curves.py --techniques FLOPS "DF-FLOPS" --strengths 0.3 1 3
    python scripts/technique_curves.py --beir data/beir/scifact          # adapts SPLADE-tiny: hours on two cores
    python scripts/technique_curves.py config.seed=7 --strengths 1 5     # first, overrides of every run

What a strength multiplies is the weight of the regulariser of documents. A run that is there already is not done again,
so a stopped command goes on. Writes curves.png and curves.json to --out.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from splade.config.jobs import Figures, read_records
from splade.evaluation.costs import Costs
from splade.storage.atomic import replacing, write_json

Point = dict[str, float]
POSTINGS, TERMS, MILLISECONDS = "postings per query", "terms per document", "search ms per query"
INFERENCE_FREE = (
    "config.matching_type=splade_idf",
    "init_dict.idf_collection=${data.COLLECTION_PATH}",
    "init_dict.query_weights=fixed",
    "config.regularizer.FLOPS.lambda_q=null",
)


@dataclass(frozen=True)
class Technique:
    """A technique, and what makes it stronger.

    Attributes:
        swept: the key whose values make a curve.
        value: of strength 1, on the toy data.
        for_beir: the same where a trained model is adapted.
        overrides: beside those of every run.
    """

    swept: str
    value: float
    for_beir: float
    overrides: tuple[str, ...] = ()


def regularizer(name: str, **keys: object) -> str:
    """Return an override that puts another regulariser in place of the documents' FLOPS."""
    entry = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f"+config.regularizer.{name}={{{entry}}}"


TECHNIQUES = {
    "FLOPS": Technique("config.regularizer.FLOPS.lambda_d", 3e-2, 1e-4),
    "DF-FLOPS": Technique(
        "config.regularizer.DF_FLOPS.lambda_d",
        1.0,
        1e-2,
        ("config.regularizer.FLOPS.lambda_d=null", regularizer("DF_FLOPS", T=20, lambda_d=1)),
    ),
    "joint FLOPS": Technique(
        "config.regularizer.joint_FLOPS.lambda_d",
        3e-2,
        1e-4,
        (
            "config.regularizer.FLOPS.lambda_d=null",
            regularizer("joint_FLOPS", T=20, lambda_d=1),
        ),
    ),
    "l0 mask": Technique(
        "config.regularizer.FLOPS.lambda_d", 3e-2, 1e-4, ("config.regularizer.FLOPS.l0_threshold=80",)
    ),
    "IDF queries": Technique("config.regularizer.FLOPS.lambda_d", 3e-2, 1e-4, INFERENCE_FREE),
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--techniques", nargs="+", choices=TECHNIQUES, default=list(TECHNIQUES), metavar="NAME")
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.1, 1.0, 10.0])
    parser.add_argument("--beir", type=Path, metavar="FOLDER", help="adapt to a BEIR data set with training queries")
    parser.add_argument("--out", type=Path, default=Path("experiments/technique_curves"))
    parser.add_argument("overrides", nargs="*", help="of every run: KEY=VALUE ...")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, collect the tables of the sweeps, draw."""
    given = parse_arguments(arguments)
    curves = {name: run(name, TECHNIQUES[name], given) for name in given.techniques}
    write_json(given.out / "curves.json", curves, indent=1)
    draw(curves, given.out / "curves.png", "toy data" if given.beir is None else given.beir.resolve().name)
    for name, points in curves.items():
        for one in points:
            print(f"{name:12}", "  ".join(f"{key} {value:.4g}" for key, value in one.items()))
    print(f"in {given.out / 'curves.png'} and {given.out / 'curves.json'}")


def run(name: str, technique: Technique, given: argparse.Namespace) -> list[Point]:
    """Run the sweep of a technique; return a point for each strength, the dearest first."""
    folder = given.out / name.replace(" ", "_")
    unit = technique.value if given.beir is None else technique.for_beir
    values = ",".join(f"{unit * strength:g}" for strength in sorted(given.strengths))
    if given.beir is None:
        task, results = "run_all", folder / "out"
        where = [f"config.{key}_dir={folder / key}" for key in ("checkpoint", "index", "out")]
        command = ["splade.all", "--multirun", *where]
    else:
        task, results = "adapt", folder
        command = ["splade.adapt", "--multirun", str(given.beir), str(folder)]
    command += [*technique.overrides, *given.overrides, f"{technique.swept}={values}"]
    subprocess.run([sys.executable, "-m", *command], check=True)
    found = [
        figures for record in read_records(results, task) for figures in record.figures if "flops" in figures.costs
    ]
    return sorted(map(point, found), key=lambda one: -one[POSTINGS])


def point(figures: Figures) -> Point:
    """Return the first metric and the costs.

    Postings per query are those in the lists of a query's terms, on average: the expected number of shared terms
    (FLOPS) times the number of documents.
    """
    costs = Costs.from_json(figures.costs)
    metric, value = next(iter(figures.metrics.items()))
    postings = (costs.flops or 0) * (costs.n_docs or 0)
    return {metric: value, TERMS: costs.L0_d or 0, POSTINGS: postings, MILLISECONDS: costs.search_ms_per_query or 0}


def draw(curves: dict[str, list[Point]], path: Path, subject: str) -> None:
    """Draw effectiveness against postings per query and terms per document, a line for each technique."""
    figure = Figure(figsize=(9.0, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    metric = next(iter(next(iter(curves.values()))[0]))
    for axis, cost in zip(axes, (POSTINGS, TERMS), strict=True):
        for name, points in curves.items():
            axis.plot([one[cost] for one in points], [one[metric] for one in points], marker="o", ms=4, label=name)
        axis.set_xscale("log")
        axis.set_xlabel(cost)
        axis.grid(True, alpha=0.3)
    axes[0].set_ylabel(f"{metric}, {subject}")
    axes[0].legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


if __name__ == "__main__":
    main()
