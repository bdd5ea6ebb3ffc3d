"""The notebook runs from top to bottom, and what it shows is right."""

import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from transformers import AutoModelForMaskedLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "inference_splade.ipynb"

REPORT = """
import json
print(json.dumps({
    "document_bag": document_bag,
    "expansion": expansion,
    "query_bag": query_bag,
    "score": explanation.score,
    "shared": [part.token for part in explanation.contributions],
    "comparison": comparison,
    "texts": [QUERY, DOCUMENT],
}))
"""


def run_notebook(monkeypatch: pytest.MonkeyPatch, **parameters: str) -> tuple[dict[str, Any], str]:
    """Execute a copy of the notebook with other parameters; return its variables and all that it printed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    printed = [
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    ]
    return json.loads(printed[-1]), "".join(printed[:-1])


def reference_vector(folder: Path, text: str) -> np.ndarray:
    """The formula of SPLADE v2 in plain PyTorch: max over tokens of log(1 + ReLU(logit))."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForMaskedLM.from_pretrained(folder)(**tokens).logits
    return torch.log1p(torch.relu(logits)).max(dim=1).values[0].numpy()


def test_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_shows_what_the_formula_gives(splade_tiny: Path, monkeypatch: pytest.MonkeyPatch):
    shown, printed = run_notebook(monkeypatch)
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
    assert f"score {shown['score']:.4f}" in printed
    assert shown["comparison"] is None and "nothing to compare with" in printed


def test_compares_two_models(splade_tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    changed = AutoModelForMaskedLM.from_pretrained(splade_tiny)
    tokenizer = AutoTokenizer.from_pretrained(splade_tiny)
    with torch.no_grad():  # a bias so low that "coffee" drops out of every vector
        changed.get_output_embeddings().bias[tokenizer.convert_tokens_to_ids("coffee")] -= 100
    changed.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    shown, printed = run_notebook(monkeypatch, OTHER_MODEL=str(tmp_path), QUERY="coffee and sleep")
    shares = {token: (first, second) for token, first, second in shown["comparison"]}
    assert "coffee" in shown["shared"]
    assert shares["coffee"][0] > 0 and shares["coffee"][1] == 0
    assert sum(first for first, _ in shares.values()) == pytest.approx(1)
    assert sum(second for _, second in shares.values()) == pytest.approx(1)
    assert "coffee" in printed
