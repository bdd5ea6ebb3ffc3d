"""What can be evaluated: how each kind of retriever is made of a corpus, and what its results depend on."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

from splade.config import Experiment
from splade.config.identity import settings_affecting
from splade.config.schema import Affects
from splade.config.sweep import MODEL_KEY, folder_name, swept_settings
from splade.datasets.dataset import Dataset
from splade.datasets.text_collection import TextCollection
from splade.distributed import available_threads, held_by_first_process, on_first_process, process_rank
from splade.encoding.dense_model import DenseModel
from splade.errors import ConfigError
from splade.evaluation.checks import Finding
from splade.evaluation.comparison import TermScores
from splade.evaluation.protocols import EvaluationProtocol
from splade.inspection.term_scores import term_scores
from splade.reports.index_report import write_index_report
from splade.retrieval.bm25 import Bm25Retriever, bm25s_library
from splade.retrieval.collection_index import Index
from splade.retrieval.dense import DenseRetriever
from splade.retrieval.dense_index import DenseIndex
from splade.retrieval.evaluate_retriever import EvaluatedRun, evaluate_retriever
from splade.retrieval.milvus import MilvusCollection, MilvusRetriever, milvus_library
from splade.retrieval.protocol import Retriever
from splade.retrieval.seismic_search import SeismicRetriever, seismic_library
from splade.retrieval.sparse import SparseRetriever
from splade.retrieval.stored_results import finished_result, store_result
from splade.storage.locks import FolderLock
from splade.tasks.index import check_index
from splade.tasks.launching import build_index, searched
from splade.tasks.model_loading import load_model


class System(ABC):
    """A recipe for a retriever.

    Attributes:
        label: the system in tables.
        folder_name: where its results go below `config.out_dir`; empty for `config.out_dir` itself.
    """

    label: str
    folder_name: str = ""

    def term_scores(self) -> TermScores | None:
        """Return what says which terms make a document match a query; None: the system has no terms of its own."""
        return None

    @abstractmethod
    def settings(self, dataset: Dataset) -> dict[str, object] | None:
        """Return all that the results on a data set depend on, as JSON values; None: nobody knows."""

    @abstractmethod
    def build(self, dataset: Dataset, index_dir: Path) -> tuple[Retriever, list[Finding]]:
        """Make the retriever of a corpus, with what it keeps on disk in `index_dir`; return also what looks wrong."""


class SparseSystem(System):
    """A learned sparse model; it is loaded once, whatever the number of data sets.

    Args:
        experiment: model, lengths and search settings.
        swept: settings of a sweep that tell this system from others of the same model, for the label.
    """

    def __init__(self, experiment: Experiment, swept: Mapping[str, str]):
        self._experiment = experiment
        self._model, self._findings = load_model(experiment)
        self.label = _label(self._model.name, swept, MODEL_KEY)
        own = settings_affecting(experiment, Affects.INDEX | Affects.SEARCH, names_files=False)
        query_encoder = self._model.network.query_digest()
        self._settings = own | {"model": self._model.fingerprint.as_dict(), "query_encoder": query_encoder}
        # Times are measured with them.
        self._settings["n_threads"] = available_threads(experiment.config.n_threads)

    def term_scores(self) -> TermScores:
        """Return what says which terms of the model make a document match a query."""
        return term_scores(self._model)

    def settings(self, dataset: Dataset) -> dict[str, object]:
        """Return all settings that affect index or search, digests of the encoders, and what identifies the data."""
        return self._settings | dataset.identity

    def build(self, dataset: Dataset, index_dir: Path) -> tuple[Retriever, list[Finding]]:
        """Index the documents, or open the index that is there."""
        corpus = dataset.documents
        index = build_index(self._experiment, self._model, corpus, index_dir)
        findings = [*self._findings, *self._model.documents.check_truncation(text for _, text in corpus)]
        findings += check_index(index.postings)
        if process_rank() == 0:
            write_index_report(index.postings, findings)
        return self._retriever(index, index_dir), findings

    def _retriever(self, index: Index, index_dir: Path) -> Retriever:
        """Return what searches the vectors of the index; it may keep files of its own in `index_dir`."""
        return SparseRetriever.configured(self._model, searched(self._experiment, index), self._experiment.config)


class MilvusSystem(SparseSystem):
    """A learned sparse model whose vectors Milvus searches; the index that they come from is the exact search."""

    folder_name = "milvus"

    def __init__(self, experiment: Experiment, swept: Mapping[str, str]):
        milvus_library()  # a missing library shows before anything is read
        super().__init__(experiment, swept)
        self.label += " in Milvus"

    def _retriever(self, index: Index, index_dir: Path) -> Retriever:
        keys, run = self._experiment.milvus, self._experiment.config
        found = MilvusCollection.filled(index.postings, keys, index_dir, run.overwrite)
        return MilvusRetriever(self._model, index, found, run.threshold)


class SeismicSystem(SparseSystem):
    """A learned sparse model whose vectors Seismic searches; the index that they come from is the exact search."""

    folder_name = "seismic"

    def __init__(self, experiment: Experiment, swept: Mapping[str, str]):
        seismic_library()  # a missing library shows before anything is read
        super().__init__(experiment, swept)
        self.label += " in Seismic"

    def _retriever(self, index: Index, index_dir: Path) -> Retriever:
        keys, run = self._experiment.seismic, self._experiment.config
        return SeismicRetriever(self._model, index, keys, index_dir, run.threshold, run.n_threads)


class Bm25System(System):
    """BM25; the swept settings that affect it are in its label."""

    def __init__(self, experiment: Experiment, swept: Mapping[str, str]):
        self._bm25 = experiment.bm25
        self._settings = settings_affecting(experiment, Affects.BM25, names_files=False)
        self._settings["bm25s"] = str(bm25s_library().__version__)  # a missing library shows before anything is read
        self.label = _label("BM25", {key: value for key, value in swept.items() if key.startswith("bm25.")})
        suffix = folder_name(swept, Affects.BM25)
        self.folder_name = f"bm25__{suffix}" if suffix else "bm25"

    def settings(self, dataset: Dataset) -> dict[str, object]:
        """Return the settings of BM25, the version of its library, and what identifies the data."""
        return self._settings | dataset.identity

    def build(self, dataset: Dataset, index_dir: Path) -> tuple[Retriever, list[Finding]]:
        """Index the documents in memory."""
        return Bm25Retriever(dataset.documents, self._bm25), []


class DenseSystem(System):
    """A dense model, in an index of its own; it is loaded once, whatever the number of data sets."""

    def __init__(self, experiment: Experiment, swept: Mapping[str, str]):
        self._experiment = experiment
        dense, run = experiment.dense, experiment.config
        self._model = DenseModel.load(
            dense.model_type_or_dir, dense.pooling, dense.normalise, dense.max_length, run.index_retrieve_batch_size
        )
        own = swept_settings(swept, Affects.DENSE)
        self.label = _label(self._model.name, own, "dense.model_type_or_dir")
        suffix = folder_name(swept, Affects.DENSE)
        self.folder_name = f"dense__{suffix}" if suffix else "dense"
        self._settings = settings_affecting(experiment, Affects.DENSE, names_files=False)
        self._settings |= {"fingerprint": self._model.fingerprint, "query_prompt": self._model.prompts.get("query", "")}
        self._settings |= {"max_length": self._model.max_length, "n_threads": available_threads(run.n_threads)}

    def settings(self, dataset: Dataset) -> dict[str, object]:
        """Return the settings of the dense model, digests of its weights, and what identifies the data."""
        return self._settings | dataset.identity

    def build(self, dataset: Dataset, index_dir: Path) -> tuple[Retriever, list[Finding]]:
        """Encode the documents, or open the vectors that are there."""
        run = self._experiment.config
        index = DenseIndex.build(index_dir / self.folder_name, self._model, dataset.documents, run.overwrite)
        retriever = DenseRetriever(self._model, index, self._experiment.dense.engine, run.n_threads)
        return retriever, list(self._model.findings)


class ImportedSystem(System):
    """A retriever of the user's own.

    Args:
        path: `package.module:Class`; the class is made with the corpus as its only argument.

    Raises:
        ConfigError: there is no such class, or it is no `Retriever`.
    """

    def __init__(self, path: str):
        module_name, _, class_name = path.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"retriever={path}: it cannot be imported ({error}); give package.module:Class"
            ) from error
        if not (isinstance(found, type) and issubclass(found, Retriever)):
            raise ConfigError(f"retriever={path}: it is no class derived from splade.retrieval.protocol.Retriever")
        self._make = cast("Callable[[TextCollection], Retriever]", found)
        self.label = class_name if found.name == Retriever.name else found.name
        self.folder_name = class_name

    def settings(self, dataset: Dataset) -> None:
        """Return None: what the results depend on is in the user's code."""
        return None

    def build(self, dataset: Dataset, index_dir: Path) -> tuple[Retriever, list[Finding]]:
        """Make the user's class of the documents."""
        return self._make(dataset.documents), []


def evaluate_system(
    system: System, dataset: Dataset, protocol: EvaluationProtocol, top_k: int, index_dir: Path, out_dir: Path
) -> EvaluatedRun:
    """Return the result of a system on a data set: the finished one in `out_dir`, or a new one.

    `index_dir` takes what the system keeps on disk. Several processes share what `System.build` and `Retriever.share`
    share.
    """
    settings = system.settings(dataset)
    find = partial(finished_result, system.label, dataset, out_dir, settings)
    finished = on_first_process(find)
    if finished is not None:
        return finished
    with held_by_first_process(partial(FolderLock, out_dir)):
        finished = on_first_process(find)  # by who has just released the lock
        if finished is not None:
            return finished
        retriever, findings = system.build(dataset, index_dir)
        retriever.share(dataset.queries, top_k)

        def evaluate() -> EvaluatedRun:
            result = evaluate_retriever(retriever, dataset, protocol, top_k, out_dir, findings)
            return store_result(system.label, result, settings)

        return on_first_process(evaluate)


def _label(name: str, swept: Mapping[str, str], left_out: str = "") -> str:
    shown = (f"{key.rpartition('.')[2]}={value}" for key, value in swept.items() if key != left_out)
    return ", ".join([name, *shown])
