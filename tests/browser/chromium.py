"""Headless Chromium over its DevTools protocol: a tab to look at, and what it complained about.

Knows nothing of the page under test.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium")

# A cold start on a busy machine takes some seconds; a hundred times a usual answer for the rest.
START_SECONDS = 60.0
ANSWER_SECONDS = 20.0

FLAGS = [
    "--headless",
    "--no-sandbox",  # tests may run as root, in containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # small in containers
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]


class Refused(Exception):
    """Chromium did not do what it was told, perhaps because a page went away meanwhile."""


class Browser:
    """A running Chromium."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = count(1)
        self.events: dict[str, list[dict[str, Any]]] = {}

    def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self._connection.send(json.dumps(message))
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = json.loads(self._connection.recv(timeout=deadline - time.monotonic()))
            if answer.get("id") == number:
                if "error" in answer:
                    raise Refused(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self.events.setdefault(answer.get("sessionId", ""), []).append(answer)

    @contextmanager
    def tab(
        self, url: str, *, width: int = 1200, height: int = 900, scheme: str = "light"
    ) -> Iterator[Tab]:
        """Open a page in a context of its own, at a size and in a colour scheme."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)[
            "targetId"
        ]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.command(f"{domain}.enable")
        tab.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        tab.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        tab.open(url)
        yield tab
        self.command("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """One page in the browser."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.command(method, self._session, **params)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.command("Page.navigate", url=url)
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")

    def evaluate(self, expression: str, **options: Any) -> Any:
        """The value of an expression; of what it resolves to, if it is a promise."""
        answer = self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            **options,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Ask again until an expression is true."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            with suppress(Refused):
                if value := self.evaluate(expression):
                    return value
        raise AssertionError(f"never true: {expression}")

    def press(self, key: str, code: int) -> None:
        """Press and let go of a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
            )

    def allow_clipboard(self) -> None:
        self._browser.command(
            "Browser.grantPermissions",
            browserContextId=self._context,
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )

    def events(self, method: str) -> list[dict[str, Any]]:
        """Parameters of the events of one kind that came so far."""
        self.evaluate("0")
        events = self._browser.events.get(self._session, [])
        return [event["params"] for event in events if event["method"] == method]

    def complaints(self) -> list[Any]:
        """Errors and warnings of the page: exceptions, refused content, failed requests."""
        entries = [event["entry"] for event in self.events("Log.entryAdded")]
        return [entry for entry in entries if entry["level"] in ("error", "warning")] + [
            *self.events("Runtime.exceptionThrown"),
            *self.events("Runtime.consoleAPICalled"),
        ]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        picture = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Start Chromium with a fresh profile, and end it."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_address(Path(profile), process), max_size=None) as connection:
                browser = Browser(connection)
                yield browser
                browser.command("Browser.close")
            process.wait(ANSWER_SECONDS)
        finally:
            process.kill()
            process.wait()


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    while True:
        lines = port_file.read_text().splitlines() if port_file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        assert process.poll() is None, "Chromium ended at once"
        assert time.monotonic() < deadline, "Chromium did not start"
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
