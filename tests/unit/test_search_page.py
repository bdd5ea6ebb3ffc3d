"""The page in a real browser, headless: it asks, shows, marks, switches, and never takes a text for markup."""

import sys
from pathlib import Path

import pytest
from test_server import TEXTS, Running, Texts

import splade
from splade.server.app import Server
from splade.server.service import SearchService

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from headless_browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

DESKTOP, PHONE = (1200, 900), (390, 800)
AT_REST = "!document.body.hasAttribute('aria-busy') && document.querySelector('.hits > li')"
DOC_IDS = (
    "[...document.querySelectorAll('.hits')].map(list => [...list.querySelectorAll('.head')].map(h => h.innerText))"
)


@pytest.fixture(scope="module")
def address(tiny_model, tmp_path_factory):
    """A server of two models."""
    folder = tmp_path_factory.mktemp("served")
    services = {}
    for seed, name in enumerate(("first", "second")):
        model = splade.load(str(tiny_model(seed=seed)))
        splade.Index.build(folder / name, model, TEXTS.items())
        services[name] = SearchService(model, folder / name, lambda _: Texts(), kept_queries=10)
    running = Running(Server(services))
    yield f"http://localhost:{running.port}/"
    running.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def number_of(browser, selector):
    return browser.run(f"document.querySelectorAll('{selector}').length")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_shows_what_was_found(browser, address, size):
    browser.resize(*size)
    browser.open(f"{address}?q=why+is+the+sky+blue", AT_REST)
    assert number_of(browser, ".chip") > 5 and number_of(browser, "details") == 10
    shown = browser.run("document.body.innerText")
    assert f"of {len(TEXTS)} documents in" in shown and f"{len(TEXTS)} documents ·" in shown
    assert number_of(browser, ".hits script, .hits b") == 0 and number_of(browser, ".panel") == 1
    assert browser.run("document.documentElement.scrollWidth") <= size[0]


def test_terms_are_left_out_and_weighted_with_the_keyboard_alone(browser, address):
    browser.resize(*DESKTOP)
    browser.open(f"{address}?q=cats+at+night", AT_REST)
    first = browser.run("document.querySelector('.chip .name').dataset.key")
    before = browser.run("document.querySelector('.figures').textContent")
    browser.run("document.querySelector('.chip .name').focus()")
    browser.press("Enter", 13, "\r")
    browser.wait(f"{AT_REST} && document.querySelector('.chip.off')")
    assert browser.run("document.querySelector('.chip.off .name').getAttribute('aria-pressed')") == "false"
    assert browser.run("document.activeElement.dataset.key") == first  # the focus stays where it was
    assert browser.run("document.querySelector('.figures').textContent") != before
    browser.run("[...document.querySelectorAll('.chips .extra')].pop().focus()")
    browser.press(" ", 32, " ")
    browser.wait(f"{AT_REST} && !document.querySelector('.chip.off')")
    browser.press("/", 191, "/")
    assert browser.run("document.activeElement.id") == "query" and browser.run("$('query').value") == "cats at night"


def test_where_no_term_is_left_the_page_says_so(browser, address):
    browser.open(f"{address}?q=air", AT_REST)
    browser.run("panels[0].factors = Object.fromEntries(panels[0].answer.expansion.map(t => [t.token, 0])); search()")
    browser.wait("document.querySelector('.nothing')")
    assert "No document" in browser.run("document.querySelector('.hits').innerText")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_models_are_switched_and_shown_beside_each_other(browser, address, size):
    browser.resize(*size)
    browser.open(f"{address}?q=why+is+the+sky+blue", AT_REST)
    assert browser.run("$('model').labels[0].innerText.trim()").startswith("Model") and not browser.run(
        "document.querySelector('.of-many').hidden"
    )
    of_first = browser.run(DOC_IDS)
    browser.run("$('model').focus()")
    browser.press("ArrowDown", 40)
    browser.wait(f"{AT_REST} && panels[0].model === 'second' && panels[0].answer")
    of_second = browser.run(DOC_IDS)
    assert of_second != of_first and "model=second" in browser.run("location.search")
    browser.open(f"{address}?q=why+is+the+sky+blue&model=second&beside=first", AT_REST)
    browser.wait("document.querySelectorAll('.panel .hits > li').length === 20")
    both = browser.run(DOC_IDS)
    assert [[head.split("\n")[0] for head in heads] for heads in both] == [
        [head.split("\n")[0] for head in heads] for heads in of_second + of_first
    ]
    assert all("only here" in head or "beside: " in head for heads in both for head in heads)
    left = browser.run("[...document.querySelectorAll('.panel')].map(panel => panel.getBoundingClientRect().left)")
    assert (left[0] < left[1]) == (size == DESKTOP)  # a phone has them one below the other
    assert browser.run("document.documentElement.scrollWidth") <= size[0]


def test_what_goes_wrong_is_shown(browser, address):
    browser.open(address, "document.getElementById('served').textContent.includes('documents')")
    browser.run("$('query').value = 'x'.repeat(20000); search()")
    browser.wait("!$('message').hidden")
    assert "at most 10000" in browser.run("$('message').textContent")
    browser.run("window.fetch = () => Promise.reject(new TypeError('gone')); $('query').value = 'air'; search()")
    browser.wait("$('message').textContent.includes('does not answer')")
