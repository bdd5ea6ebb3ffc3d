"""Hostile configurations: none starts a program, none is taken for another, and each says what is wrong with it."""

import os
import sys
import types
from pathlib import Path

import pytest

from splade.config import compose_experiment, run_task
from splade.config.choose import choose_config
from splade.config.schema import Experiment
from splade.errors import ConfigError, SpladeError


class Seen:
    """What a command did: the experiments of its jobs, its exit code, what it printed."""

    def __init__(self) -> None:
        self.experiments: list[Experiment] = []
        self.code: object = 0
        self.out = self.err = ""

    def summary(self) -> str:
        return ""

    def figures(self) -> tuple[()]:
        return ()


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a task that only notes its experiment, as a command."""
    monkeypatch.chdir(tmp_path)
    for name in ("SPLADE_CONFIG_NAME", "SPLADE_CONFIG_FULLPATH", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, config: Path | str | None = None) -> Seen:
        seen = Seen()
        module = types.ModuleType("noting_task")

        def noting_task(experiment: Experiment) -> Seen:
            seen.experiments.append(experiment)
            return seen

        module.noting_task = noting_task  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "noting_task", module)
            patch.setattr(sys, "argv", ["noting"])
            patch.setenv("HYDRA_FULL_ERROR", "")
            if config is not None:
                patch.setenv("SPLADE_CONFIG_FULLPATH", str(config))
            try:
                run_task("noting_task", "Note.", list(arguments))
            except SystemExit as ended:
                seen.code = ended.code or 0
        seen.out, seen.err = capsys.readouterr()
        return seen

    return run


def refused(seen: Seen, *parts: str) -> None:
    """Check that a command ended with one paragraph, before any task."""
    assert seen.code == 1 and not seen.experiments, seen.err
    assert seen.err.startswith("error: ") and "Traceback" not in seen.err and seen.err.count("\nerror: ") == 0
    assert all(part in seen.err for part in parts), seen.err


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


MARK = "{_target_: pathlib.Path.write_text, self: {_target_: pathlib.Path, _args_: [ran]}, data: x}"
PROGRAMS = {
    "callback": f"callbacks: {{e: {MARK}}}",
    "load": "callbacks: {e: {_target_: torch.load, f: p.pt, weights_only: false}}",
    "numpy": "callbacks: {e: {_target_: numpy.load, file: p.npy, allow_pickle: true}}",
    "copy": "callbacks: {e: {_target_: shutil.copyfile, src: config.yaml, dst: ran}}",
    "job logging": "job_logging: {handlers: {h: {class: logging.FileHandler, filename: ran}}, root: {handlers: [h]}}",
    "hydra logging": "hydra_logging: {version: 1, handlers: {h: {(): logging.FileHandler, filename: ran}}}",
    "environment": "job: {env_set: {LD_PRELOAD: ./x.so}}",
    "copied environment": "job: {env_copy: [HOME]}",
    "changed folder": "job: {chdir: true}",
    "search path": "searchpath: [pkg://os]",
    "output folder": "output_subdir: ran",
    "help": "help: {template: ran}",
    "unknown": "nonsense: 1",
}
SWEEPS = {
    "launcher": f"launcher: {MARK}",
    "sweeper": "sweeper: {_target_: shutil.copyfile, src: config.yaml, dst: ran}",
    "within": f"sweeper: {{sampler: {MARK}}}",
    "jobs": "sweeper: {params: {hydra.job_logging.root.level: DEBUG}}",
    "added": "sweeper: {params: {+hydra.callbacks.e._target_: shutil.copyfile}}",
    "package": "sweeper: {params: {'+train/model@hydra.callbacks.e': toy}}",
}


@pytest.mark.parametrize("section", [*PROGRAMS.values(), *SWEEPS.values(), "sweep: {dir: ran}", "run: {dir: ran}"])
def test_a_file_handed_over_cannot_set_up_hydra(section, command, tmp_path):
    path = written(tmp_path / "config.yaml", f"hydra:\n  {section}\nconfig: {{lr: 0.5}}\n")
    refused(command(config=path), str(path), "'hydra'", "command line")
    refused(command("--multirun", "config.seed=1,2", config=path), "'hydra'")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("section", [*PROGRAMS.values(), *SWEEPS.values()])
@pytest.mark.parametrize("option", ["--config-path", "--config-dir"])
def test_a_file_of_a_folder_sets_up_sweeps_alone(section, option, command, tmp_path):
    written(tmp_path / "own/mine.yaml", f"hydra:\n  {section}\n")
    refused(command(option, "own", "--config-name=mine"), "mine.yaml")
    written(tmp_path / "own/train/model/mine.yaml", f"# @package _global_\nhydra:\n  {section}\n")
    written(tmp_path / "own/config_default.yaml", "config: {lr: 0.5}\n")
    refused(command(option, "own", "+train/model=mine"), "mine.yaml")
    refused(command("--multirun", option, "own", "+train/model=mine", "config.seed=1,2"), "mine.yaml")
    assert not (tmp_path / "ran").exists()


def test_sweeps_of_a_folder_work(command, tmp_path):
    sweep = "hydra: {sweeper: {params: {config.seed: '1,2'}}, sweep: {dir: swept}, run: {dir: .}}\n"
    written(tmp_path / "own/mine.yaml", sweep + "config: {lr: 0.5}\n")
    done = command("--multirun", "--config-path=own", "--config-name=mine")
    assert [one.config.seed for one in done.experiments] == [1, 2] and (tmp_path / "swept").is_dir(), done.err
    basic = "hydra: {launcher: {_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher}}\n"
    written(tmp_path / "own/mine.yaml", "defaults: [override hydra/launcher: basic, _self_]\n" + basic)
    assert command("--config-path=own", "--config-name=mine").experiments


@pytest.mark.parametrize(
    "header",
    [
        "# @package hydra.callbacks.e",
        "# @package _global_.hydra.callbacks.e",
        "# @package hydra.job_logging",
        "# @package",
    ],
)
def test_no_header_puts_a_file_into_hydra(header, command, tmp_path):
    written(tmp_path / "own/train/model/mine.yaml", f"{header}\n_target_: shutil.copyfile\nsrc: a\ndst: ran\n")
    refused(command("--config-dir=own", "train/model=mine"), "mine.yaml")


@pytest.mark.parametrize(
    "included",
    [
        "hydra/callbacks: evil",
        "/hydra/callbacks: evil",
        "override hydra/job_logging: evil",
        "override /hydra/hydra_logging: evil",
        "optional hydra/env: evil",
        "train/model@hydra.callbacks.e: mine",
        "train/model@_global_.hydra.callbacks.e: mine",
        "/hydra/callbacks/evil",
        "hydra/callbacks/evil@_global_",
        "../own/hydra/callbacks: evil",
        "train/model: ../../hydra/callbacks/evil",
        "train/model@hydra: [mine]",
    ],
)
@pytest.mark.parametrize("handed_over", [True, False])
def test_nothing_that_is_included_sets_up_hydra(included, handed_over, command, tmp_path):
    for name in ("hydra/callbacks/evil", "hydra/job_logging/evil", "hydra/hydra_logging/evil", "train/model/mine"):
        written(tmp_path / f"own/{name}.yaml", f"e: {MARK}\n")
    path = written(tmp_path / "own/config.yaml", f"defaults:\n  - '{included}'\n  - _self_\n".replace("'", ""))
    seen = command(config=path) if handed_over else command("--config-path=own", "--config-name=config")
    refused(seen)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["+hydra/callbacks=evil"],
        ["hydra/job_logging=evil"],
        ["+train/model@hydra.callbacks=mine"],
        ["+train/model@hydra.callbacks.e=mine"],
        ["+hydra/callbacks@hydra.callbacks=evil"],
        ["--experimental-rerun", "config.pickle"],
        ["--exp=config.pickle"],
        ["--config-na=mine"],
        ["--config-p", "own", "--config-n", "mine"],
        ["--config-name"],
        ["--config-name="],
        ["--config-dir"],
        ["--resolve"],
        ["--cfg=job", "--run"],
        ["hydra.searchpath=own", "train/data=toy"],
        ["=1"],
        ["config.lr"],
        ["config.lr=[1"],
        ["config..lr=1"],
        ["~config.nothing"],
        ["train/model"],
        ["config.seed=1,2"],
        ["config.seed=range(1,3)"],
        ["hydra.nonsense=1"],
        ["config=1"],
        ["config=null"],
        ["data=[]"],
        ["config.lr=${config.lr}"],
        ["config.out_dir=${config.index_dir}", "config.index_dir=${config.out_dir}"],
        ["config.out_dir=${nothing}"],
        ["config.out_dir=${oc.env:NOT_SET_ANYWHERE}"],
        ["config.out_dir=${nonsense:1}"],
        ["config.out_dir=${"],
        ["config.out_dir=${config}"],
        ["config.loss=${config}"],
    ],
)
def test_command_lines_that_cannot_work(arguments, command, tmp_path):
    for name in ("hydra/callbacks/evil", "hydra/job_logging/evil", "train/model/mine"):
        written(tmp_path / f"own/{name}.yaml", f"_target_: pathlib.Path.touch\nself: ran\ne: {MARK}\n")
    refused(command("--config-dir=own", *arguments))
    assert not (tmp_path / "ran").exists()


BROKEN = {
    "python": "config: {lr: !!python/object/apply:os.system ['touch ran']}",
    "python name": "config: !!python/name:os.system",
    "python path": "config: {out_dir: !!python/object/apply:pathlib.PosixPath [a]}",
    "binary tag": "config: {out_dir: !!binary aGVsbG8=}",
    "own tag": "config: !mine {lr: 1}",
    "set": "config: !!set {lr}",
    "unclosed": "config: {lr: 1",
    "tab": "config:\n\tlr: 1",
    "twice": "config: {lr: 1, lr: 2}",
    "documents": "config: {lr: 1}\n---\nconfig: {lr: 2}",
    "list": "- config",
    "number": "5",
    "text": "hello",
    "empty": "",
    "null": "null",
    "unknown section": "confg: {lr: 1}",
    "unknown key": "config: {lrr: 1}",
    "section of text": "config: hello",
    "section of numbers": "data: [1, 2]",
    "key of numbers": "1: 2",
    "key of a list": "? [a, b]\n: 1",
    "key of null": "null: 1",
    "long number": f"config: {{seed: {'9' * 5000}}}",
    "deep list": "config: {lr: " + "[" * 100_000,
    "deep dictionary": "a: {" * 5_000,
    "undefined alias": "config: *a",
    "alias of itself": "config: &a {loss: *a}",
    "long": "x: " + "y" * (1 << 20),
    "many": "delete: [" + "a, " * 120_000 + "a]",
    "laughs": "\n".join(
        ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    ),
    "merged laughs": "\n".join(
        ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}, <<: *a{i - 1}}}" for i in range(1, 40)]
    ),
    "deep aliases": "\n".join(["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 500)]),
    "joined references": "data: {Q_COLLECTION_PATH: ["
    + ", ".join(["xxxx"] + [f"'{f'${{data.Q_COLLECTION_PATH[{i}]}}' * 9}'" for i in range(30)])
    + "]}",
    "itself": "config: {out_dir: '${config.out_dir}'}",
    "each other": "config: {out_dir: '${config.index_dir}', index_dir: '${config.out_dir}'}",
    "decode": "config: {loss: '${oc.decode:\"{a: 1}\"}'}",
    "create": "config: {loss: '${oc.create:{a: 1}}'}",
    "decode within": "config: {out_dir: '${oc.env:HOME,${oc.decode:x}}'}",
    "hydra's": "config: {out_dir: '${hydra:runtime.cwd}'}",
    "deprecated": "config: {out_dir: '${oc.deprecated:config.index_dir}'}",
    "values": "data: {Q_COLLECTION_PATH: '${oc.dict.values:config}'}",
    "named by another": "config: {out_dir: '${oc.${config.seed}:x}'}",
    "own resolver": "config: {out_dir: '${mine:x}'}",
    "unclosed interpolation": "config: {out_dir: '${config.index_dir'}",
    "program": "retriever: os.path:Class",
    "defaults are text": "defaults: config_default",
    "defaults are numbers": "defaults: [1]",
    "defaults are a dictionary": "defaults: {train/model: toy}",
    "defaults of two": "defaults: [{train/model: toy, index: toy}]",
    "defaults of lists": "defaults: [[a]]",
    "defaults of nothing": "defaults: ['']",
    "defaults of a package": "defaults: ['@config']",
    "defaults with a number": "defaults: [{train/model: 1}]",
    "defaults elsewhere": "defaults: [neighbour]",
    "defaults above": "defaults: [../neighbour@_global_]",
    "defaults at the root": "defaults: [//etc/neighbour@_global_]",
    "defaults of itself": "defaults: [_splade_handed_over]",
    "defaults of the root": "defaults: [_splade_experiment@_global_]",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_configuration(text, command, tmp_path):
    written(tmp_path / "neighbour.yaml", "config: {lr: 0.5}\n")
    refused(command(config=written(tmp_path / "config.yaml", text)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["python", "laughs", "deep list", "decode", "unclosed", "joined references", "twice"])
def test_the_same_in_a_folder_and_beside_a_model(name, command, tmp_path):
    from splade.encoding.load_sparse import load
    from splade.tasks.model_loading import load_model

    written(tmp_path / "own/train/model/mine.yaml", BROKEN[name])
    refused(command("--config-dir=own", "train/model=mine"), "mine.yaml")
    written(tmp_path / "checkpoint/config.yaml", BROKEN[name])
    written(tmp_path / "checkpoint/training_done.json", "{}")
    written(tmp_path / "checkpoint/model/config.json", "{}")
    with pytest.raises(SpladeError):
        load(tmp_path / "checkpoint")
    with pytest.raises(SpladeError, match=r"config\.yaml"):
        load_model(compose_experiment(overrides=[f"config.checkpoint_dir={tmp_path}/checkpoint"]))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"\x00\x01", b"config: {out_dir: \xe9}", b"\x1f\x8b\x08\x00", b"PK\x03\x04"]
)
def test_bytes_that_are_no_text(content, command, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    refused(command(config=tmp_path / "config.yaml"), "config.yaml")


def test_files_that_are_none(command, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "folder.yaml").mkdir()
    written(tmp_path / "config.yml", "config: {lr: 1}")
    written(tmp_path / "config.json", "{}")
    for name in (
        "pipe.yaml",
        "loop.yaml",
        "folder.yaml",
        "config.json",
        "nothing.yaml",
        "a\0b.yaml",
        f"{'x' * 300}.yaml",
    ):
        refused(command(config=tmp_path / name)) if "\0" not in name else None
    refused(command(config="~nobody-of-that-name/config.yaml"), "no such file")
    refused(command(config=tmp_path / "config.yml"), "rename")
    refused(command("--config-path=.", "--config-name=config"), "rename")
    refused(command("--config-path=.", "--config-name=config.yml"), "rename")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a@b", "a=b", "a b", "_splade_schema", "x" * 300, "é\n", ".", ""]
)
def test_names_of_configurations(name, monkeypatch):
    monkeypatch.setenv("SPLADE_CONFIG_NAME", name)
    if name:
        with pytest.raises(ConfigError):
            choose_config()
    with pytest.raises(ConfigError):
        choose_config({}, ["--config-name", name])


NEIGHBOURS = ("schema", "experiment", "_splade_schema", "_splade_experiment", "_splade_handed_over", "hydra/config")


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_neighbours_change_nothing(neighbour, command, tmp_path):
    written(tmp_path / f"own/{neighbour}.yaml", "config: {lr: 0.25, nonsense: 1}\nnonsense: 1\n")
    path = written(tmp_path / "own/config.yaml", "config: {seed: 7}\n")
    alone = compose_experiment(overrides=["config.seed=7"])
    for done in (command(config=path), command("--config-path=own", "--config-name=config")):
        assert done.experiments and done.experiments[0].config.seed == 7, done.err
        assert done.experiments[0].config.lr == Experiment().config.lr
    added = command("--config-dir=own", "config.seed=7")
    assert added.experiments == [alone], added.err


def test_what_lies_beside_a_file_handed_over_is_not_taken(command, tmp_path):
    written(tmp_path / "train/model/splade_tiny.yaml", "model_type_or_dir: other\n")
    path = written(tmp_path / "odd @ name=1.yaml", "defaults: [/config_default@_global_, _self_]\nconfig: {seed: 7}\n")
    done = command(config=path)
    assert done.experiments == [compose_experiment(overrides=["config.seed=7"])], done.err


def test_two_sources(monkeypatch, tmp_path):
    path = str(written(tmp_path / "config.yaml", "config: {lr: 1}"))
    for variable in ({"SPLADE_CONFIG_NAME": "config_default"}, {"SPLADE_CONFIG_FULLPATH": path}):
        for option in (
            ["--config-path", str(tmp_path)],
            [f"-cp={tmp_path}"],
            ["-cn", "config"],
            ["--config-name=config"],
        ):
            with pytest.raises(ConfigError, match="more than one"):
                choose_config(variable, option)
