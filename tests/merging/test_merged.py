"""Results of merges: scale, folders, what is never written over."""
import json
import math
from dataclasses import replace

import pytest
import torch
from adapter_toys import assert_same_tensors
from safetensors.torch import load_file

from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import (
    MERGE_METHODS,
    adapter_inner,
    adapter_norm,
    match_scale,
    merge_adapters,
    merges_updates_only,
)

torch.set_num_threads(1)
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore:The density")]
methods = pytest.mark.parametrize("method", list(MERGE_METHODS))


@methods
@pytest.mark.parametrize("space", ["factors", "delta"])
def test_matched_scale_and_scale(folder, method, space):
    if space == "factors" and merges_updates_only(method):
        return  # refused, see test_spectral
    paths = [folder / "one", folder / "two"]
    merged = merge_adapters(paths, method=method, space=space, density=0.5)
    matched = match_scale(merged, 3.0)
    assert math.isclose(adapter_norm(matched), 3.0, rel_tol=1e-5) and math.isclose(matched.norm, 3.0, rel_tol=1e-5)
    assert math.isclose(matched.error, merged.error, rel_tol=1e-9)
    again = merge_adapters(paths, method=method, space=space, density=0.5, scale=matched.recipe.scale)
    assert math.isclose(adapter_norm(again), 3.0, rel_tol=1e-5)
    negative = merge_adapters(paths, method=method, space=space, density=0.5, scale=-1.0)
    assert math.isclose(adapter_inner(negative, merged), -merged.norm**2, rel_tol=1e-5)


def test_saved_merge_reads_back_and_replaces_an_earlier_one(folder, tmp_path):
    out = tmp_path / "deep" / "merged"
    merge_adapters([folder / "one", folder / "two"], out, density=0.5)
    merged = merge_adapters([folder / "one", folder / "two"], out, density=0.8, seed=3)
    names = ["adapter_config.json", "adapter_model.safetensors", "merge.json", "origin.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in out.parent.iterdir()] == ["merged"]
    assert_same_tensors(load_file(out / "adapter_model.safetensors"), merged.tensors)
    recipe = json.loads((out / "merge.json").read_text())
    assert recipe["recipe"]["density"] == 0.8 and recipe["shares"] == [0.5, 0.5] and recipe["error"] == 0
    assert [source["name"] for source in recipe["adapters"]] == ["one", "two"]
    assert str(tmp_path) not in json.dumps(recipe)


def test_save_into_an_empty_folder_but_never_over_other_files(folder, tmp_path):
    merged = merge_adapters([folder / "one"], tmp_path)  # exists, empty
    assert (tmp_path / "merge.json").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UnlearnError, match="not a merge"):
        merged.save(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_a_failed_save_leaves_nothing(folder, tmp_path, monkeypatch):
    merged = merge_adapters([folder / "one"])

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("unlearn_nb.models.adapters.save_file", fail)
    with pytest.raises(UnlearnError, match="can't be written to .*disk full"):
        merged.save(tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_zero_merge_cannot_be_scaled(folder):
    merged = merge_adapters([folder / "one"], scale=0.0)
    assert merged.norm == 0 and merged.error == 0
    with pytest.raises(UnlearnError, match="is zero"):
        match_scale(merged, 1.0)
    with pytest.raises(UnlearnError, match="positive number"):
        match_scale(replace(merged), 0.0)
