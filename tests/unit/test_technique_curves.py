"""The script that draws effectiveness against cost: its runs compose, and what they found is drawn."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from splade.config.command import compose_experiment
from splade.config.jobs import Figures
from splade.losses import parse_regularizers

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "technique_curves.py"


@pytest.fixture(scope="module")
def curves() -> ModuleType:
    spec = importlib.util.spec_from_file_location("technique_curves", SCRIPT)
    sys.modules["technique_curves"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("config", ["config_default", "config_domain_adaptation"])
def test_every_technique_composes_with_one_weight_that_is_swept(curves, config):
    for technique in curves.TECHNIQUES.values():
        overrides = [*technique.overrides, f"{technique.swept}=0.25"]
        weights = [one.lambda_d for one in parse_regularizers(compose_experiment(config, overrides).config.regularizer)]
        assert [weight for weight in weights if weight is not None] == [0.25]


def test_points_are_drawn(curves, tmp_path):
    costs = {"flops": 2.5, "n_docs": 200, "L0_d": 90.0, "search_ms_per_query": 0.1}
    drawn = curves.point(Figures("toy", {"mrr_10": 0.5}, costs))
    assert drawn["mrr_10"] == 0.5 and drawn[curves.POSTINGS] == 500 and drawn[curves.TERMS] == 90
    curves.draw({"FLOPS": [drawn, drawn], "IDF queries": [drawn]}, tmp_path / "curves.png", "toy")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
