"""How many processes a command starts, and what each of them connects to; no GPU and no process is needed for it."""

from types import SimpleNamespace

import pytest
import torch

from splade import distributed
from splade.config import compose_experiment, processes
from splade.config.processes import processes_to_start
from splade.errors import ConfigError
from splade.tasks import beir_eval, index, rerank, run_all, train


@pytest.fixture
def gpus(monkeypatch):
    """Let a number of GPUs be visible, and nobody have started processes."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def visible(number):
        monkeypatch.setattr(processes, "visible_gpus", lambda: number)

    return visible


def wanted(*overrides, trains=True):
    return processes_to_start(compose_experiment("config_default", overrides), trains)


@pytest.mark.parametrize(
    ("visible", "overrides", "expected"),
    [
        (0, [], 1),
        (1, [], 1),
        (4, ["config.train_batch_size=16"], 4),
        (4, ["config.train_batch_size=16", "config.n_processes=2"], 2),
        (8, ["config.n_processes=1"], 1),
        (0, ["config.train_batch_size=16", "config.n_processes=2"], 2),
        (8, ["config.train_batch_size=1", "config.loss=PairwiseNLL", "config.augment_pairs=null"], 1),
        (3, ["config.train_batch_size=null", "config.per_device_train_batch_size=5"], 3),
    ],
)
def test_one_process_per_gpu_or_as_many_as_asked_for(gpus, visible, overrides, expected):
    gpus(visible)
    assert wanted(*overrides) == expected


def test_gpus_that_cannot_share_the_batch_are_left_out_with_a_warning(gpus, caplog):
    gpus(6)
    assert wanted("config.train_batch_size=16") == 4 and "4 of 6 GPUs are used" in caplog.text
    assert wanted("config.train_batch_size=16", trains=False) == 6  # encoding has no batch to share


@pytest.mark.parametrize(
    ("visible", "overrides", "message"),
    [
        (0, ["config.train_batch_size=9", "config.n_processes=2"], "=9 cannot be divided among .*=2; 1 could share it"),
        (0, ["config.train_batch_size=4", "config.n_processes=8"], "=4 cannot be divided among .*=8; 1, 2, 4 could"),
        (2, ["config.train_batch_size=16", "config.n_processes=4"], "n_processes=4, but there are 2 GPUs"),
        (0, ["config.n_processes=0"], "at least 1"),
    ],
)
def test_a_number_that_cannot_be(gpus, visible, overrides, message):
    gpus(visible)
    with pytest.raises(ConfigError, match=message):
        wanted(*overrides)


def test_nothing_is_started_where_torchrun_has(gpus, monkeypatch):
    gpus(4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert wanted() == wanted("config.n_processes=2") == 1
    with pytest.raises(ConfigError, match="n_processes=3, but torchrun has started 2"):
        wanted("config.n_processes=3")


def test_which_commands_share_their_work(gpus):
    gpus(2)
    experiment = compose_experiment("config_default", ["config.train_batch_size=16"])
    assert [task.processes_wanted(experiment) for task in (train, index, run_all, beir_eval)] == [2, 2, 2, 2]
    lexical = compose_experiment("config_default", ["retriever=bm25"])
    assert beir_eval.processes_wanted(lexical) == 1  # no model
    second_stage = compose_experiment("config_default", ["retriever=rerank"])
    assert beir_eval.processes_wanted(second_stage) == rerank.processes_wanted(second_stage) == 2


@pytest.mark.parametrize(("cuda", "backend"), [(True, "cpu:gloo,cuda:nccl"), (False, "gloo")])
def test_each_process_takes_its_own_gpu(monkeypatch, cuda, backend):
    """Tensors of GPUs go by NCCL; whatever else is exchanged, or waited for, by gloo."""
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    calls = SimpleNamespace(device=None, backend=None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(calls, "device", device))
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, timeout: setattr(calls, "backend", backend)
    )
    monkeypatch.setattr(distributed.logging.getLogger(), "setLevel", lambda level: None)
    distributed.join_processes()
    assert calls.backend == backend and calls.device == (1 if cuda else None)
    assert distributed.pick_device() == torch.device("cuda:1" if cuda else "cpu")


def test_what_others_follow_from_is_told_first():
    late, early, gone = ConfigError("late"), processes.WorkerError("early"), processes.WorkerError("gloo: closed")
    workers = processes._Workers()
    workers._outcomes = {
        0: processes._Outcome(error=gone, ended=1, symptom=True),
        1: processes._Outcome(error=late, ended=3),
        2: processes._Outcome(),
        3: processes._Outcome(error=early, ended=2),
    }
    assert workers._failures() == [early, late, gone]


def test_the_processors_are_shared(monkeypatch):
    monkeypatch.setattr(processes, "available_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [processes._threads(size) for size in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [processes._threads(size) for size in (1, 2, 16)] == [3, 3, 1]
