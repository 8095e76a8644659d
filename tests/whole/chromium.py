"""A real browser without a window, told what to do over a pipe by the Chrome DevTools Protocol."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium")
PATIENCE = 20.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# It reads commands from descriptor 3 and answers on 4.
LAUNCH = """
import fcntl, os, sys
theirs, ours = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(theirs, 3), os.dup2(ours, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One tab of a browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._numbers = itertools.count(1)
        self._unread = b""
        self._session: str | None = None
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its result."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("method") == "Log.entryAdded":
                self.said.append(answer["params"]["entry"]["text"])
        raise AssertionError(f"no answer to {method}")

    def open(self, url: str) -> None:
        """Go to an address and wait for the page."""
        self.run("window.isOld = true")
        self.call("Page.navigate", url=url)
        self.wait("!window.isOld && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return what a script returns on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until something is true on the page, across navigations."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with suppress(AssertionError):
                if self.run(condition):
                    return
            time.sleep(0.05)
        raise AssertionError(f"not so: {condition} at {self.run('location.href')}: {self.text()}")

    def arrive(self, path: str) -> None:
        """Wait for the page of a path that the browser is on its way to."""
        self.wait(f"location.pathname === {json.dumps(path)} && document.readyState === 'complete'")

    def text(self) -> str:
        """Return what a person reads."""
        return str(self.run("document.body.innerText"))

    def fill(self, selector: str, value: str) -> None:
        """Type into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(value)}")

    def press(self, words: str) -> None:
        """Click the button or link with these words and wait for the next page."""
        self.run("window.isOld = true")
        script = (
            "[...document.querySelectorAll('button, a')]"
            f".find(one => one.innerText.trim() === {json.dumps(words)}).click()"
        )
        self.run(script)
        self.wait("!window.isOld && document.readyState === 'complete'")

    def picture(self, path: Path, *, width: int = 1000, height: int = 700, dark: bool = False) -> None:
        """Take a picture of the whole page at that width."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def authenticator(self) -> str:
        """Plug in an authenticator that verifies its user, and return its id."""
        self.call("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        return str(self.call("WebAuthn.addVirtualAuthenticator", options=options)["authenticatorId"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            read = os.read(self._answers, 1 << 20)
            assert read, "the browser is gone"
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Run a browser with a profile of its own until the end of the block."""
    assert PROGRAM is not None
    theirs, commands = os.pipe()
    answers, ours = os.pipe()
    with tempfile.TemporaryDirectory(prefix="lockbox-chromium-", ignore_cleanup_errors=True) as profile:
        line = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(theirs), str(ours), *line],
            pass_fds=(theirs, ours),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        try:
            yield Chromium(commands, answers)
        finally:
            os.close(commands)
            os.close(answers)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
