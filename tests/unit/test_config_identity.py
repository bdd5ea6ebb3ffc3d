"""What may be used again: what follows from what the schema says a key affects."""

from dataclasses import asdict, dataclass, field
from functools import reduce

import pytest

from splade.config.identity import affects_of, recorded_settings, settings_affecting
from splade.config.keys import schema_keys
from splade.config.schema import Affects, Experiment, RegularizerConfig, RunConfig, key
from splade.config.sweep import MODEL_KEY, folder_name, swept_settings
from splade.errors import ConfigError
from splade.storage.atomic import read_json, write_json
from splade.training.run_folder import RunFolder

TRAIN, INDEX, SEARCH, BM25, MODEL = Affects.TRAIN, Affects.INDEX, Affects.SEARCH, Affects.BM25, Affects.MODEL


def changed(name: str, value: object) -> Experiment:
    """The defaults with one regulariser, and one key changed."""
    experiment = Experiment(config=RunConfig(regularizer={"FLOPS": RegularizerConfig(lambda_d=0.1)}))
    *sections, leaf = name.replace("<NAME>", "FLOPS").split(".")
    target = reduce(
        lambda place, part: place[part] if isinstance(place, dict) else getattr(place, part), sections, experiment
    )
    assert hasattr(target, leaf)
    setattr(target, leaf, value)
    return experiment


PLAIN = changed("config.seed", 123)


@pytest.mark.parametrize("name", [key.name for key in schema_keys()])
def test_a_key_changes_what_it_affects_and_nothing_else(name):
    key = next(key for key in schema_keys() if key.name == name)
    other = changed(name, "another")
    for flag in Affects:
        for names_files in (True, False):
            counts = flag in key.affects and (names_files or not key.names_files)
            same = settings_affecting(other, flag, names_files) == settings_affecting(PLAIN, flag, names_files)
            assert same != counts, flag
    assert affects_of(name.replace("<NAME>", "FLOPS")) & key.affects == key.affects


def test_settings_that_identify():
    names = {flag: {name for name in settings_affecting(PLAIN, flag, names_files=False)} for flag in Affects}
    assert names[MODEL] == {
        *("init_dict.agg", "init_dict.top_d", "init_dict.top_q", "init_dict.lexical_type", "config.matching_type"),
        *("init_dict.activation", "init_dict.attention", "init_dict.repeat_text", "config.prompt_q", "config.prompt_d"),
    }
    assert names[BM25] == {f"bm25.{leaf}" for leaf in ("k1", "b", "method", "stemmer", "stopwords")} | {
        *("config.top_k", "beir.split")
    }
    assert names[INDEX] == names[MODEL] - {"init_dict.top_q", "config.prompt_q"} | {
        *("init_dict.fp16", "init_dict.precision", "init_dict.backend", "init_dict.head_divisor", "config.max_length"),
        *("config.n_shards", "data.VOCABULARY"),
    }
    assert {"config.top_k", "config.threshold", "config.search_effort", "config.max_length"} < names[SEARCH]
    assert not {"config.lr", "config.out_dir", "beir.baseline"} & (names[SEARCH] | names[INDEX])
    assert {"config.lr", "config.regularizer.FLOPS.lambda_d", "data.TRAIN.DATASET_PATH"} < set(
        settings_affecting(PLAIN, TRAIN)
    )


def test_values_that_are_not_there():
    """No regulariser, no validation by ranking, and keys that did not exist when a record was written."""
    for name, value in (("config.regularizer", None), ("data.VALIDATION_FULL_RANKING", None)):
        settings = settings_affecting(changed(name, value), TRAIN)
        assert settings[name] is None and not any(other.startswith(f"{name}.") for other in settings)
    record = asdict(PLAIN)
    for section, leaf in (("config", "bf16"), ("config", "patience"), ("data", "VALIDATION_FULL_RANKING")):
        del record[section][leaf]
    del record["config"]["regularizer"]["FLOPS"]["targeted_rep"]
    record["init_dict"]["a_key_of_former_times"] = True
    assert recorded_settings(record, TRAIN) == settings_affecting(PLAIN, TRAIN)


def test_overwrite_final_of_an_earlier_version_meant_overwrite():
    record = asdict(PLAIN)
    del record["config"]["overwrite"]
    record["config"]["overwrite_final"] = True
    assert recorded_settings(record, TRAIN)["config.overwrite_final"] is False


@dataclass
class LaterRun(RunConfig):
    """The run section of a later version."""

    screen: int = key("a new key of searching", 3, affects=SEARCH)
    dropout: float = key("a new key of training", 0.1, affects=TRAIN)


@dataclass
class LaterExperiment(Experiment):
    """The experiment of a later version."""

    config: LaterRun = field(default_factory=LaterRun)


@pytest.fixture
def finished(tmp_path):
    """The checkpoint folder of a finished run of this version."""
    folder = RunFolder(Experiment(config=RunConfig(checkpoint_dir=str(tmp_path), lr=0.5)))
    folder.start()
    (tmp_path / "model").mkdir()
    folder.finish({"steps": 1})
    return tmp_path


def later_run(folder, **changes) -> RunFolder:
    return RunFolder(LaterExperiment(config=LaterRun(checkpoint_dir=str(folder), **{"lr": 0.5} | changes)))


def test_keys_added_later_leave_a_finished_training_run_valid(finished):
    for changes in ({}, {"screen": 5}, {"search_effort": 0.5, "top_k": 7, "out_dir": "elsewhere", "n_threads": 2}):
        assert later_run(finished, **changes).outcome() == {"steps": 1}
    with pytest.raises(ConfigError, match=r"config.dropout was 0.1, is 0.2\)"):
        later_run(finished, dropout=0.2).outcome()
    with pytest.raises(ConfigError, match=r"config.lr was 0.5, is 0.25\)"):
        later_run(finished, lr=0.25).outcome()
    assert later_run(finished, lr=0.25, overwrite=True).outcome() is None


def test_a_run_folder_of_an_older_version_is_recognised(finished):
    """Then only what training depended on was written down, without knowing keys that came later."""
    done = read_json(finished / "training_done.json")
    old = {name: done["settings"][name] for name in ("init_dict", "config", "data")}
    for name in ("checkpoint_dir", "index_dir", "out_dir", "top_k", "search_effort", "n_threads"):
        del old["config"][name]
    write_json(finished / "training_done.json", done | {"settings": old})
    assert later_run(finished).outcome() == {"steps": 1}
    with pytest.raises(ConfigError, match="config.seed was 123, is 7"):
        later_run(finished, seed=7).outcome()


def test_folders_of_the_jobs_of_a_sweep():
    swept = {
        **{"beir.dataset": "scifact", "beir.reference": "x", "bm25.k1": "1.2", "config.out_dir": "o"},
        **{"config.search_effort": "0.5", "config.lr": "0.1", "config.regularizer.FLOPS.lambda_d": "3"},
        MODEL_KEY: "naver/splade-v3",
    }
    assert folder_name(swept, INDEX) == "naver_splade-v3"
    assert folder_name(swept, INDEX | SEARCH) == "naver_splade-v3__search_effort-0.5"
    assert folder_name(swept, BM25) == "k1-1.2"
    assert folder_name({"beir.dataset": "scifact"}, INDEX | SEARCH) == ""
    assert set(swept_settings(swept, TRAIN)) == {MODEL_KEY, "config.lr", "config.regularizer.FLOPS.lambda_d"}
    # A group may set any key, and what is not in the schema is no reason to share a folder.
    assert folder_name({"train/model": "distilbert"}, INDEX) == "train_model-distilbert"
