"""Chromium without a window, told what to do over a pipe in the DevTools protocol."""

import base64
import json
import os
import shutil
import signal
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 20_000


class Browser:
    """One page. Use it as a context manager.

    Args:
        profile: folder for what the browser writes.
    """

    def __init__(self, profile: Path):
        if CHROMIUM is None:
            raise SystemExit("needs Chromium: apt-get install chromium")
        heard, self._speaking = os.pipe()
        self._hearing, told = os.pipe()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        # The browser listens at file number 3 and answers at 4; the copies are above both.
        ends = [(fcntl(heard, F_DUPFD, 10), 3), (fcntl(told, F_DUPFD, 10), 4)]
        quiet = [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
        actions = [(os.POSIX_SPAWN_DUP2, end, place) for end, place in ends]
        self._process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=[*quiet, *actions])
        for end in (heard, told, *(end for end, _ in ends)):
            os.close(end)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        page = next(one for one in self._do("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self._do("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self._do("Page.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._speaking)
        os.close(self._hearing)
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """Show the page in a window of so many CSS pixels, as a system in light or dark mode does."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._do("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._do("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str, until: str) -> None:
        """Open an address, and wait until a JavaScript expression is true of it."""
        self._do("Page.navigate", url=address)
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until a JavaScript expression is true."""
        found = self.run(
            f"""new Promise((done) => {{
                const last = Date.now() + {PATIENCE_MS};
                const look = () => {{
                    try {{ if ({until}) return done(true); }} catch (error) {{ /* not there yet */ }}
                    if (Date.now() > last) done(false); else setTimeout(look, 10);
                }};
                look();
            }})"""
        )
        if found is not True:
            raise TimeoutError(f"never true: {until}; the page says {self.run('document.body.innerText')!r}")

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or of what it promises."""
        # A page that is just being left answers no question.
        for _ in range(3):
            answer = self._do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
            if "result" in answer:
                break
        if "exceptionDetails" in answer:
            raise ValueError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, as a hand on the keyboard does."""
        common = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self._do("Input.dispatchKeyEvent", type="keyDown", **common)
        self._do("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, file: Path) -> None:
        """Write what the window shows."""
        file.write_bytes(base64.b64decode(self._do("Page.captureScreenshot", format="png")["data"]))

    def _do(self, method: str, **parameters: object) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._speaking, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer and "navigat" not in answer["error"]["message"]:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer.get("result", {})

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            read = os.read(self._hearing, 1 << 16)
            if not read:
                raise RuntimeError(f"{CHROMIUM} has ended")
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)
