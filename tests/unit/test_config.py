"""The configuration: what is chosen, what is refused, and what the errors say."""

import os
import re
import subprocess
import sys
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from splade.config import compose_experiment, require, schema, to_experiment
from splade.config.choose import choose_config, conf_folder, register, without_config_options
from splade.config.keys import ENTRY, members, schema_keys
from splade.config.record import save_config
from splade.config.renamed import RENAMED_GROUPS, RENAMED_KEYS
from splade.config.schema import Affects
from splade.errors import ConfigError


def composition_error(*overrides: str, name: str = "config_default") -> str:
    with pytest.raises(ConfigError) as caught:
        compose_experiment(name, list(overrides))
    return str(caught.value)


def test_overrides_by_key_and_by_group():
    experiment = compose_experiment("config_default", ["config.lr=0.5", "config.regularizer.FLOPS.lambda_q=0.25"])
    assert experiment.config.lr == 0.5
    assert experiment.config.regularizer["FLOPS"].lambda_q == 0.25
    assert compose_experiment("config_default", ["train/data=toy"]).data.type == "triplets"


def test_a_dictionary_replaces_a_sum_of_losses_and_a_key_changes_one():
    replaced = compose_experiment("config_splade_v3", ["config.loss={BPR: 2.0}"]).config.loss
    assert replaced == {"BPR": 2.0}
    changed = compose_experiment("config_splade_v3", ["config.loss.KlDiv=0.5"]).config.loss
    assert changed["KlDiv"] == 0.5 and len(changed) == 2


def test_zero_is_a_value():
    assert compose_experiment("config_default", ["config.seed=0"]).config.seed == 0


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("config.lerning_rate=1", ("unknown key 'config.lerning_rate'", "config.lr")),
        ("+config.lerning_rate=1", ("unknown key 'config.lerning_rate'", "config.lr")),
        ("config.max_lenght=1", ("config.max_lenght", "did you mean 'config.max_length'")),
        ("lr=1", ("did you mean 'config.lr'",)),
        ("config.regularizer.FLOPS.lamda_q=1", ("did you mean 'config.regularizer.FLOPS.lambda_q'",)),
        ("train/data=nonsense", ("no 'nonsense' in the group train/data", "toy")),
        ("config.lr=fast", ("config.lr", "'fast'")),
        ("config.top_k=0", ("config.top_k=0", "at least 1")),
        ("config.search_effort=1.5", ("config.search_effort=1.5", "above 0 and at most 1")),
        ("config.lr=nan", ("config.lr=nan", "must be a finite number, at least 0")),
        ("config.loss={KlDiv: inf}", ("config.loss.KlDiv=inf", "must be a finite number, above 0")),
        ("config.loss=[KlDiv]", ("config.loss=['KlDiv']", "allowed is str | {NAME: ...}")),
        ("runs=one.json", ("runs=one.json", "[...] | {NAME: ...} | null")),
        ("init_dict.agg=mean", ("init_dict.agg=mean", "max | sum")),
        ("config.index_dir=???", ("no value for config.index_dir",)),
        ("+init_dict.torch_compile=true", ("init_dict.torch_compile", "was removed")),
        ("config.regularizer={FLOPS: 3}", ("config.regularizer.FLOPS=3", "{reg, lambda_q")),
        ("data.TRAIN=file.tsv", ("data.TRAIN: ",)),
        ("config.regularizer=some", ("config.regularizer=some", "eval_only")),
        ("config.regularizer.FLOPS.lambda_q=much", ("config.regularizer.FLOPS.lambda_q",)),
    ],
)
def test_wrong_overrides_are_named(override, parts):
    message = composition_error(override)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("hf.training.learning_rate=1", "config.lr"),
        ("+hf.data.n_negatives=3", "config.n_negatives"),
        ("hf.num_train_epochs=3", "config.nb_epochs"),
        ("hf.nonsense=3", "conf/README.md"),
        ("train/data=vienna_triplets", "it is called distil_from_bm25 now"),
        ("train/model=distilbert", "it is called splade now"),
        ("train/config=toy", "it is called splade_toy now"),
    ],
)
def test_names_from_elsewhere_are_answered_with_those_here(override, name):
    assert name in composition_error(override)


def test_names_from_elsewhere_in_a_file_and_in_the_table(tmp_path):
    path = tmp_path / "theirs.yaml"
    path.write_text("hf:\n  training: {num_train_epochs: 5, T_d: 3, other: 1}\n")
    with pytest.raises(ConfigError, match=r"(?s)theirs.yaml: has a section 'hf'.*T_d: config.regularizer.FLOPS.T$"):
        register(choose_config({"SPLADE_CONFIG_FULLPATH": str(path)}))
    table = (conf_folder() / "README.md").read_text().partition("## Names from elsewhere")[2]
    rows = dict(re.findall(r"\| `([^`]+)`.*? \| `([^`]+)`", table))
    assert {name: now.split()[0].rstrip(",") for name, now in RENAMED_KEYS.items()}.items() <= rows.items()
    known = {key.name.replace(ENTRY, entry) for key in schema_keys() for entry in ("L1", "FLOPS")}
    assert {now.split()[0].partition("=")[0] for now in RENAMED_KEYS.values()} <= known
    for group, now in RENAMED_GROUPS.items():
        folder, _, option = group.rpartition("/")
        assert not (conf_folder() / f"{group}.yaml").exists()
        assert (conf_folder() / folder / f"{now.partition(',')[0]}.yaml").is_file()
        assert rows[f"{folder}={option}"] == f"{folder}={now.partition(',')[0]}"


def test_keys_of_a_regulariser_need_no_plus():
    changes = ["config.regularizer.FLOPS.targeted_rep=q", "config.regularizer.L1.lambda_q=1e-3"]
    regularizer = compose_experiment("config_default", changes).config.regularizer
    assert (regularizer["FLOPS"].targeted_rep, regularizer["L1"].lambda_q) == ("q", 1e-3)
    assert "did you mean 'FLOPS'" in composition_error("config.regularizer.FLOP.lambda_q=1")


def test_the_folder_of_the_triplets():
    def path(*overrides, name="config_splade"):
        return compose_experiment(name, list(overrides)).data.TRAIN.DATASET_PATH

    assert path("data.TRAIN_DATA_DIR=mine") == "mine"
    assert path("data.TRAIN.DATASET_PATH=mine.tsv") == "mine.tsv"
    assert path("data.TRAIN.DATASET_PATH=mine.tsv", "data.TRAIN_DATA_DIR=other") == "mine.tsv"
    assert path("data.TRAIN_DATA_DIR=mine", name="config_domain_adaptation") == "mine/mined/train/run.json"
    message = composition_error("data.TRAIN_DATA_DIR=mine", name="config_splade_v3")
    assert "nothing reads it" in message and "train/data=msmarco" in message
    assert path("data.TRAIN_DATA_DIR=mine", "train/data=distil_from_self", name="config_splade_v3") == "mine"
    saved = {"data": {"TRAIN_DATA_DIR": "old", "TRAIN": {"DATASET_PATH": "old"}}}
    assert to_experiment(OmegaConf.create(saved)).data.TRAIN.DATASET_PATH == "old"
    saved["data"]["TRAIN_DATA_DIR"] = "new"  # of those who take a saved configuration to other triplets
    again = to_experiment(OmegaConf.create(saved), frozenset({"data.TRAIN_DATA_DIR"}))
    assert again.data.TRAIN.DATASET_PATH == "new"


def test_plus_is_accepted_for_optional_keys():
    assert compose_experiment("config_default", ["+beir.dataset=scifact"]).beir.dataset == "scifact"
    assert compose_experiment("config_default", ["beir.dataset=scifact"]).beir.dataset == "scifact"
    composed = compose_experiment("config_default", ["+quantization_factor_document=100"])
    assert composed.quantization_factor_document == 100


def test_unknown_config_lists_what_there_is():
    message = composition_error(name="config_defalt")
    assert "did you mean 'config_default'" in message and str(conf_folder()) in message


def test_choice_by_environment(tmp_path):
    saved = tmp_path / "config.yaml"
    saved.write_text("config: {lr: 1.0}\n")
    assert choose_config({}).name == "config_default"
    assert choose_config({"SPLADE_CONFIG_NAME": "config_default.yaml"}).name == "config_default"
    assert choose_config({"SPLADE_CONFIG_FULLPATH": str(saved)}).path == saved
    assert choose_config({}, ["--config-name", "config_default"]).name == "config_default"
    assert choose_config({}, ["--config-path", str(tmp_path), "--config-name=config"]).path == saved


def test_two_sources_at_once_are_refused():
    both = {"SPLADE_CONFIG_NAME": "config_default", "SPLADE_CONFIG_FULLPATH": "/nowhere/config.yaml"}
    with pytest.raises(ConfigError, match="more than one"):
        choose_config(both)
    with pytest.raises(ConfigError, match="more than one"):
        choose_config({"SPLADE_CONFIG_NAME": "config_default"}, ["--config-name", "other"])


def test_missing_config_file_is_named_with_its_full_path(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}/config.yaml"):
        choose_config({"SPLADE_CONFIG_FULLPATH": str(tmp_path / "config.yaml")})
    with pytest.raises(ConfigError, match="it is a folder"):
        choose_config({"SPLADE_CONFIG_FULLPATH": str(tmp_path)})
    (tmp_path / "broken.yaml").write_text("config: {lr: 1\n")
    with pytest.raises(ConfigError, match=r"broken.yaml: not a readable YAML file .*line 2"):
        register(choose_config({"SPLADE_CONFIG_FULLPATH": str(tmp_path / "broken.yaml")}))


def test_config_options_are_taken_off_the_command_line():
    given = ["--config-name", "a", "config.lr=1", "--config-path=/x", "--multirun"]
    assert without_config_options(given) == ["config.lr=1", "--multirun"]


def test_require_names_every_missing_key():
    experiment = compose_experiment("config_default", ["config.index_dir=null", "data.COLLECTION_PATH=null"])
    with pytest.raises(ConfigError, match="config.index_dir, data.COLLECTION_PATH"):
        require(experiment, "config.index_dir", "data.COLLECTION_PATH", "config.out_dir")


def test_saved_config_composes_to_the_same(tmp_path):
    experiment = compose_experiment("config_default", ["config.seed=5", "config.loss={KlDiv: 0.99, Contrastive: 0.01}"])
    save_config(experiment, tmp_path)
    again = to_experiment(OmegaConf.load(tmp_path / "config.yaml"))
    assert asdict(again) == asdict(experiment)


def test_a_config_that_an_earlier_version_saved_can_be_used(tmp_path):
    experiment = compose_experiment("config_default", ["config.seed=5"])
    save_config(experiment, tmp_path)
    saved = OmegaConf.load(tmp_path / "config.yaml")
    saved.init_dict.torch_compile, saved.beir.keep_vectors = False, None
    OmegaConf.save(saved, tmp_path / "config.yaml")
    assert to_experiment(saved) == experiment
    task = ["-m", "splade.train", "--cfg", "job", "config.lr=0.5"]
    command = [sys.executable, *task]
    environment = os.environ | {
        "SPLADE_CONFIG_FULLPATH": str(tmp_path / "config.yaml"),
        "PYTHONPATH": str(conf_folder().parent),
    }
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    experiment.config.lr = 0.5
    assert to_experiment(OmegaConf.create(done.stdout)) == experiment
    saved.init_dict.torch_compile = True
    with pytest.raises(ConfigError, match="torch_compile.*removed"):
        to_experiment(saved)


def test_every_key_is_described_and_says_what_it_affects():
    keys = list(schema_keys())
    assert len(keys) > 60
    assert all(key.help and isinstance(key.affects, Affects) for key in keys)
    assert len({key.name for key in keys}) == len(keys)
    with pytest.raises(TypeError, match="affects"):
        schema.key("a key that does not say it")


NUMBERS = {key.name: key for key in schema_keys() if {int, float} & set(members(key.annotation))}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_two_ends(name):
    bounds, whole = NUMBERS[name].bounds, int in members(NUMBERS[name].annotation)
    step = 1 if whole else 1e-9
    wrong = [-1, 2**32] if whole else [-1, "nan", "inf", "-inf"]
    wrong += [end for end in (bounds.above, bounds.below) if end is not None]
    wrong += [bounds.maximum + step] if bounds.maximum is not None else []
    wrong += [bounds.minimum - step] if bounds.minimum is not None else []
    name = name.replace("<NAME>", "FLOPS")
    for value in wrong:
        with pytest.raises(ConfigError, match="must be") as caught:
            to_experiment(OmegaConf.from_dotlist([f"{name}={value}"]))
        assert str(caught.value).startswith(f"{name}=")
    allowed = next(number for number in (5, 0.5, 500) if number in bounds)
    to_experiment(OmegaConf.from_dotlist([f"{name}={allowed}"]))


def test_importing_the_package_reads_no_environment(tmp_path):
    code = "import splade, splade.config.choose, splade.train, splade.index, splade.evaluate; print('imported')"
    environment = {"SPLADE_CONFIG_NAME": "nonsense", "SPLADE_CONFIG_FULLPATH": "/nonsense", "PATH": "/usr/bin:/bin"}
    environment["PYTHONPATH"] = str(conf_folder().parent)
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "imported", done.stderr
    assert not list(tmp_path.iterdir())


def test_help_needs_no_slow_library():
    package = conf_folder().parent / "splade"
    commands = [path.stem for path in package.glob("*.py") if "run_task(" in path.read_text()]
    code = f"""if True:
        import importlib, runpy, sys
        import splade
        assert "hydra" not in sys.modules
        for command in {commands}:
            importlib.import_module(f"splade.{{command}}")
        sys.argv = ["train", "--help"]
        try:
            runpy.run_path({str(package / "train.py")!r}, run_name="__main__")
        finally:
            assert not {{"torch", "transformers", "numba", "numpy", "h5py", "scipy"}} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(commands) > 10 and "config.max_length (int, 256; at least 2)" in done.stdout
