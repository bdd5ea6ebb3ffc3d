"""Take the pictures of the search page that README and docs show: python scripts/take_screenshots.py.

The toy collection is served, as an index and pruned to a few terms per document, and Chromium takes the page.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from headless_browser import Browser

import splade

ROOT = Path(__file__).resolve().parents[1]
QUERY = "why is the sky blue"
PICTURES = {
    "search_page.png": (1100, 1180, False, {"q": QUERY}),
    "search_page_phone.png": (390, 1150, True, {"q": QUERY}),
    "search_page_two.png": (1100, 860, False, {"q": QUERY, "beside": "short"}),
}
"""File to width and height, dark mode, and what the address asks."""
AT_REST = (
    "!document.body.hasAttribute('aria-busy') && "
    "[...document.querySelectorAll('.panel')].every(panel => panel.querySelector('.source')) && "
    "document.querySelector('.panel')"
)


def main() -> None:
    """Write the pictures to docs/."""
    with tempfile.TemporaryDirectory() as folder:
        for name, max_length in (("whole", None), ("short", 12)):
            model = splade.load("pkg://cognition/model", max_length=max_length)
            splade.Index.build(f"{folder}/{name}", model, "pkg://splade/data/toy/collection", store_texts=True)
        command = [sys.executable, "-m", "splade.serve", f"{folder}/whole", "serve.port=0"]
        command.append(f"serve.others=[{folder}/short]")
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert server.stdout is not None
            address = next(line.split()[-1] for line in server.stdout if "documents at http" in line)
            with Browser(Path(folder) / "browser") as browser:
                for file, (width, height, dark, asked) in PICTURES.items():
                    browser.resize(width, height, dark)
                    browser.open(f"{address}?{urlencode(asked)}", AT_REST)
                    browser.picture(ROOT / "docs" / file)
        finally:
            server.terminate()
            server.wait(20)


if __name__ == "__main__":
    main()
