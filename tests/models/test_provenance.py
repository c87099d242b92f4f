"""What artefacts say they stand on: the base by content, and the adapters between."""

import json
from pathlib import Path

import pytest
import torch
from peft import IA3Config
from toys import gpt2, peft, tiny, with_adapter

from unlearn_nb.core import UnlearnError
from unlearn_nb.models import Origin, base_weights, check_origin, origin_of, read_origin, weights_hash, write_origin


def test_the_hash_of_a_base_depends_on_its_weights_only():
    known = weights_hash(tiny())
    for same in (tiny(dtype=torch.bfloat16).float(), tiny().double(), with_adapter(tiny()),
                 peft(tiny(), IA3Config(task_type="CAUSAL_LM"))):
        expected = weights_hash(tiny(dtype=torch.bfloat16)) if same.dtype == torch.bfloat16 else known
        assert weights_hash(same) == expected
    assert weights_hash(tiny(dtype=torch.bfloat16)) == known
    assert len({known, weights_hash(tiny(seed=1)), weights_hash(tiny(tied=True)), weights_hash(gpt2())}) == 4


@pytest.mark.parametrize("change", [
    lambda weight: weight[3, 5].add_(0.1), lambda weight: weight.data.mul_(1.01),
    lambda weight: weight.copy_(weight.flip(0)),
])
def test_a_changed_weight_changes_a_hash_that_was_taken_before(change):
    model = tiny()
    before = weights_hash(model)
    with torch.no_grad():
        change(model.model.layers[1].mlp.up_proj.weight)
    assert weights_hash(model) != before


def test_small_and_integer_types_are_hashed_as_they_are():
    half = weights_hash(tiny().half())
    assert half.startswith("raw-") and half != weights_hash(tiny())
    check_origin(Origin(weights=half), tiny(), "the adapter")  # nothing can be said, so nothing is
    with pytest.raises(UnlearnError, match="the adapter stands on a model with the weights raw-"):
        check_origin(Origin(weights=half), tiny(seed=1).half(), "the adapter")
    with torch.device("meta"):
        assert weights_hash(type(tiny())(tiny().config)) is None


def test_a_merged_adapter_has_no_base_to_be_hashed():
    model = with_adapter(tiny())
    before = weights_hash(model)
    model.merge_adapter()
    with pytest.raises(UnlearnError, match="the adapter 'default' is merged into .* so its own tensors have no effect"):
        weights_hash(model)
    model.unmerge_adapter()
    assert weights_hash(model).split("-")[0] == before.split("-")[0]


def test_base_weights_have_their_plain_names():
    model = with_adapter(tiny())
    assert list(base_weights(model)) == [name for name, _ in tiny().named_parameters()]


def test_an_origin_names_a_folder_from_everywhere(tmp_path, monkeypatch):
    model = tiny()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    model.name_or_path = "here"
    write_origin(tmp_path, origin_of(model, under=[{"hash": "a"}]))
    origin = read_origin(tmp_path)
    assert Path(origin.base) == tmp_path / "here" and origin.under == ({"hash": "a"},)
    assert origin.weights == weights_hash(model)
    model.name_or_path = "somebody/model"
    assert origin_of(model).base == "somebody/model"


def test_the_base_that_a_user_writes_into_the_config_counts(tmp_path):
    write_origin(tmp_path, Origin("old/place", revision="abc", weights="bfloat16-1"))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "new/place"}))
    assert read_origin(tmp_path) == Origin("new/place", revision="abc", weights="bfloat16-1")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(UnlearnError, match="adapter_config.json is damaged"):
        read_origin(tmp_path)
