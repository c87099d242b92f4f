"""Adapters to be merged, made once."""

from pathlib import Path

import pytest
from adapter_toys import write_adapter


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Three adapters of one base, two with rsLoRA, and one with another rank."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("one", "two", "three")):
        write_adapter(root / name, seed, lora_alpha=8 * (seed + 1))
    for seed, name in enumerate(("rs_one", "rs_two")):
        write_adapter(root / name, seed, use_rslora=True)
    write_adapter(root / "rank4", 9, r=4)
    return root
