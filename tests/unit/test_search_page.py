"""The page in a real browser, headless: it asks, shows, marks, and never takes a text for markup."""

import shutil
import subprocess

import pytest
from test_server import TEXTS, Running, Texts

import splade
from splade.server.app import Server
from splade.server.service import SearchService

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


def page_after_search(port, query, size, tmp_path):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={size}", "--dump-dom"]
    command += ["--virtual-time-budget=8000", f"--user-data-dir={tmp_path}", f"http://localhost:{port}/?q={query}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("size", ["1200,900", "390,800"])
def test_the_page_shows_what_was_found(tiny_model, tmp_path, size):
    model = splade.load(str(tiny_model()))
    splade.Index.build(tmp_path / "index", model, TEXTS.items())
    running = Running(Server(SearchService(model, tmp_path / "index", Texts())))
    try:
        page = page_after_search(running.port, "why+is+the+sky+blue", size, tmp_path / "browser")
    finally:
        running.stop()
    assert page.count('class="chip') > 5 and page.count("terms made this score") == 10
    assert "of 61 documents in" in page and f"{len(TEXTS)} documents ·" in page
    assert "<script>alert" not in page and "<b>x</b>" not in page
