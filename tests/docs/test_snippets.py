"""Every command and every Python example of the pages does what it says, or the page says why it is not tried.

`bash` blocks are run by bash in one folder with the toy data, page by page; `python` blocks of a page run in one
process. A comment right above a block changes that:

    <!-- not run: REASON -->          nothing is tried
    <!-- composed only: REASON -->    the commands only compose and check their configuration: no key is wrong
    <!-- file: PATH -->               the block is the content of a file, which later blocks use

Training takes two steps and texts are cut at 16 tokens, so that everything takes seconds; see `command_server`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from snippets import COMPOSE, FILE, PAGES, ROOT, RUN, SKIP, Block, blocks

import splade

pytestmark = pytest.mark.skipif(not hasattr(splade, "load"), reason="needs the front door")
TOY = ROOT / "data" / "toy"
SMALL_SETTINGS = (
    "config.max_length=16 config.nb_iterations=2 config.warmup_steps=0 config.train_batch_size=4 "
    "config.record_frequency=2 config.fp16=false config.n_threads=1"
)
SHELLS, LANGUAGES = ("bash",), ("bash", "python", "yaml", "text", "json", "toml", "")


@pytest.fixture(scope="module")
def shell(fast_python, tmp_path_factory):
    """A function that runs a script by bash, with a fast `python`, in a folder with data."""
    work = tmp_path_factory.mktemp("work")
    make_data(work)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPLADE_", "HYDRA_"))}
    clean |= {"PATH": f"{fast_python.parent}{os.pathsep}{os.environ['PATH']}", "SMALL_SETTINGS": SMALL_SETTINGS}

    def run(script: str, action: str = RUN) -> str:
        mode = "compose" if action == COMPOSE else "run"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=work,
            env=clean | {"SNIPPETS": mode, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    run.work = work
    run("python -m splade.all")  # the toy pipeline, whose results many pages look at
    return run


def make_data(work: Path) -> None:
    """Lay out what the pages call one's own data: `my/`, and a BEIR folder `data/beir/scifact`, both of toy texts."""
    for name in ("scripts", "conf"):
        (work / name).symlink_to(ROOT / name)
    shutil.copytree(TOY, work / "data" / "toy")
    (work / "my").mkdir()
    for name, source in (
        ("collection", "collection"),
        ("queries", "queries/heldout"),
        ("train_queries", "queries/train"),
    ):
        shutil.copy(TOY / source / "raw.tsv", work / "my" / f"{name}.tsv")
    shutil.copy(TOY / "qrels" / "heldout.json", work / "my" / "qrels.json")
    shutil.copy(TOY / "qrels" / "train.json", work / "my" / "train_qrels.json")
    shutil.copy(TOY / "triplets" / "raw.tsv", work / "my" / "triplets.tsv")
    new = "n1\tBees eat nectar and pollen.\nn2\tAnts keep aphids for honeydew.\n"
    (work / "my" / "new_documents.tsv").write_text(new, encoding="utf-8")
    shutil.copytree(Path(_spec_folder("cognition")) / "model", work / "my" / "model")
    beir = work / "data" / "beir" / "scifact"
    (beir / "qrels").mkdir(parents=True)
    _write_lines(beir / "corpus.jsonl", [{"_id": i, "title": "", "text": text} for i, text in _rows("collection")])
    queries = [row for split in ("train", "heldout") for row in _rows(f"queries/{split}")]
    _write_lines(beir / "queries.jsonl", [{"_id": i, "text": text} for i, text in queries])
    for split, name in (("train", "train"), ("heldout", "test")):
        qrels = json.loads((TOY / "qrels" / f"{split}.json").read_text())
        rows = [f"{query}\t{doc}\t{grade}" for query, docs in qrels.items() for doc, grade in docs.items()]
        (beir / "qrels" / f"{name}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


def _rows(name: str) -> list[list[str]]:
    lines = (TOY / name / "raw.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t", 1) for line in lines]


def _write_lines(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _spec_folder(package: str) -> str:
    import importlib.util

    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations, "install the extra 'tiny': pip install .[tiny]"
    return spec.submodule_search_locations[0]


def name_of(page: Path) -> str:
    """Return the path of a page within the checkout."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_shows_works(page: Path, shell):
    found = blocks(page)
    for block in found:
        if block.action == FILE:
            path = shell.work / block.note
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    for block in found:
        if block.language in SHELLS and block.action in (RUN, COMPOSE):
            try:
                shell(block.text, block.action)
            except AssertionError as error:
                raise AssertionError(f"{name_of(page)}:{block.line}\n{error}") from None
    python = [block for block in found if block.language == "python" and block.action == RUN]
    if python:
        script = shell.work / f"{page.stem}_examples.py"
        script.write_text(one_script(python), encoding="utf-8")
        shell(f"python {script.name}")


def one_script(python: list[Block]) -> str:
    """Join the Python blocks of a page; lines keep their numbers, so that errors name those of the page."""
    lines: list[str] = []
    for block in python:
        lines += [""] * (block.line - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_marked_properly(page: Path):
    for block in blocks(page):
        place = f"{name_of(page)}:{block.line}"
        assert block.language in LANGUAGES, f"{place}: ```{block.language} is not one of {LANGUAGES}"
        if block.action in (SKIP, COMPOSE):
            assert len(block.note.split()) >= 2, f"{place}: say why in a few words"
        if block.action == COMPOSE:
            assert block.language in SHELLS, f"{place}: only shell blocks are composed"
