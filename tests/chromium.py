"""A headless Chromium for tests."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]


def find() -> str:
    """Chromium's path. Without one the test is skipped, but fails in CI."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        end = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        end("no chromium found; install it to test pages in a browser")
    return found


def browse(url: str, profile: Path, *options: str) -> str:
    """Open ``url`` with a fresh profile and return the page's DOM after its scripts have run."""
    command = [find(), *FLAGS, f"--user-data-dir={profile}", "--window-size=1000,1400", *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


class Page:
    """A page in a Chromium that is driven as a person would: real keys, colours, sizes, and a list of its requests."""

    def __init__(self, profile: Path):
        here, theirs = os.pipe(), os.pipe()  # what it reads, what it writes

        def ends():
            # away from the numbers that are to be taken, wherever these two were
            reads, writes = fcntl.fcntl(here[0], fcntl.F_DUPFD, 10), fcntl.fcntl(theirs[1], fcntl.F_DUPFD, 10)
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        command = [find(), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=ends, close_fds=False, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(here[0])
        os.close(theirs[1])
        self.write, self.read, self.rest, self.count, self.events = here[1], theirs[0], b"", 0, []
        self.session = None
        target = self.send("Target.getTargets")["targetInfos"][0]["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.send(f"{domain}.enable")

    def _message(self) -> dict:
        while b"\0" not in self.rest:  # an address that holds a picture makes a message of a megabyte
            self.rest += (more := os.read(self.read, 1 << 20))
            assert more, "chromium has ended"
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def send(self, method: str, **params) -> dict:
        self.count += 1
        session = {"sessionId": self.session} if self.session else {}
        message = json.dumps({"id": self.count, "method": method, "params": params, **session}).encode() + b"\0"
        while message:
            message = message[os.write(self.write, message):]
        while (answer := self._message()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        self.events.clear()
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def js(self, expression: str):
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def type(self, *keys: str) -> None:
        """Press keys: a letter, or a name such as Tab and Enter."""
        for key in keys:
            code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}.get(key, ord(key[0].upper()))
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            down = {"type": "keyDown" if text else "rawKeyDown", "text": text} if text else {"type": "rawKeyDown"}
            for event in (down, {"type": "keyUp"}):
                self.send("Input.dispatchKeyEvent", key=key, windowsVirtualKeyCode=code, **event)

    def wait(self, done: Callable[[], bool]) -> None:
        """Go on once something has come about, however slow the machine is; 10 minutes at most."""
        deadline = time.monotonic() + 600
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def requests(self) -> list[str]:
        """What was asked for since the page was opened, files and data in the page aside."""
        self.js("1")  # what has happened so far has been told
        asked = [event["params"]["request"]["url"] for event in self.events
                 if event["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("file:", "data:"))]

    def close(self) -> None:
        os.close(self.write)
        self.process.terminate()
        self.process.wait(60)
        os.close(self.read)
