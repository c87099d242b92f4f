"""Stands in for Ray where a test is about what a sweep does with it: runs are "made" at once, in a thread of this one.

A run whose folder's name begins with "s1" loses its worker at its first try. Where the file beside the logs says
"hang", runs wait, as they do on a cluster that is cut off.
"""

import json
import time
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace


class RayError(Exception):
    pass


class RayTaskError(RayError):
    cause = None


exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
_pool, _at = futures.ThreadPoolExecutor(1), {}


def init(address: str, **options) -> None:
    _at["address"] = address


def get_runtime_context() -> SimpleNamespace:
    return SimpleNamespace(gcs_address=_at["address"])


def cluster_resources() -> dict:
    return {"CPU": 2.0}


def remote(**options):
    return lambda function: SimpleNamespace(remote=lambda *values: _pool.submit(_make, *values))


def _make(run, log, env):
    from unlearn_nb.runs import Outcome

    while Path(log).with_name("hang").exists():
        time.sleep(0.05)
    tried = Path(log).with_name(f"{run.name}.tried")
    if run.name.startswith("s1") and not tried.exists():
        tried.touch()
        raise RayError("worker died")
    run.folder.mkdir(parents=True)
    for name, text in {"params.yaml": json.dumps({"seed": 0, "lr": 0.1} | run.params), "report.html": "",
                       "metrics.json": json.dumps({"score": run.params["seed"]})}.items():
        (run.folder / name).write_text(text)
    return Outcome("complete")


def wait(refs, timeout):
    done, rest = futures.wait(refs, timeout=timeout, return_when=futures.FIRST_COMPLETED)
    return list(done), list(rest)


def get(ref):
    return ref.result()


def shutdown() -> None:
    pass
