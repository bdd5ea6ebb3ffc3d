"""Figures of any folder: drawn from what is there, with their data beside them; what cannot be drawn is named."""

import csv
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

import splade
from splade.config import compose_experiment
from splade.config.arguments import hydra_arguments
from splade.config.schema import RegularizerConfig
from splade.datasets.dataset import Dataset
from splade.errors import ConfigError, DataError, WriteError
from splade.evaluation.costs import Costs
from splade.reports.cost_figures import JobPoint, pareto_front, plot_pareto, plot_swept_value
from splade.reports.figure_style import LINES, drawn_figure
from splade.reports.figures import plot_flops_per_term, plot_weights
from splade.reports.training_figures import plot_training, read_log, scheduled_lambdas
from splade.retrieval.evaluate_retriever import evaluate_retriever
from splade.tasks.figures import draw_quietly, figures

TRAINING = "step,loss,Rank,FLOPS_d,L0_d,flops_d,learning_rate\n10,2,1.5,0.5,90,3,1e-5\n20,1,0.75,0.25,80,2,5e-6\n"
VALIDATION = "step,loss,L0_d,MRR@10,ranking_L0_d\n0,3,100,0.25,99\n20,1.5,85,0.5,84\n"


def run(*arguments):
    return figures(compose_experiment("own_data", hydra_arguments(list(map(str, arguments)), "figures")))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, each once."""
    found = []

    def savefig(figure, file, **_):
        open(file, "w").close()
        if figure not in found:
            found.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """What training, indexing and retrieving leave behind."""
    folder = tmp_path_factory.mktemp("figures")
    texts = [("d1", "the sky is blue"), ("d2", "cats see at night"), ("d3", "long waves")]
    model = splade.load(str(tiny_model()))
    index = splade.Index.build(folder / "index", model, texts)
    dataset = Dataset("toy", {"q1": "blue sky", "q2": "cats"}, None)
    evaluate_retriever(splade.Retriever(model, index), dataset, None, 10, folder / "out" / "toy")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/training_perf.txt").write_text(TRAINING)
    (folder / "checkpoint/validation_perf.txt").write_text(VALIDATION)
    return folder


def test_a_folder_is_drawn_whole(folder, tmp_path):
    summary = run(folder, f"figures.out={tmp_path}").summary()
    names = {"index_posting_lengths", "index_weights", "index_terms", "out_toy_terms", "out_toy_flops"}
    names |= {"checkpoint_training"}
    assert {path.stem for path in tmp_path.iterdir()} == names and "not drawn" not in summary
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg", ".csv"}
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)
    shares = rows_of(tmp_path / "out_toy_flops.csv")
    assert float(shares[0]["flops"]) >= float(shares[-1]["flops"]) > 0
    stats = json.loads((folder / "out/toy/q_stats.json").read_text())
    assert sum(float(row["flops"]) for row in shares) == pytest.approx(stats["flops"])
    assert not shares[0]["term"].startswith("term ")
    postings = sum(int(row["documents"]) for row in rows_of(tmp_path / "index_posting_lengths.csv"))
    assert postings == splade.Index.open(folder / "index").postings.n_postings


def test_what_cannot_be_drawn_is_named(tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index/index.h5").write_bytes(b"nothing")
    (tmp_path / "training_perf.txt").write_text("step,loss\n1,2\n")
    (tmp_path / "q_dist.json").write_text("{}")
    summary = run(tmp_path).summary()
    assert "0 figures" in summary and not list(tmp_path.rglob("*.png"))
    for name in ("index_index: ", "training: fewer than two points", "flops: "):
        assert f"not drawn: {name}" in summary
    draw_quietly([tmp_path, None, tmp_path / "none"], tmp_path / "drawn")


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "training_perf.txt").write_text(TRAINING)
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(WriteError, match="cannot be written .*a file stands where a folder is needed"):
        run(tmp_path)
    draw_quietly([tmp_path], tmp_path / "figures")


def test_nothing_to_draw(tmp_path):
    with pytest.raises(DataError, match="holds no index, no training log"):
        run(tmp_path)
    with pytest.raises(ConfigError, match="give a folder"):
        run()


def test_panels_have_one_unit_each_and_no_empty_ones(tmp_path, drawn):
    (tmp_path / "t.txt").write_text(TRAINING)
    (tmp_path / "v.txt").write_text(VALIDATION)
    lambdas = scheduled_lambdas({"FLOPS": RegularizerConfig(lambda_d=0.5, T=20)}, 20)
    plot_training(read_log(tmp_path / "t.txt"), read_log(tmp_path / "v.txt"), lambdas, tmp_path / "a.png", "s")
    (figure,) = drawn
    assert [axes.get_ylabel() for axes in figure.axes] == [
        *("loss", "part of the loss, training", "weight lambda", "terms per text"),
        *("FLOPS between texts of a batch", "validation by ranking", "learning rate"),
    ]
    assert all(axes.lines and axes.get_xlabel() == "optimiser steps" for axes in figure.axes)
    assert [line.get_label() for line in figure.axes[5].lines] == ["MRR@10"]
    assert lambdas["FLOPS_d"][10] == (10, 0.125) and lambdas["FLOPS_d"][-1] == (20, 0.5)
    assert scheduled_lambdas({"F": RegularizerConfig(lambda_d=0.5, target_terms=9.0)}, 20) == {}


def test_a_broken_log_is_named(tmp_path):
    (tmp_path / "t.txt").write_text("step,loss\n10,nan\n20,1\nx,2\n")
    with pytest.raises(DataError, match=r"t.txt:4: expected a number under 'step'"):
        read_log(tmp_path / "t.txt")
    (tmp_path / "t.txt").write_text("step,loss\n10,nan\n20,1\n")
    assert read_log(tmp_path / "t.txt") == {"loss": [(20, 1.0)]}


def test_the_costliest_terms_are_named_with_their_shares(tmp_path, drawn):
    p_query, p_doc = np.array([0.5, 0.0, 1.0]), np.array([0.5, 1.0, 0.25])
    plot_flops_per_term(p_query, p_doc, ["$a$", "b", "c"], tmp_path / "a.png", "toy")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["$a$", "c"]
    assert axes.get_title() == "toy\nFLOPS 0.500; 2 of 2 shared terms make 100%"
    with pytest.raises(DataError, match="share no term"):
        plot_flops_per_term(p_query, np.zeros(3), None, tmp_path / "b.png")


def test_shares_of_weights_add_up(tmp_path, drawn):
    plot_weights(np.linspace(0.1, 2, 500, dtype=np.float32), tmp_path / "a.png")
    assert sum(float(row["share of postings in percent"]) for row in rows_of(tmp_path / "a.csv")) == pytest.approx(100)


def points(values, key="effort"):
    return [
        JobPoint(f"{key}={at}", {key: str(at)}, {"MRR@10": good}, Costs(flops=cost, index_bytes=10**6))
        for at, good, cost in values
    ]


def test_a_front_has_what_nothing_beats(tmp_path, drawn):
    assert pareto_front([(3, 0.7), (1, 0.5), (1, 0.6), (2, 0.55), (4, 0.7)]) == [2, 0]
    shown = points([(1, 0.5, 1.0), (2, 0.4, 2.0), (3, 0.7, 3.0)])
    plot_pareto(shown, tmp_path / "a.png")
    (axes,) = drawn[0].axes  # the index has one size: no axis for it
    assert axes.get_xlabel() == "FLOPS per query and document"
    assert list(axes.lines[1].get_xdata()) == [1.0, 3.0]
    for few in (shown[:1], points([(1, 0.5, 1.0), (2, 0.4, 1.0)])):
        with pytest.raises(DataError, match="two runs"):
            plot_pareto(few, tmp_path / "b.png")


def test_noise_does_not_look_like_a_fall(tmp_path, drawn):
    plot_swept_value(points([(1, 0.500, 1.0), (0.5, 0.501, 2.0)]), tmp_path / "a.png")
    assert drawn[0].axes[0].get_ylim()[0] == 0 and list(drawn[0].axes[0].lines[0].get_xdata()) == [0.5, 1.0]
    plot_swept_value(points([(1, 0.5, 1.0), (0.5, 0.8, 2.0)]), tmp_path / "a.png")
    assert drawn[1].axes[0].get_ylim()[0] > 0.4
    with pytest.raises(DataError, match="numbers"):
        plot_swept_value(points([("a", 0.5, 1.0), ("b", 0.5, 1.0)]), tmp_path / "b.png")


def test_lines_differ_without_colour():
    assert len({(str(one["linestyle"]), one["marker"]) for one in LINES}) == len(LINES)


def test_the_same_figure_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with drawn_figure(tmp_path / f"{name}.png", ("x",), [(1,)], (2, 2)) as figure:
            figure.add_subplot().plot([1, 2])
    for suffix in (".png", ".svg", ".csv"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
