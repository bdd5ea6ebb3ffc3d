"""Task: figures of what other tasks left in a folder."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from splade.config import Experiment
from splade.config.jobs import JOBS_FOLDER, read_records
from splade.config.record import CONFIG_FILE, read_config
from splade.errors import ConfigError, DataError, SpladeError, WriteError, printable
from splade.evaluation.expected_flops import term_probabilities
from splade.inverted_index import InvertedIndex
from splade.inverted_index.layout import INDEX_FILE
from splade.reports.cost_figures import job_points, plot_pareto, plot_swept_value
from splade.reports.figures import plot_flops_per_term, plot_posting_lengths, plot_terms_per_text, plot_weights
from splade.reports.index_report import index_title
from splade.reports.summaries import TaskResult
from splade.reports.training_figures import plot_training, read_log, scheduled_lambdas
from splade.retrieval.evaluate_retriever import TERMS_FILE
from splade.storage.atomic import read_json_object
from splade.tasks.model_loading import load_model_of_index, own_terms
from splade.training.callbacks import TRAINING_FILE, VALIDATION_FILE

logger = logging.getLogger(__name__)

FOLDER = "figures"


def figures(experiment: Experiment) -> TaskResult:
    """Draw everything that can be drawn of figures.folder, or of the folders of `config`."""
    run, keys = experiment.config, experiment.figures
    named = [keys.folder] if keys.folder is not None else [run.checkpoint_dir, run.index_dir, run.out_dir]
    roots = list(dict.fromkeys(Path(name).expanduser() for name in named if name is not None))
    if not roots:
        raise ConfigError("nothing to draw: give a folder (splade figures FOLDER), or config.out_dir and its sisters")
    out = Path(keys.out or (Path(run.out_dir or roots[0]) if keys.folder is None else roots[0]) / FOLDER)
    drawn = draw_all(roots, out)
    if not drawn.made and not drawn.left_out:
        raise DataError(f"{', '.join(map(str, roots))}: holds no index, no training log, no run and no sweep")
    return TaskResult(text="\n".join(drawn.lines()))


@dataclass
class Drawn:
    """What was drawn, and what could not be.

    Attributes:
        out: folder of the figures.
        made: their names.
        left_out: name to reason.
    """

    out: Path
    made: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return them for the summary."""
        lines = [f"{len(self.made)} figures (PNG, SVG, CSV) in {self.out}", *(f"  {name}" for name in self.made)]
        return lines + [f"  not drawn: {name}: {reason}" for name, reason in self.left_out.items()]

    def draw(self, name: str, plot: Callable[..., None], **arguments: object) -> None:
        """Draw a figure, or note why there is none."""
        try:
            plot(path=self.out / f"{name}.png", **arguments)
            self.made.append(name)
        except WriteError:  # what stands in the way of one figure stands in the way of all
            raise
        except SpladeError as error:
            self.left_out[name] = str(error)


def draw_all(roots: Sequence[Path], out: Path) -> Drawn:
    """Draw everything below some folders into one folder."""
    drawn = Drawn(out)
    _draw_queries(roots, drawn, _draw_indexes(roots, drawn))
    for name, folder in _folders_with(roots, TRAINING_FILE):
        drawn.draw(f"{name}training", draw_training, folder=folder)
    for root in roots:
        for jobs in sorted(root.rglob(f"{JOBS_FOLDER}/*/")):
            _draw_sweep(jobs.parent.parent, jobs.name, drawn)
    return drawn


def draw_quietly(roots: Sequence[Path | str | None], out: Path) -> None:
    """Draw what there is after a task; what cannot be drawn or written is no fault of the task, and is logged."""
    try:
        drawn = draw_all([folder for root in roots if root is not None and (folder := Path(root)).is_dir()], out)
    except (SpladeError, OSError) as error:
        logger.warning("no figures: %s", error)
        return
    for name, reason in drawn.left_out.items():
        logger.debug("figure %s: %s", name, reason)


def draw_training(folder: Path, path: Path) -> None:
    """Draw the curves of the training run in a checkpoint folder.

    Raises:
        DataError: there are none yet.
    """
    training = read_log(folder / TRAINING_FILE)
    validation = read_log(folder / VALIDATION_FILE) if (folder / VALIDATION_FILE).is_file() else {}
    lambdas, subject = {}, folder.name
    if (folder / CONFIG_FILE).is_file():
        settings = read_config(folder)
        data = Path(str(settings.data.TRAIN.DATASET_PATH or settings.data.TRAIN_DATA_DIR or "")).name
        subject = printable(f"training {settings.init_dict.model_type_or_dir} on {data}")
        if isinstance(settings.config.regularizer, dict):
            last = max((step for step, _ in training.get("loss", [])), default=0)
            lambdas = scheduled_lambdas(settings.config.regularizer, last)
    plot_training(training, validation, lambdas, path, subject)


def _folders_with(roots: Sequence[Path], file: str) -> Iterator[tuple[str, Path]]:
    """Yield a prefix for names of figures, and the folder, of each place that has a file."""
    for root in roots:
        for path in sorted(root.rglob(file)):
            below = path.parent.relative_to(root).parts
            yield "".join(f"{part}_" for part in below), path.parent


def _draw_indexes(roots: Sequence[Path], drawn: Drawn) -> dict[Path, InvertedIndex]:
    """Draw what is known of the indexes without queries; return them by their files."""
    found: dict[Path, InvertedIndex] = {}
    for name, folder in _folders_with(roots, INDEX_FILE):
        try:
            postings = InvertedIndex.open(folder)
        except SpladeError as error:
            drawn.left_out[f"{name}index"] = str(error)
            continue
        found[postings.path.resolve()] = postings
        counts, subject = postings.posting_counts, index_title(postings)
        lists = {"posting_counts": counts, "n_documents": postings.n_docs, "subject": subject}
        drawn.draw(f"{name}posting_lengths", plot_posting_lengths, **lists)
        drawn.draw(f"{name}weights", plot_weights, weights=postings.file.arrays["impacts"], subject=subject)
        lengths = postings.file.arrays["doc_lengths"]
        drawn.draw(f"{name}terms", plot_terms_per_text, doc_lengths=lengths, query_lengths=None, subject=subject)
    return found


def _draw_queries(roots: Sequence[Path], drawn: Drawn, indexes: Mapping[Path, InvertedIndex]) -> None:
    """Draw what queries and the index that they searched have to do with each other."""
    vocabularies: dict[Path, list[str] | None] = {}
    for name, folder in _folders_with(roots, TERMS_FILE):
        try:
            queries = read_json_object(folder / TERMS_FILE)
            index = Path(queries["index"]).resolve()
            lengths = np.repeat(*(np.array([*map(int, one)]) for one in zip(*queries["lengths"].items(), strict=True)))
            terms = {int(term): int(count) for term, count in queries["terms"].items()}
            postings = indexes[index] if index in indexes else InvertedIndex.open(index)
            counts = np.zeros(postings.vocab_size, np.int64)
            counts[list(terms)] = list(terms.values())
            p_query = term_probabilities(counts, int(queries["n_queries"]))
        except (SpladeError, OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            drawn.left_out[f"{name}flops"] = f"{folder / TERMS_FILE}: {error}"
            continue
        subject = f"{index_title(postings)}, queries {folder.name}"
        both = {"doc_lengths": postings.file.arrays["doc_lengths"], "query_lengths": lengths}
        drawn.draw(f"{name}terms", plot_terms_per_text, **both, subject=subject)
        if index not in vocabularies:
            vocabularies[index] = _vocabulary(index)
        shares = {"p_query": p_query, "p_doc": term_probabilities(postings.posting_counts, postings.n_docs)}
        drawn.draw(f"{name}flops", plot_flops_per_term, **shares, tokens=vocabularies[index], subject=subject)


def _vocabulary(index: Path) -> list[str] | None:
    """Return the tokens of an index's model, if that is there."""
    experiment = Experiment()
    experiment.config.index_dir = str(index.parent)
    try:
        return own_terms(experiment) or load_model_of_index(experiment)[0].tokens
    except SpladeError as error:
        logger.warning("terms are numbers in figures: %s", error)
        return None


def _draw_sweep(folder: Path, task: str, drawn: Drawn) -> None:
    """Draw effectiveness against costs, and against what was swept, a figure for each data set."""
    name = task.removeprefix("run_")
    points = job_points(read_records(folder, task))
    if not points:
        drawn.left_out[f"sweep_{name}"] = "no job with a metric"
    for dataset, shown in points.items():
        subject = ", ".join(filter(None, [f"sweep of splade.{name}", dataset]))
        slug = "".join(f"_{part}" for part in dataset.split("/") if part)
        drawn.draw(f"sweep_{name}{slug}_pareto", plot_pareto, points=shown, subject=subject)
        drawn.draw(f"sweep_{name}{slug}_values", plot_swept_value, points=shown, subject=subject)
