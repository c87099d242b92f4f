"""The published results in tests/metrics/published_logs.npz."""

from functools import cache
from pathlib import Path

import numpy as np


@cache
def logs():
    """Log -> metric -> rows, from tests/metrics/published_logs.npz: losses, ROUGE and scores a row, without texts.

    "tofu-..." are Llama-3.2-1B-Instruct on forget10, "muse-..." Llama-2-7b on News (open-unlearning's logs), "own-..."
    Llama-2-7b of TOFU's repository (300 rows of retain and forget set).
    """
    found = {}
    with np.load(Path(__file__).parent / "metrics" / "published_logs.npz") as file:
        for key in file.files:
            name, metric, *side, field = key.split("/")
            place = found.setdefault(name, {}).setdefault(metric, {})
            if side:
                place = place.setdefault(side[0], {})
            place["agg_value"], rows = None, place.setdefault("value_by_index", {})
            for i, value in enumerate(file[key].astype(float).tolist()):
                rows[str(i)] = {field: value}
    return found
