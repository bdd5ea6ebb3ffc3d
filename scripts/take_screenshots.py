"""Take the pictures of the search page that README and docs show: python scripts/take_screenshots.py.

An index of the toy collection is served, and Chromium takes the page at the width of a desktop and of a phone.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import splade

ROOT = Path(__file__).resolve().parents[1]
QUERY = "why is the sky blue"
PICTURES = {"search_page.png": "1100,1250", "search_page_phone.png": "500,1150"}
"""File to window; Chromium makes no window narrower than 500."""


def main() -> None:
    """Write the pictures to docs/."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        model = splade.load("pkg://cognition/model")
        splade.Index.build(Path(folder) / "toy", model, "pkg://splade/data/toy/collection", store_texts=True)
        command = [sys.executable, "-m", "splade.serve", f"{folder}/toy", "serve.port=0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert server.stdout is not None
            address = next(line.split()[-1] for line in server.stdout if "documents at http" in line)
            for file, size in PICTURES.items():
                profile = Path(folder) / f"browser-{file}"
                take(browser, f"{address}?q={quote(QUERY)}", ROOT / "docs" / file, size, profile)
        finally:
            server.terminate()
            server.wait(20)


def take(browser: str, address: str, picture: Path, size: str, profile: Path) -> None:
    """Take a picture of a page when it has come to rest."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}"]
    command += ["--virtual-time-budget=8000", f"--user-data-dir={profile}", f"--screenshot={picture}", address]
    subprocess.run(command, capture_output=True, timeout=120, check=True)


if __name__ == "__main__":
    main()
