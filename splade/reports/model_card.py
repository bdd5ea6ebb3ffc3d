"""The model card: what a model is, what it was trained on, what it finds and what that costs, how it is used."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from splade.config.schema import Experiment
from splade.evaluation.costs import Costs
from splade.reports.summaries import COST_COLUMNS, cost_cells
from splade.reports.tables import Column, Table

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# The settings that make one training run another; all of them are in the configuration beside the card.
_SETTINGS = (
    *("loss", "regularizer", "augment_pairs", "n_negatives", "train_batch_size", "gradient_accumulation_steps"),
    *("nb_iterations", "nb_epochs", "lr", "warmup_steps", "warmup_ratio", "weight_decay", "max_length", "seed"),
)


@dataclass(frozen=True)
class EvaluatedOn:
    """Effectiveness and cost on one data set."""

    dataset: str
    metrics: Mapping[str, float]
    costs: Costs


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Attributes:
        name: of the model: that of its repository, or its folder.
        experiment: the configuration that it was trained with.
        trained: whether it was trained with that configuration, not only loaded.
        vocab_size: number of terms.
        activation: of the head.
        one_encoder: whether queries are encoded as documents are.
        is_sparse_encoder: whether sentence-transformers loads it.
        results: what was measured.
        best: monitored value of the best checkpoint, its name, and its step; None where nobody noted it.
    """

    name: str
    experiment: Experiment
    trained: bool
    vocab_size: int
    activation: str
    one_encoder: bool
    is_sparse_encoder: bool
    results: tuple[EvaluatedOn, ...] = ()
    best: tuple[str, float, int] | None = None


def render_model_card(facts: CardFacts) -> str:
    """Return the card as Markdown with the metadata that the Hugging Face hub reads."""
    title = facts.name.rpartition("/")[2]
    parts = [f"---\n{_metadata(facts)}---", f"# {title}", _description(facts), "## Use", _use(facts)]
    parts += ["## Effectiveness, and what it costs", _results(facts)]
    if facts.trained:
        parts += ["## Training", _training(facts), "## Data", _data(facts)]
    parts += ["## Licence", _licence(facts)]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> str:
    base = [name for name in _base_models(facts) if _HUB_NAME.fullmatch(name) and not Path(name).exists()]
    metadata: dict[str, object] = {
        "library_name": "sentence-transformers" if facts.is_sparse_encoder else "splade",
        "pipeline_tag": "feature-extraction",
        "tags": ["splade", "sparse-encoder", "sparse", "learned-sparse-retrieval"],
    }
    if facts.experiment.push.license is not None:
        metadata["license"] = facts.experiment.push.license
    if base and facts.trained:
        metadata["base_model"] = base
    results = [
        {
            "task": {"type": "text-retrieval", "name": "Sparse retrieval"},
            "dataset": {"type": re.sub(r"\W+", "-", result.dataset.lower()), "name": result.dataset},
            "metrics": [
                {"type": name.lower(), "name": name, "value": round(value, 4)} for name, value in result.metrics.items()
            ],
        }
        for result in facts.results
        if result.metrics
    ]
    if results:
        metadata["model-index"] = [{"name": facts.name, "results": results}]
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)


def _base_models(facts: CardFacts) -> list[str]:
    init = facts.experiment.init_dict
    return [name for name in (init.model_type_or_dir, init.model_type_or_dir_q) if name is not None]


def _description(facts: CardFacts) -> str:
    run, init = facts.experiment.config, facts.experiment.init_dict
    inner = "log(1 + log(1 + ReLU(logit)))" if facts.activation == "log1p_relu" else "log(1 + ReLU(logit))"
    pooling = "largest" if init.agg == "max" else "sum"
    sentences = [
        f"A learned sparse retrieval model (SPLADE, `{run.matching_type}`): a text becomes one weight for each of "
        f"{facts.vocab_size:,} terms, nearly all of them zero, and a score is a dot product, so that an inverted index "
        f"searches it. A term's weight is the {pooling} of {inner} over the tokens of the text."
    ]
    if not facts.one_encoder:
        sentences.append("Queries have an encoder of their own.")
    if not facts.is_sparse_encoder:
        sentences.append(
            "Vectors keep some of their terms only; that is done by `splade`, not by the language model: other "
            "libraries give other vectors."
        )
    return " ".join(sentences)


def _use(facts: CardFacts) -> str:
    snippets = {"splade": _splade_snippet(facts), "transformers": _transformers_snippet(facts)}
    if facts.is_sparse_encoder:
        snippets["sentence-transformers"] = (
            "from sentence_transformers import SparseEncoder\n\n"
            f'model = SparseEncoder("{facts.name}")\n'
            'queries = model.encode_query(["why is the sky blue"])\n'
            'documents = model.encode_document(["Air scatters blue light more than red."])\n'
            "print(model.similarity(queries, documents))"
        )
    return "\n\n".join(f"With {library}:\n\n```python\n{code}\n```" for library, code in sorted(snippets.items()))


def _splade_snippet(facts: CardFacts) -> str:
    init, run = facts.experiment.init_dict, facts.experiment.config
    if not facts.is_sparse_encoder:
        limits = {"top_d": init.top_d, "top_q": init.top_q, "lexical_type": init.lexical_type}
        keys = [f"init_dict.{name}={value}" for name, value in limits.items() if value is not None]
        keys += [f"config.matching_type={run.matching_type}", f"init_dict.agg={init.agg}"]
        return (
            "# its limits are settings of the commands: python -m splade.index, splade.retrieve ...\n"
            f"# init_dict.model_type_or_dir={facts.name} config.pretrained_no_yamlconfig=true\n"
            f"# {' '.join(keys)}"
        )
    return (
        "import splade\n\n"
        f'model = splade.load("{facts.name}")\n'
        'index = splade.Index.build("my-index", model, [("sky", "Air scatters blue light more than red.")])\n'
        'for hit in splade.Retriever(model, index).search("why is the sky blue"):\n'
        "    print(hit.doc_id, hit.score)"
    )


def _transformers_snippet(facts: CardFacts) -> str:
    what = "documents" if not facts.one_encoder else "texts"
    pool = ".sum(dim=1)" if facts.experiment.init_dict.agg == "sum" else ".amax(dim=1)"
    weights = "torch.log1p(torch.relu(logits))"
    weights = f"torch.log1p({weights})" if facts.activation == "log1p_relu" else weights
    return (
        "import torch\nfrom transformers import AutoModelForMaskedLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{facts.name}")\n'
        f'model = AutoModelForMaskedLM.from_pretrained("{facts.name}")  # of {what}\n'
        'tokens = tokenizer(["Air scatters blue light more than red."], return_tensors="pt")\n'
        "with torch.no_grad():\n    logits = model(**tokens).logits\n"
        f'vectors = ({weights} * tokens["attention_mask"].unsqueeze(-1)){pool}'
    )


def _results(facts: CardFacts) -> str:
    if not facts.results:
        return "Not evaluated yet."
    names = list(dict.fromkeys(name for result in facts.results for name in result.metrics))
    columns = (Column("data set"), *(Column(name) for name in names), *COST_COLUMNS)
    rows = tuple(
        (result.dataset, *(result.metrics.get(name) for name in names), *cost_cells(result.costs))
        for result in facts.results
    )
    notes = ("FLOPS: expected number of terms that a query and a document share. Milliseconds: where it was measured.",)
    return Table("Measured with splade", columns, rows, notes).without_empty_columns().to_markdown()


def _training(facts: CardFacts) -> str:
    run = asdict(facts.experiment.config)
    rows = [("started from", ", ".join(_base_models(facts)))] if _base_models(facts) else []
    rows += [(name, _shown(run[name])) for name in _SETTINGS if run.get(name) is not None]
    table = Table("Settings", (Column("setting"), Column("value")), tuple(rows)).to_markdown()
    best = ""
    if facts.best is not None:
        name, value, step = facts.best
        best = f"\n\nThe best checkpoint, after {step:,} steps, has {name} {value:.4f} in validation."
    return f"{table}\n\nThe whole configuration is in `config.yaml`.{best}"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(part)}" for key, part in value.items() if part is not None)
    return str(value)


def _data(facts: CardFacts) -> str:
    data = facts.experiment.data
    train = {name: path for name, path in asdict(data.TRAIN).items() if path is not None}
    lines = [f"Training set of type `{data.type}`:", *(f"- {name}: `{path}`" for name, path in train.items())]
    return "\n".join(lines) if train else "Not said in the configuration."


def _licence(facts: CardFacts) -> str:
    licence = facts.experiment.push.license
    if licence is None:
        return "None is given yet; without one nobody but its makers may use it."
    return f"{licence}. Models that it was trained from, and the data, have licences of their own."
