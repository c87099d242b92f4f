"""Fixtures shared by all tests: a small bench and a tiny model trained on it, made once and kept in `.cache`."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("UNLEARN_NB_CACHE", str(ROOT / ".cache" / "unlearn_nb"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small; threads that wait for a busy core cost more
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched at test time
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402  (the environment must be set before torch is imported)
from chat_server import start  # noqa: E402
from chatty import write_chatty  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import settings  # noqa: E402
from studies import finish  # noqa: E402

from unlearn_nb.benches import load_bench  # noqa: E402
from unlearn_nb.core import build_folder, cache_dir, file_hash  # noqa: E402
from unlearn_nb.models import (  # noqa: E402
    load_model,  # noqa: E402
    prepare,
    recipe_for,
)

settings.register_profile("patient", deadline=None)  # a busy machine takes its time for an example
settings.load_profile("patient")

# Files of few tests that take long, the longest first: what is left for the end should be short, so that no process of
# pytest has to wait for the other one.
LONG = ["faults/test_kills.py", "test_project.py", "models/test_tokenizer_matrix.py", "models/test_prepared.py",
        "localization/test_localizers_on_architectures.py", "test_architectures.py", "experiments/test_relearn.py",
        "experiments/test_merging.py", "experiments/test_erasing.py", "experiments/test_localization.py",
        "regions/test_region_step.py", "unlearning/test_training_exactly.py", "unlearning/test_unlearner.py",
        "runs/test_lab.py", "runs/test_browser.py", "runs/test_execute.py", "core/test_files.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {str(ROOT / "tests" / name): place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(str(item.path), len(LONG)))


@pytest.fixture(scope="session")
def smoke_bench():
    return load_bench("biographies", size="smoke", seed=0)


@pytest.fixture(scope="session")
def smoke_prepared(smoke_bench):
    """Target and oracle folders of the smoke bench; trained at most once a cache."""
    return prepare("tiny", smoke_bench, recipe_for("tiny", "smoke"))


@pytest.fixture(scope="session")
def smoke_target(smoke_prepared):
    return smoke_prepared.target


@pytest.fixture(scope="session")
def smoke_oracle(smoke_prepared):
    return smoke_prepared.oracle


@pytest.fixture(scope="session")
def arguments_of(chatty_folder):
    """A function that gives what a study must be told to run: one of one's own model, where that and its rows are."""
    files = {"model": "model", "forget": "forget.jsonl", "retain": "retain.jsonl"}
    own = [part for key, file in files.items() for part in ("-p", key, str(chatty_folder / file))]
    return {"forget": own}.get


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, smoke_prepared, arguments_of):
    """A function that gives the folder of a study's smoke run, executed once for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(study: str) -> Path:
        with FileLock(shared / f"{study}.lock"):
            done = shared / study / "first"
            if not (done / "report.html").exists():
                finish(study, shared, "first", *arguments_of(study, []))
            return done

    return folder


@pytest.fixture
def target(smoke_target):
    """A fresh copy of the trained tiny target and its tokeniser, free to be changed."""
    return load_model(smoke_target)


@pytest.fixture
def untrained():
    """A fresh, untrained tiny model and its tokeniser."""
    return load_model("tiny")


@pytest.fixture
def serve():
    """Starts chat servers; needs the optional package openai, which CI has."""
    pytest.importorskip("openai")
    servers = []

    def serving(behave=lambda prompt, time: "good"):
        servers.append(start(behave))
        return servers[-1]

    yield serving
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def chatty_folder():
    """A folder with a small chat model, and the rows that it knows by heart; made at most once a cache."""
    name = f"chatty-small-{file_hash(Path(__file__).with_name('chatty.py'))[:12]}"
    return build_folder(cache_dir() / name, lambda folder: write_chatty(folder, "small"))
