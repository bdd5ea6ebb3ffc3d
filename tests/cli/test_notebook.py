"""The notebook runs from top to bottom, and what it shows is right."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from run_notebook import NOTEBOOK, execute  # noqa: E402

NUMBER = r"\d+(?:\.\d+)?"

REPORT = """
import json
print(json.dumps({
    "document_bag": document_bag,
    "expansion": expansion,
    "query_bag": query_bag,
    "score": explanation.score,
    "shared": [part.token for part in explanation.contributions],
    "comparison": [(row.token, row.first, row.second) for row in comparison],
    "texts": [QUERY, DOCUMENT],
}))
"""


def run_notebook(**parameters: str) -> tuple[dict[str, Any], list[Any]]:
    """Execute a copy of the notebook with other parameters; return its variables and its cells of code."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    if parameters:
        given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        *cells, report = [cell for cell in execute(notebook).cells if cell.cell_type == "code"]
    return json.loads(printed(report)), cells


def printed(cell: Any) -> str:
    """Return what a cell printed; streams come in pieces of any size."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def images(cell: Any) -> int:
    """Count the pictures of a cell."""
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def split_numbers(text: str) -> tuple[list[str], list[float]]:
    """Return the text around numbers, and the numbers."""
    return re.split(NUMBER, text), [float(number) for number in re.findall(NUMBER, text)]


@pytest.fixture(scope="module")
def default_run() -> tuple[dict[str, Any], list[Any]]:
    return run_notebook()


def reference_vector(folder: Path, text: str) -> np.ndarray:
    """The formula of SPLADE v2 in plain PyTorch: max over tokens of log(1 + ReLU(logit))."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForMaskedLM.from_pretrained(folder)(**tokens).logits
    return torch.log1p(torch.relu(logits)).max(dim=1).values[0].numpy()


def test_kept_outputs_are_current(default_run: tuple[dict[str, Any], list[Any]]):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    kept, new = [cell for cell in notebook.cells if cell.cell_type == "code"], default_run[1]
    assert sum(map(images, kept)) >= 4 and len(kept) == len(new)
    for old, now in zip(kept, new, strict=True):
        (texts, numbers), (new_texts, new_numbers) = (split_numbers(printed(cell)) for cell in (old, now))
        assert texts == new_texts and images(old) == images(now), "run python scripts/run_notebook.py"
        assert numbers == pytest.approx(new_numbers, rel=0.01, abs=0.02), "run python scripts/run_notebook.py"


def test_shows_what_the_formula_gives(splade_tiny: Path, default_run: tuple[dict[str, Any], list[Any]]):
    shown, cells = default_run
    query, document = (reference_vector(splade_tiny, text) for text in shown["texts"])
    assert shown["score"] == pytest.approx(float(query @ document), rel=1e-4)
    assert len(shown["document_bag"]) == np.count_nonzero(document)
    assert len(shown["query_bag"]) == np.count_nonzero(query)
    assert [weight for _, weight in shown["document_bag"]] == pytest.approx(
        sorted(document[document > 0])[::-1], rel=1e-3
    )
    assert len(shown["shared"]) == np.count_nonzero(query * document)
    assert {"caf", "##fe", "##ine", "coffee"} & {token for token, _ in shown["document_bag"][:40]}
    assert not {token for token, _ in shown["expansion"]} & {"sleep", "blood", "blocks"}
    assert any(f"score {shown['score']:.4f}" in printed(cell) for cell in cells)
    assert sum(given for _, given, _ in shown["comparison"]) == pytest.approx(1)


def test_compares_two_models(splade_tiny: Path, tmp_path: Path):
    changed = AutoModelForMaskedLM.from_pretrained(splade_tiny)
    tokenizer = AutoTokenizer.from_pretrained(splade_tiny)
    with torch.no_grad():  # a bias so low that "coffee" drops out of every vector
        changed.get_output_embeddings().bias[tokenizer.convert_tokens_to_ids("coffee")] -= 100
    changed.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    shown, _ = run_notebook(OTHER_MODEL=str(tmp_path), OTHER_POOLING="max", QUERY="coffee and sleep")
    shares = {token: (first, second) for token, first, second in shown["comparison"]}
    assert "coffee" in shown["shared"]
    assert shares["coffee"][0] > 0 and shares["coffee"][1] == 0
    assert sum(first for first, _ in shares.values()) == pytest.approx(1)
    assert sum(second for _, second in shares.values()) == pytest.approx(1)
