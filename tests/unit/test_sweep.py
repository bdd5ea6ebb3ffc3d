"""Sweeps (`--multirun`): a folder per job, a table of all of them, failures under the job's name."""

import json
import pickle
import sys
from types import ModuleType

import pytest

from splade.config import compose_experiment, run_task
from splade.config.command import TaskJobs
from splade.config.jobs import Figures, JobRecord, read_records
from splade.config.sweep import in_job_folders, job_title
from splade.errors import DataError
from splade.reports.summaries import TaskResult
from splade.reports.sweep_report import sweep_pages, sweep_table

LAMBDA, MODEL = "config.regularizer.FLOPS.lambda_d", "init_dict.model_type_or_dir"


def folders(task, swept, *overrides):
    """Return the folders of checkpoint, index and results of a job."""
    given = ["config.checkpoint_dir=c", "config.index_dir=i", "config.out_dir=o", *overrides]
    run = in_job_folders(compose_experiment("config_default", given), swept, task).config
    return run.checkpoint_dir, run.index_dir, run.out_dir


@pytest.mark.parametrize(
    ("task", "swept", "expected"),
    [
        ("run_all", {}, ("c", "i", "o")),
        ("run_all", {LAMBDA: "0.1"}, ("c/lambda_d-0.1", "i/lambda_d-0.1", "o/lambda_d-0.1")),
        ("train", {"config.lr": "1", LAMBDA: "2"}, ("c/lr-1__lambda_d-2", "i/lr-1__lambda_d-2", "o/lr-1__lambda_d-2")),
        # Searching leaves the model and the index alone, a batch size even the results; no job replaces another's.
        ("run_all", {"config.search_effort": "0.5"}, ("c", "i", "o/search_effort-0.5")),
        ("retrieve", {"config.index_retrieve_batch_size": "8"}, ("c", "i", "o/index_retrieve_batch_size-8")),
        # The model of a sweep over lambdas is never confused with one that lies in the folder itself.
        ("retrieve", {LAMBDA: "0.1"}, ("c/lambda_d-0.1", "i/lambda_d-0.1", "o/lambda_d-0.1")),
        ("index", {"config.max_length": "32"}, ("c", "i/max_length-32", "o/max_length-32")),
        ("retrieve", {"config.max_length": "32"}, ("c", "i", "o/max_length-32")),
        ("retrieve", {"config.index_dir": "x"}, ("c", "i", "o/index_dir-x")),
        ("beir_eval", {LAMBDA: "0.1", "beir.dataset": "a"}, ("c/lambda_d-0.1", "i", "o")),
    ],
)
def test_folders_of_jobs(task, swept, expected):
    assert folders(task, swept) == expected


def test_folders_that_a_sweep_has_made_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c/max_length-32").mkdir(parents=True)
    (tmp_path / "i/max_length-32").mkdir(parents=True)
    assert folders("retrieve", {"config.max_length": "32"})[:2] == ("c/max_length-32", "i/max_length-32")


def test_a_model_used_as_it_is_has_no_folder_of_training():
    pretrained = "config.pretrained_no_yamlconfig=true"
    assert folders("index", {MODEL: "a/b", "config.lr": "1"}, pretrained)[:2] == ("c", "i/a_b")


@pytest.fixture
def task(monkeypatch, tmp_path):
    """A task that fails for one seed; what it has seen is noted."""
    seen = []

    def found(experiment):
        seen.append((experiment.config.seed, experiment.config.out_dir))
        if experiment.config.seed == 2:
            raise DataError("queries.tsv: line 7 is empty")
        if experiment.config.seed == 9:
            raise RuntimeError("nobody has thought of this")
        (tmp_path / experiment.config.out_dir).mkdir(parents=True)
        return Result(text=f"seed {experiment.config.seed} done")

    class Result(TaskResult):
        def figures(self):
            return [Figures("TOY", {"mrr_10": 0.5}, {"L0_d": 7.0})]

    module = ModuleType("splade.tasks.found")
    module.found = found
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "argv", ["found"])
    monkeypatch.chdir(tmp_path)
    for name in ("SPLADE_CONFIG_NAME", "SPLADE_CONFIG_FULLPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    return seen


def sweep(*arguments, code=1):
    """Run the task over some settings, and check the exit code."""
    with pytest.raises(SystemExit) as ended:
        run_task("splade.tasks.found", arguments=["--multirun", "config.out_dir=out", *arguments])
        sys.exit(0)
    assert ended.value.code == code


@pytest.mark.parametrize("elsewhere", [False, True])
def test_jobs_after_a_failed_one_run_and_all_are_in_the_table(task, capfd, tmp_path, monkeypatch, elsewhere):
    if elsewhere:  # what a launcher does: each job gets a copy, in another process
        here = TaskJobs.__call__
        monkeypatch.setattr(TaskJobs, "__call__", lambda jobs, cfg: here(pickle.loads(pickle.dumps(jobs)), cfg))
    sweep("config.seed=1,2,3")
    printed = capfd.readouterr()
    assert [seed for seed, _ in task] == [1, 2, 3] and task[0][1] == "out/seed-1"
    assert printed.err.strip() == "error: job seed=2: queries.tsv: line 7 is empty"
    assert "== job 2: seed=2 ==\nfailed: queries.tsv: line 7 is empty" in printed.out and printed.out.count("done") == 2
    rows = json.loads((tmp_path / "out/sweep_found.json").read_text())["rows"]
    assert [(row["seed"], row["state"], row["MRR@10"]) for row in rows] == [
        ("1", None, 0.5),
        ("2", "failed", None),
        ("3", None, 0.5),
    ]
    assert "sweep_found" in printed.out and rows[0]["terms /doc"] == 7.0


def test_further_values_join_the_table(task, capfd, tmp_path):
    sweep("config.seed=1,2")
    sweep("config.seed=3,4", code=0)
    rows = json.loads((tmp_path / "out/sweep_found.json").read_text())["rows"]
    assert [row["seed"] for row in rows] == ["1", "3", "4"]  # the failed one was another sweep's
    (tmp_path / "out/seed-1").rmdir()
    assert [record.swept["config.seed"] for record in read_records(tmp_path / "out", "found")] == ["2", "3", "4"]


def test_a_defect_ends_no_other_job_and_keeps_its_traceback(task, capfd):
    with pytest.raises(RuntimeError, match="nobody has thought"):
        run_task("splade.tasks.found", arguments=["--multirun", "config.out_dir=out", "config.seed=9,1"])
    assert [seed for seed, _ in task] == [9, 1]
    assert "error: job seed=9: a defect of this toolkit: RuntimeError: nobody" in capfd.readouterr().err


def test_all_over_lambdas_keeps_every_model(tiny_model, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["all"])
    small = ["nb_iterations=2", "record_frequency=2", "warmup_steps=1", "train_batch_size=4", "max_length=16"]
    places = ["checkpoint_dir=c", "index_dir=i", "out_dir=o"]
    run_task(
        "splade.tasks.run_all",
        arguments=["--multirun", f"{MODEL}={tiny_model()}", f"{LAMBDA}=0.1,0.2"]
        + [f"config.{setting}" for setting in [*small, *places]]
        + ["data.VALIDATION_FULL_RANKING=null", "config.monitoring_ckpt=loss", "config.n_threads=1"],
    )
    for name in ("lambda_d-0.1", "lambda_d-0.2"):
        assert (tmp_path / "c" / name / "model/config.json").is_file() and (
            tmp_path / "i" / name / "index.h5"
        ).is_file()
        assert (tmp_path / "o" / name / "TOY/perf.json").is_file()
        assert (tmp_path / "o" / name / "before/TOY/perf.json").is_file()
        assert not (tmp_path / "i" / name / "before").exists()
    assert (tmp_path / "i/before/index.h5").is_file()  # one for all: the untrained model is the same
    rows = json.loads((tmp_path / "o/sweep_run_all.json").read_text())["rows"]
    assert [row["lambda_d"] for row in rows] == ["0.1", "0.2"] and all(row["MRR@10"] >= 0 for row in rows)
    assert "splade.all, TOY" in capfd.readouterr().out


def test_columns_are_those_that_differ():
    def job(number, error=None, **datasets):
        figures = tuple(Figures(name, {"mrr_10": value}) for name, value in datasets.items())
        return JobRecord("retrieve", "s", number, 0.0, {"config.seed": str(number)}, "f", None, error, figures)

    table = sweep_table([job(1, A=0.5, B=0.25), job(2, error="no")])
    assert [column.name for column in table.columns] == ["seed", "state", "data set", "MRR@10"]
    assert table.rows == (("1", None, "A", 0.5), ("1", None, "B", 0.25), ("2", "failed", None, None))
    assert sweep_table([job(1, A=0.5)]).title == "splade.retrieve, A"
    best = sweep_table([job(1, A=0.5), job(2, A=0.75), job(3, error="no")])
    assert "| **0.7500** |" in best.to_markdown() and best.bold == {(1, 2)}


def test_titles():
    assert job_title({}) == "" and job_title({"a.lr": "1", "b.lr": "2"}) == "a.lr=1, b.lr=2"


def test_several_data_sets_are_a_pivot_per_metric():
    def job(number, error=None, **datasets):
        figures = [Figures(name, {"mrr_10": value}, {"L0_d": 7.0}) for name, value in datasets.items()]
        return JobRecord("retrieve", "s", number, 0.0, {"config.seed": str(number)}, "f", None, error, tuple(figures))

    mrr, costs = sweep_pages([job(1, A=0.5, B=0.25), job(2, A=0.25, B=0.75), job(3, error="no")])
    assert mrr.title == "splade.retrieve: MRR@10 (measured here)"
    assert [column.name for column in mrr.columns] == ["data set", "seed=1", "seed=2", "seed=3 (failed)"]
    assert mrr.rows == (
        ("A", 0.5, 0.25, None),
        ("B", 0.25, 0.75, None),
        ("average of 2", 0.375, 0.5, None),
    )
    assert mrr.bold == {(0, 1), (1, 2), (2, 2)}
    assert [column.name for column in costs.columns] == ["seed", "state", "data set", "terms /doc"]
    assert sweep_pages([job(1, A=0.5)]) == (sweep_table([job(1, A=0.5)]),)
