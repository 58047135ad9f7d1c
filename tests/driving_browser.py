"""Drives the system's Chromium over its DevTools protocol, through a pipe: no port, no driver program, no download.

`Browser(profile)` starts one headless browser; `open(url)` gives a `Tab`, which runs JavaScript, waits until something
is true on the page, presses keys, and takes pictures. Everything the page logs or requests is recorded.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE_S = 30.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWITCHES = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--mute-audio", "--force-color-profile=srgb", "--hide-scrollbars",
)  # fmt: skip

_ON_3_AND_4 = """
import fcntl, os, sys
high = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]]
for descriptor, wanted in zip(high, (3, 4)):
    os.dup2(descriptor, wanted)
    os.close(descriptor)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads its commands from descriptor 3 and answers on 4; a shell can't be relied on to put them there."""

Json = dict[str, Any]


def browser_path() -> str | None:
    """The browser on PATH; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One headless browser with a fresh profile below `profile`."""

    def __init__(self, profile: Path) -> None:
        path = browser_path()
        assert path is not None, f"none of {', '.join(NAMES)} is on PATH; Debian: apt install chromium"
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        switches = [*SWITCHES, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.getuid() == 0 else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_3_AND_4, str(to_browser), str(from_browser), path, *switches],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._answers: dict[int, Json] = {}
        self._tabs: dict[str, Tab] = {}
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._out)  # a browser whose pipe is closed ends
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        os.close(self._in)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Tab:
        """A new tab that shows `url`."""
        target = str(self.call("Target.createTarget", {"url": "about:blank"})["targetId"])
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = self._tabs[session] = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.colours(dark=dark)
        tab.go(url)
        return tab

    def close_tabs(self) -> None:
        """Close all tabs."""
        for tab in self._tabs.values():
            self.call("Target.closeTarget", {"targetId": tab.target})
        self._tabs.clear()

    def call(self, method: str, parameters: Json | None = None, session: str | None = None) -> Json:
        """One command and its result."""
        self._number += 1
        number = self._number
        message: Json = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        with self._news:
            arrived = self._news.wait_for(lambda: number in self._answers, DEADLINE_S)
            assert arrived, f"{method}: no answer within {DEADLINE_S:g} s"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: Json = answer["result"]
        return result

    def _read(self) -> None:
        rest = b""
        while piece := os.read(self._in, 1 << 20):
            *whole, rest = (rest + piece).split(b"\0")
            for text in whole:
                self._take(json.loads(text))

    def _take(self, message: Json) -> None:
        with self._news:
            if "id" in message:
                self._answers[message["id"]] = message
            elif (tab := self._tabs.get(message.get("sessionId", ""))) is not None:
                tab.happened(message["method"], message["params"])
            self._news.notify_all()


class Tab:
    """One page. `requests` are the URLs it asked for, with their request headers; `failed` why some did not
    come; `problems` what its console says."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.target = target
        self._browser = browser
        self._session = session
        self.requests: list[Json] = []
        self.received_bytes = 0
        self.problems: list[str] = []
        self.failed: list[str] = []
        self.loads = 0

    def happened(self, method: str, parameters: Json) -> None:
        """An event of the DevTools protocol."""
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"])
        elif method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Network.loadingFinished":
            self.received_bytes += int(parameters["encodedDataLength"])
        elif method == "Network.loadingFailed":
            self.failed.append(str(parameters["errorText"]))
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(str(details.get("exception", details).get("description", details)))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(str(parameters["entry"]["text"]))

    def call(self, method: str, parameters: Json | None = None) -> Json:
        """One command to this tab."""
        return self._browser.call(method, parameters, self._session)

    def go(self, url: str) -> None:
        """Show `url`; returns once it has loaded."""
        loaded = self.loads
        self.call("Page.navigate", {"url": url})
        deadline = time.monotonic() + DEADLINE_S
        while self.loads == loaded:
            assert time.monotonic() < deadline, f"{url} did not load within {DEADLINE_S:g} s"
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, within_s: float = DEADLINE_S) -> Any:
        """The value of `expression` once it is true."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if value := self.run(expression):
                return value
            time.sleep(0.03)
        raise AssertionError(f"not within {within_s:g} s: {expression}\n{self.run('document.body.innerText')[:3000]}")

    def text(self, selector: str) -> str:
        """The text that an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def press(self, key: str) -> None:
        """One key, as a person does."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        parameters = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        extra = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **parameters, **extra})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **parameters})

    def resize(self, width: int, height: int) -> None:
        """Look at it through a window of this size, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def colours(self, *, dark: bool) -> None:
        """What the person prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def a_browser(profile: Path) -> Iterator[Callable[..., Tab]]:
    """`open` of a browser that ends with the block."""
    with Browser(profile) as browser:
        yield browser.open
