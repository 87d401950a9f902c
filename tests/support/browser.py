"""Pages in headless Chromium, driven over its debugging protocol, for tests of what a user sees.

Chromium is not a Python package: Debian has it as `chromium`. Tests are skipped, with that reason, where it is absent.
"""

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_S = 60


def require_chromium() -> str:
    """Path of the browser; skips the test where there is none."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")


class Page:
    """One page: `with Page(url) as page`. `errors` collects console errors, exceptions and failed loads."""

    def __init__(self, url: str, size_wh: tuple[int, int] = (1280, 900)) -> None:
        self.errors: list[str] = []
        self._url, self._size_wh = url, size_wh
        self._ids = itertools.count(1)

    def __enter__(self) -> "Page":
        browser = require_chromium()
        self._profile = tempfile.mkdtemp(prefix="browser-")
        width, height = self._size_wh
        self._process = subprocess.Popen(
            [browser, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio",
             "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-port=0", "--no-first-run",
             f"--window-size={width},{height}", f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"HOME": self._profile},
        )  # fmt: skip
        try:
            self._socket = connect(self._page_address(), max_size=None, proxy=None)
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            self.call("Page.navigate", url=self._url)
            self.wait_for("document.readyState === 'complete'")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the debugging protocol and its result."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=_PATIENCE_S))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            self._note(message)

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = _PATIENCE_S) -> None:
        """Return when a JavaScript expression is true; fails after `seconds`."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"still not true after {seconds} s: {expression}; errors: {self.errors}"
            time.sleep(0.1)

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """What the window shows, (h, w, 3) uint8; also written as PNG if a path is given."""
        content = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(content)
        return np.array(Image.open(io.BytesIO(content)).convert("RGB"))

    def drag(self, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
        """Press, move and release the mouse."""
        steps = [("mousePressed", start), *(("mouseMoved", _between(start, end, k / 5)) for k in range(1, 6)),
                 ("mouseReleased", end)]  # fmt: skip
        for kind, (x, y) in steps:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=1, clickCount=1)

    def click(self, at: tuple[float, float]) -> None:
        """A click with the left button."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def _page_address(self) -> str:
        import urllib.request

        port_file = Path(self._profile) / "DevToolsActivePort"
        end = time.monotonic() + _PATIENCE_S
        while not port_file.exists() or not port_file.read_text().strip():
            assert time.monotonic() < end and self._process.poll() is None, "Chromium did not start"
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=_PATIENCE_S) as reply:
            targets = json.load(reply)
        return str(next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page"))

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"].get("exception", {}).get("description", params)))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


def _between(a: tuple[float, float], b: tuple[float, float], share: float) -> tuple[float, float]:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])
