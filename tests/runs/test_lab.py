"""JupyterLab, as `make lab` starts it: the server answers, and the index notebook opens in a browser."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import chromium
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a server on the project, and a function that reads from it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("lab") / "log.txt"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={ROOT}"]
    address = f"http://127.0.0.1:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(path: str) -> dict:
        with opener.open(f"{address}{path}", timeout=60) as answer:
            return json.load(answer)

    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as server:
        try:
            deadline = time.monotonic() + 600
            while True:
                try:
                    read("/api/status")
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                    time.sleep(0.3)
            yield address, read
        finally:
            server.terminate()


def test_the_server_serves_the_notebooks(lab):
    _, read = lab
    for folder in [ROOT / "nbs", *(ROOT / "nbs").glob("[0-9st]*/"), *(ROOT / "reports").glob("*/*/")]:
        entries = read(f"/api/contents/{folder.relative_to(ROOT)}")["content"]
        shown = {path.name for kind in ("*.ipynb", "*.html") for path in folder.glob(kind)}
        assert shown <= {entry["name"] for entry in entries}
    cells = read("/api/contents/nbs/index.ipynb")["content"]["cells"]
    assert cells[0]["source"].startswith("# unlearn_nb")


def test_a_report_is_read_beside_the_notebooks(lab):
    """As a file and as a page, from the root that `make lab` gives the server."""
    address, read = lab
    assert '--ServerApp.root_dir="$(CURDIR)"' in (ROOT / "Makefile").read_text(encoding="utf-8")
    report = sorted((ROOT / "reports").glob("*/*/report.html"))[0]
    text, place = report.read_text(encoding="utf-8"), report.relative_to(ROOT)
    assert read(f"/api/contents/{place}")["content"] == text
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(f"{address}/files/{place}", headers={"Referer": f"{address}/lab"})
    with opener.open(asked, timeout=60) as answer:
        assert answer.headers.get_content_type() == "text/html" and answer.read().decode("utf-8") == text


def test_the_index_notebook_opens_in_a_browser(lab, tmp_path):
    address, _ = lab
    page = f"{address}/lab/tree/nbs/index.ipynb"
    dom = chromium.browse(page, tmp_path / "profile", "--virtual-time-budget=30000", "--dump-dom")
    assert "jp-Notebook" in dom and ">unlearn_nb" in dom
