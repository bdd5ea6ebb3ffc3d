"""Processors that this process may use, and what is set before PyTorch starts its threads."""

import math
import os
import subprocess
import sys

import pytest
import torch

from splade import processors
from splade.encoding.text_encoder import TextEncoder
from splade.models.masked_lm import MaskedLMEncoder
from splade.models.pretrained import load_masked_lm


def cgroup(tmp_path, line, files):
    """Make a tree of cgroups; return where it is and the file that names those of this process."""
    for name, text in files.items():
        path = tmp_path / "cgroups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(line)
    return tmp_path / "cgroups", tmp_path / "own"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/x\n", {"elsewhere/cpu.max": "100000 100000\n"}, math.inf),
        (
            "3:cpu,cpuacct:/d\n",
            {"cpu,cpuacct/d/cpu.cfs_quota_us": "50000", "cpu,cpuacct/d/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("3:cpuacct,cpu:/d\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("4:memory:/\n", {"cpu.max": "100000 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense\n"}, math.inf),
    ],
)
def test_quota_of_a_container(tmp_path, line, files, expected):
    assert processors.quota(*cgroup(tmp_path, line, files)) == expected


def test_no_quota_where_there_are_no_cgroups(tmp_path):
    assert processors.quota(tmp_path, tmp_path / "missing") == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(0.3, 1), (1.5, 2), (3.0, 3), (99.0, 8), (math.inf, 8)])
def test_processors_are_those_of_the_affinity_or_of_the_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(processors, "quota", lambda: quota)
    monkeypatch.setattr(processors, "_affinity", lambda: 8)
    assert processors.available_processors() == expected
    environment = {}
    processors.set_thread_defaults(environment)
    limits = {"OMP_NUM_THREADS": str(expected), "NUMBA_NUM_THREADS": str(expected)} if expected < 8 else {}
    assert environment == {"OMP_WAIT_POLICY": "passive"} | limits


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(processors, "quota", lambda: 1.0)
    monkeypatch.setattr(processors, "_affinity", lambda: 8)
    environment = {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "6", "NUMBA_NUM_THREADS": "5"}
    processors.set_thread_defaults(environment)
    assert environment == {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "6", "NUMBA_NUM_THREADS": "5"}


def test_importing_splade_sets_it_before_pytorch():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = "import splade, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["passive", "False"]


@pytest.mark.parametrize(("little", "threads"), [(10**9, 1), (0, 2)])
def test_a_single_text_of_a_small_model_takes_one_thread(tiny_model, monkeypatch, little, threads):
    loaded = load_masked_lm(str(tiny_model()))
    encoder = MaskedLMEncoder(loaded.model)
    seen = []
    monkeypatch.setattr("splade.encoding.text_encoder._LITTLE_WORK", little)
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda *batch: seen.append(torch.get_num_threads()) or encode(*batch))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        TextEncoder(encoder, loaded.tokenizer, 16).encode_one("a question")
        assert (seen, torch.get_num_threads()) == ([threads], 2)
    finally:
        torch.set_num_threads(before)
