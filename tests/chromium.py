"""A headless Chromium for tests."""

import os
import shutil
import subprocess
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
