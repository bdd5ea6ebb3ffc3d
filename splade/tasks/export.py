"""Task: hand a model, or the vectors of an index and of queries, to other systems."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from splade.config import Experiment, require
from splade.config.record import save_record
from splade.datasets.collections import open_queries
from splade.encoding.lengths import settle_max_length
from splade.errors import ConfigError
from splade.evaluation.checks import Finding
from splade.interop.onnx_export import export_onnx
from splade.interop.query_files import open_vector_queries
from splade.interop.targets import TARGETS
from splade.interop.upload import UPLOADS
from splade.interop.vector_groups import Group
from splade.inverted_index.indexed_vectors import IndexedVectors
from splade.models.load import load_for_inference
from splade.models.onnx_folder import is_onnx_folder
from splade.reports.summaries import TaskResult
from splade.retrieval.collection_index import Index
from splade.storage.locks import FolderLock
from splade.tasks.create_anserini import factor_of_queries
from splade.tasks.evaluation_sets import names_of_queries
from splade.tasks.model_loading import load_model_of_index, own_terms


def export(experiment: Experiment) -> TaskResult:
    """Write what `target` names into a folder of that name below config.out_dir.

    onnx: the model, as a folder that can be init_dict.model_type_or_dir, and the model of `splade.load`. All others:
    the vectors of config.index_dir, and of the queries of data.Q_COLLECTION_PATH where there are any. With `export.uri`
    the documents are also sent to a database that is running.
    """
    require(experiment, "config.out_dir", "target")
    if experiment.target == "onnx":
        return _export_model(experiment)
    target = str(experiment.target)
    if target not in TARGETS:
        raise ConfigError(
            f"target={target}: splade.export writes onnx, {', '.join(TARGETS)}; splade.encode writes {target}"
        )
    uri, collection_name = experiment.export.uri, experiment.export.collection
    if uri is not None and target not in UPLOADS:
        raise ConfigError(f"export.uri={uri}: {target} is files; documents can be sent to {', '.join(UPLOADS)}")
    require(experiment, "config.index_dir")
    names = names_of_queries(experiment)
    index, tokens, queries, findings = _opened(experiment)
    out_dir, module = Path(str(experiment.config.out_dir)), TARGETS[target]
    with FolderLock(out_dir):
        folder, factor = out_dir / target, float(experiment.quantization_factor_document)
        written = [module.export_documents(folder, IndexedVectors(index.postings), tokens, factor)]
        factor = factor_of_queries(experiment)
        for name, vectors in zip(names, queries, strict=True):
            written.append(module.export_queries(folder, name, vectors, tokens, factor))
        save_record(experiment, out_dir, "export")
        if uri is not None:
            UPLOADS[target](folder, uri, collection_name)
    lines = [*map(str, written), *([f"documents sent to '{collection_name}' at {uri}"] if uri is not None else [])]
    return TaskResult(text="\n".join(lines), findings=tuple(findings))


def _opened(experiment: Experiment) -> tuple[Index, list[str], list[Iterable[Group]], list[Finding]]:
    """Return the index, its vocabulary, the vectors of the queries, and what looks wrong about the model, if any."""
    index_dir, paths = str(experiment.config.index_dir), experiment.data.Q_COLLECTION_PATH
    terms = own_terms(experiment)
    if terms is not None:
        given = [open_vector_queries(path, terms) for path in paths]
        return Index.open(index_dir), terms, [[(queries.ids, queries.vectors)] for queries in given], []
    collections = [open_queries(path) for path in paths]
    model, findings = load_model_of_index(experiment)
    encoded = [model.queries.encode_pairs(collection) for collection in collections]
    return Index.open(index_dir, model), model.tokens, [*encoded], findings


def _export_model(experiment: Experiment) -> TaskResult:
    out_dir = Path(str(experiment.config.out_dir))
    if (experiment.init_dict.precision, experiment.init_dict.backend) != ("fp32", "torch"):
        raise ConfigError("target=onnx exports float32; leave init_dict.precision and init_dict.backend out")
    folder = out_dir / "onnx"
    with FolderLock(out_dir):
        if folder.exists():
            if not experiment.config.overwrite or not is_onnx_folder(folder):
                raise ConfigError(f"{folder} is there already; give another config.out_dir, or config.overwrite=true")
            shutil.rmtree(folder)
        model = load_for_inference(experiment).to("cpu")
        difference = export_onnx(model, folder, settle_max_length(experiment.config.max_length, model))
        save_record(experiment, out_dir, "export")
    return TaskResult(
        text=f"{model.name}: encoder and head as ONNX, weights within {difference:.1g} of the model's\n  in {folder}"
    )
