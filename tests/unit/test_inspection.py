"""Bags of words, explanations, the figure of posting lengths."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from splade.encoding.bag_of_words import bag_of_words, render_bag
from splade.errors import DataError
from splade.inspection.explanation import explain
from splade.reports.figures import plot_posting_lengths
from splade.reports.index_report import index_title
from splade.vectors import SparseVectors

TOKENS = [f"w{i}" for i in range(6)]


def test_bag_is_sorted_by_weight_then_by_vocabulary() -> None:
    bag = bag_of_words(np.array([5, 1, 3]), np.array([1.0, 2.0, 1.0], dtype=np.float32), TOKENS)
    assert bag == [("w1", 2.0), ("w3", 1.0), ("w5", 1.0)]
    assert bag_of_words(np.array([5, 1, 3]), np.array([1.0, 2.0, 1.0]), TOKENS, top=1) == [("w1", 2.0)]


def test_rendered_bag_keeps_to_its_width() -> None:
    bag = [(f"token{i}", 1.0) for i in range(50)]
    lines = render_bag(bag, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.count("token") for line in lines) == 50
    assert render_bag([]) == "(empty vector)"


def test_contributions_add_up_to_the_dot_product() -> None:
    rng = np.random.default_rng(1)
    dense = rng.random((2, 40)) * (rng.random((2, 40)) < 0.5)
    vectors = SparseVectors.from_dense(dense)
    explanation = explain(vectors.row(0), vectors.row(1), [f"t{i}" for i in range(40)])
    assert explanation.score == pytest.approx(dense[0] @ dense[1], rel=1e-5)
    scores = [part.score for part in explanation.contributions]
    assert scores == sorted(scores, reverse=True)
    shared = {part.token for part in explanation.contributions}
    assert shared.isdisjoint(token for token, _ in explanation.query_only)
    assert len(shared) + len(explanation.query_only) == np.count_nonzero(dense[0])


def test_rendered_explanation_names_the_rest() -> None:
    vector = (np.arange(6), np.ones(6))
    text = explain(vector, vector, TOKENS).render(top=2)
    assert "score 6.0000 from 6 shared terms" in text and "4 further terms" in text
    nothing = explain((np.array([0]), np.array([1.0])), (np.array([1]), np.array([1.0])), TOKENS)
    assert "0 shared terms" in str(nothing) and "lacks: w0 1.00" in str(nothing)


@pytest.mark.parametrize("top", [None, 1])
def test_foreign_vocabulary_is_an_error(top: int | None) -> None:
    with pytest.raises(DataError, match="outside the vocabulary of 6"):
        bag_of_words(np.array([6]), np.array([1.0]), TOKENS, top)
    with pytest.raises(DataError, match="outside the vocabulary"):
        explain((np.array([0]), np.array([1.0])), (np.array([9]), np.array([1.0])), TOKENS)


def test_figure_names_what_it_shows_and_every_line(tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: (drawn.append(figure), Path(file).touch()))
    plot_posting_lengths(np.array([0, 5, 2, 9]), tmp_path / "a.png", 9, "scifact, naver/splade-v3 $x")
    axes = drawn[0].axes[0]
    assert axes.get_title() == "scifact, naver/splade-v3 $x\n16 postings on 3 of 4 terms"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [line.get_label() for line in axes.get_lines()] and len(labels) == 3
    assert len({line.get_linestyle() for line in axes.get_lines()}) == 3


def test_title_of_an_index() -> None:
    metadata = {"source": f"/far/{'x' * 50}/scifact sha256:12ab", "model": "naver/splade-v3"}
    title = index_title(SimpleNamespace(metadata=metadata))
    assert title.endswith("/scifact, naver/splade-v3") and title.startswith("...") and len(title) < 70


def test_figure_is_written_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "index_dist.png"
    plot_posting_lengths(np.array([0, 5, 2, 9]), path, n_documents=9, png_alone=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["index_dist.png"]
    with pytest.raises(DataError, match="no posting"):
        plot_posting_lengths(np.zeros(4, dtype=int), tmp_path / "other.png")
