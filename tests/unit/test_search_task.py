"""One question on the terminal: an index knows its model and its texts, and nothing else is named."""

import io
import json
import shutil
import sys

import pytest

import splade
from splade.config import compose_experiment
from splade.config.arguments import hydra_arguments
from splade.errors import ConfigError, IndexFileError, ModelError
from splade.retrieval.origin import ORIGIN_FILE, TEXTS_FILE, read_origin
from splade.tasks.index import index
from splade.tasks.retrieve import retrieve
from splade.tasks.search import search
from splade.tasks.update import update

TEXTS = {
    "d1": "A cat sat on the mat.",
    "d2": "Dogs bark at night.",
    "d3": "Bees make honey from nectar; honeybees \x1b[2J dance.",
}


def run(task, *arguments):
    return task(compose_experiment("own_data", hydra_arguments(list(map(str, arguments)), task.__name__)))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A collection, a model in a folder, and an index of the one by the other."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "docs.tsv").write_text("".join(f"{doc_id}\t{text}\n" for doc_id, text in TEXTS.items()))
    model = [f"init_dict.model_type_or_dir={splade_tiny_folder()}", "config.max_length=32"]
    run(index, *model, f"data.COLLECTION_PATH={folder}/docs.tsv", f"config.index_dir={folder}/index")
    return folder


def splade_tiny_folder():
    from splade.storage.paths import resolve_path

    return resolve_path("pkg://cognition/model")


@pytest.fixture
def folder(built, tmp_path):
    """A copy of them that a test may change."""
    shutil.copytree(built / "index", tmp_path / "index")
    shutil.copy(built / "docs.tsv", tmp_path / "docs.tsv")
    return tmp_path


def test_a_question_and_nothing_else(folder, capsys):
    run(search, folder / "index", "what's honey, and who makes it?", "config.top_k=2")
    first, text, *others = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "1." and first.split()[2] == "d3" and float(first.split()[1]) > 0
    assert "*honey*" in text and "*honeybees* \\x1b[2J" in text
    assert others[-2].startswith("2 documents in ") and others[-2].endswith(" ms")


def test_matching_words_are_bold_on_a_terminal(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    run(search, folder / "index", "honey")
    out = capsys.readouterr().out
    assert "\x1b[1mhoney\x1b[0m" in out and "\x1b[2J" not in out


@pytest.mark.parametrize("arguments", [["-"], []])
def test_queries_of_standard_input(folder, capsys, monkeypatch, arguments):
    monkeypatch.setattr(sys, "stdin", io.StringIO("dogs\n\ncats\n"))
    run(search, folder / "index", *arguments, "config.top_k=1")
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[1].split()[2]] == ["dogs", "d2"]
    assert [line.split()[2] for line in lines if line.startswith("  1.")] == ["d2", "d1"] and "cats" in lines


def test_a_prompt_remembers_what_was_typed(folder, capsys, monkeypatch, tmp_path):
    typed = iter(["dogs", ""])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed, None) or _end())
    run(search, folder / "index")
    assert capsys.readouterr().out.splitlines()[0].split()[2] == "d2"
    assert (tmp_path / "cache" / "splade" / "search_history").is_file()


def _end():
    raise EOFError


def test_texts_that_are_gone_are_said_to_be_and_can_be_named(folder, built, capsys):
    origin = json.loads((folder / "index" / ORIGIN_FILE).read_text())
    origin["collections"] = [str(folder / "gone.tsv")]
    (folder / "index" / ORIGIN_FILE).write_text(json.dumps(origin))
    run(search, folder / "index", "honey")
    out = capsys.readouterr().out
    assert "texts are not shown" in out and "gone.tsv: no such file" in out and "d3" in out
    run(search, folder / "index", "honey", f"data.COLLECTION_PATH={folder}/docs.tsv")
    assert "*honey*" in capsys.readouterr().out


def test_texts_are_stored_on_request_and_follow_updates(folder, capsys):
    made = ["init_dict.model_type_or_dir=pkg://cognition/model", f"data.COLLECTION_PATH={folder}/docs.tsv"]
    run(index, *made, f"config.index_dir={folder}/own", "config.store_texts=true", "config.max_length=32")
    (folder / "docs.tsv").unlink()
    (folder / "new.tsv").write_text("n1\tHoney is sweet.\n")
    run(update, f"config.index_dir={folder}/own", f"add={folder}/new.tsv", "delete=d1")
    (folder / "new.tsv").unlink()
    (folder / "own").rename(folder / "moved")
    run(search, folder / "moved", "sweet honey", "config.top_k=2")
    out = capsys.readouterr().out
    assert "*Honey* is *sweet*." in out and "Bees make *honey*" in out and "not shown" not in out
    kept = [json.loads(line)["_id"] for line in (folder / "moved" / TEXTS_FILE).read_text().splitlines()]
    assert kept == ["d2", "d3", "n1"]


def test_texts_that_are_no_longer_asked_for_are_removed(folder):
    made = ["init_dict.model_type_or_dir=pkg://cognition/model", f"data.COLLECTION_PATH={folder}/docs.tsv"]
    for stored in ("true", "false"):
        run(index, *made, f"config.index_dir={folder}/own", f"config.store_texts={stored}", "config.max_length=32")
        assert (folder / "own" / TEXTS_FILE).is_file() is (stored == "true")
    assert read_origin(folder / "own").collections == (str(folder / "docs.tsv"),)


def test_an_update_adds_where_the_new_texts_are(folder, capsys):
    (folder / "new.tsv").write_text("n1\tHoney is sweet.\n")
    run(update, f"config.index_dir={folder}/index", f"add={folder}/new.tsv")
    assert read_origin(folder / "index").collections[-1] == str(folder / "new.tsv")
    run(search, folder / "index", "sweet honey")
    assert "*Honey* is *sweet*." in capsys.readouterr().out


def test_queries_are_retrieved_with_the_model_of_the_index(folder):
    (folder / "q.tsv").write_text("q1\tdogs\n")
    own = [f"data.Q_COLLECTION_PATH={folder}/q.tsv", f"config.index_dir={folder}/index", f"config.out_dir={folder}/out"]
    run(retrieve, *own)
    assert next(iter(json.loads((folder / "out" / "q" / "run.json").read_text())["q1"])) == "d2"


def test_pairs_from_a_program_and_texts_on_request(tmp_path):
    model = splade.load("pkg://cognition/model", max_length=32)
    made = splade.Index.build(tmp_path / "index", model, list(TEXTS.items()), store_texts=True)
    made.add([("n1", "Honey is sweet.")])
    assert (tmp_path / "index" / TEXTS_FILE).read_text().count("\n") == 4
    with pytest.raises(ConfigError, match="read twice"):
        splade.Index.build(tmp_path / "other", model, iter(TEXTS.items()), store_texts=True)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (None, ConfigError, "does not say which model made it; give init_dict.model_type_or_dir"),
        ({"model": {"init_dict.model_type_or_dir": "/gone/model"}}, ModelError, "was made with this model; if it is"),
        ({"model": {"init_dict.agg": "mean"}}, IndexFileError, "origin.json: not what indexing writes"),
        ({"model": {"init_dict.model_type_or_dir": "${oc.env:HOME}"}}, IndexFileError, "not what indexing writes"),
        ({"max_length": "many"}, IndexFileError, "not what indexing writes"),
        ({"collections": None}, IndexFileError, "not what indexing writes"),
    ],
)
def test_an_origin_that_does_not_help(folder, change, kind, message):
    path = folder / "index" / ORIGIN_FILE
    origin = json.loads(path.read_text())
    path.unlink()
    if change is not None:
        path.write_text(
            json.dumps(
                origin
                | {"model": origin["model"] | change.get("model", {})}
                | {name: value for name, value in change.items() if name != "model"}
            )
        )
    with pytest.raises(kind, match=message):
        run(search, folder / "index", "honey")


def test_a_model_that_is_named_is_used(folder, tiny_model):
    with pytest.raises(IndexFileError, match="an index over 30522 terms, the model"):
        run(search, folder / "index", "honey", f"init_dict.model_type_or_dir={tiny_model()}")
