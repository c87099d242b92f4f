"""Analysis against dense re-computations on adapters that are small enough to write out."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from toys import small

from unlearn_nb.analysis import (
    angle_degrees,
    density_sweep,
    module_place,
    trajectory,
    trajectory_row,
    turning_point,
    update_angles,
    weight_norms,
)
from unlearn_nb.core import UnlearnError
from unlearn_nb.merging import merge_adapters
from unlearn_nb.metrics import Scores
from unlearn_nb.models import Adapter

MODULES = {"model.layers.0.self_attn.q_proj": (6, 5), "model.layers.1.mlp.up_proj": (8, 5)}  # name -> (out, in)


def adapter(factors, alpha=4, rank=2, **config):
    """An adapter in memory from module -> (B, A)."""
    tensors = {}
    for module, (B, A) in factors.items():
        tensors[f"base_model.model.{module}.lora_B.weight"] = B
        tensors[f"base_model.model.{module}.lora_A.weight"] = A
    return Adapter(
        {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj", "up_proj"], **config},
        tensors,
    )


def random_adapter(seed, rank=2, **config):
    generator = torch.Generator().manual_seed(seed)
    return adapter(
        {
            module: (torch.randn(m, rank, generator=generator), torch.randn(rank, n, generator=generator))
            for module, (m, n) in MODULES.items()
        },
        rank=rank,
        **config,
    )


def dense(adapter, modules=MODULES):
    """The whole update as one vector, scaling written out here."""
    r, alpha = adapter.config["r"], adapter.config["lora_alpha"]
    scale = alpha / math.sqrt(r) if adapter.config.get("use_rslora") else alpha / r
    return torch.cat([scale * (B.double() @ A.double()).flatten() for B, A in map(adapter.factors, modules)])


def flat(adapter, modules=MODULES):
    return torch.cat([torch.cat([f.double().flatten() for f in adapter.factors(module)]) for module in modules])


def plain_angles(start, middle, end):
    def angle(u, v):
        return math.degrees(math.acos(float(u @ v / (u.norm() * v.norm()))))

    early, late, whole = middle - start, end - middle, end - start
    return {"0-t, t-T": angle(early, late), "0-t, 0-T": angle(early, whole), "t-T, 0-T": angle(late, whole)}


def found(angles, space, module="all", step=10):
    here = angles[(angles["space"] == space) & (angles["module"] == module) & (angles["step"] == step)]
    return dict(zip(here["pair"], here["degrees"]))


@pytest.mark.parametrize("config", [{}, {"alpha": 16}, {"use_rslora": True}, {"rank": 4}])
def test_angles_equal_dense_ones(config):
    points = [random_adapter(seed, **config) for seed in range(3)]
    angles = update_angles(dict(zip((0, 10, 30), points)))
    for scope, modules in [("all", MODULES), *((m, [m]) for m in MODULES)]:
        assert found(angles, "delta", scope) == pytest.approx(plain_angles(*(dense(p, modules) for p in points)))
        assert found(angles, "factors", scope) == pytest.approx(plain_angles(*(flat(p, modules) for p in points)))
    assert len(angles) == 2 * 3 * 3  # spaces x (all, two modules) x pairs


def test_known_angles():
    """Steps along two orthogonal directions of one module: 90 degrees, and 45 to the diagonal."""
    module, A = "model.layers.0.mlp.up_proj", torch.eye(2)
    start, first, second = torch.zeros(2, 2), torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[1.0, 0], [0, 1.0]])
    angles = update_angles({step: adapter({module: (B, A)}) for step, B in ((0, start), (10, first), (20, second))})
    for space in ("factors", "delta"):
        assert found(angles, space) == pytest.approx({"0-t, t-T": 90, "0-t, 0-T": 45, "t-T, 0-T": 45})


def test_angles_between_nearly_equal_snapshots_keep_their_digits():
    """A common start a million times larger than the changes hardly blurs the angle."""
    points, generator = [random_adapter(0)], torch.Generator().manual_seed(1)
    for _ in range(2):
        points.append(
            Adapter(
                points[0].config,
                {
                    k: t.double() + 1e-6 * torch.randn(t.shape, generator=generator, dtype=torch.float64)
                    for k, t in points[0].tensors.items()
                },
            )
        )
    angles = update_angles(dict(zip((0, 10, 20), points)))
    assert found(angles, "factors") == pytest.approx(plain_angles(*map(flat, points)), abs=1e-6)
    assert found(angles, "delta") == pytest.approx(plain_angles(*map(dense, points)), abs=0.1)


def test_without_step_zero_the_start_is_the_zero_update():
    middle, end = random_adapter(1), random_adapter(2)
    angles = update_angles({10: middle, 30: end})
    assert set(angles["space"]) == {"delta"}
    assert found(angles, "delta") == pytest.approx(
        plain_angles(torch.zeros_like(dense(end)), dense(middle), dense(end))
    )


def test_every_interior_snapshot_has_its_angles():
    angles = update_angles({step: random_adapter(step) for step in (20, 0, 10, 40)})
    assert sorted(set(angles["step"])) == [10, 20]


def test_no_change_has_no_angle():
    same, other = random_adapter(0), random_adapter(1)
    result = found(update_angles({0: same, 10: same, 20: other}), "factors")
    assert math.isnan(result["0-t, t-T"]) and result["t-T, 0-T"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("steps", [[0, 10], [10], []])
def test_too_few_snapshots(steps):
    with pytest.raises(UnlearnError, match="at least 2 steps"):
        update_angles({step: random_adapter(step) for step in steps})


def test_snapshots_of_different_runs():
    with pytest.raises(UnlearnError, match="steps 0 and 20 differ"):
        update_angles({0: random_adapter(0), 10: random_adapter(1), 20: random_adapter(2, rank=3)})


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.lists(st.floats(-10, 10), min_size=3, max_size=3))
def test_angle_is_within_its_range(u, v):
    u, v = np.array(u), np.array(v)
    angle = angle_degrees(float(u @ v), float(np.linalg.norm(u)), float(np.linalg.norm(v)))
    assert math.isnan(angle) or 0 <= angle <= 180


# ---------------------------------------------------------------- norms


@pytest.mark.parametrize("config", [{}, {"use_rslora": True, "alpha": 16}])
def test_weight_norms_equal_dense_ones(config):
    one = random_adapter(3, **config)
    table = weight_norms({"one": one}).set_index("module")
    for module in MODULES:
        assert table.loc[module, "norm"] == pytest.approx(float(dense(one, [module]).norm()))
    assert table.loc["model.layers.1.mlp.up_proj", ["layer", "kind"]].tolist() == [1, "up_proj"]


def test_weight_norms_against_a_model():
    model = torch.nn.Sequential()
    model.model = torch.nn.Module()
    model.model.layers = torch.nn.ModuleList([torch.nn.Module(), torch.nn.Module()])
    model.model.layers[0].self_attn, model.model.layers[1].mlp = torch.nn.Module(), torch.nn.Module()
    torch.manual_seed(0)
    model.model.layers[0].self_attn.q_proj, model.model.layers[1].mlp.up_proj = (
        torch.nn.Linear(5, 6),
        torch.nn.Linear(5, 8),
    )
    one = random_adapter(4)
    table = weight_norms({"one": one, "two": random_adapter(5)}, model).set_index(["adapter", "module"])
    for module in MODULES:
        weight, delta = model.get_submodule(module).weight.detach().double().flatten(), dense(one, [module])
        row = table.loc[("one", module)]
        assert row["relative"] == pytest.approx(float(delta.norm() / weight.norm()))
        assert row["norm_change"] == pytest.approx(float((weight + delta).norm() - weight.norm()))
    assert len(table) == 4


@pytest.mark.parametrize("targets", [["c_attn", "c_fc"], ["c_proj"]], ids=["wide", "square among them"])
def test_weight_norms_of_transposed_matrices_are_those_of_the_merged_model(tmp_path, targets):
    """GPT-2 stores its matrices as [in, out]."""
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, fan_in_fan_out=True,
                        task_type="CAUSAL_LM")
    adapted, base = get_peft_model(small("gpt2"), config), small("gpt2")
    adapted.save_pretrained(tmp_path)
    table = weight_norms({"one": tmp_path}, base).set_index("module")
    merged = adapted.merge_and_unload()
    for module, row in table.iterrows():
        was, now = (m.get_submodule(module).weight.detach().double() for m in (base, merged))
        assert row["relative"] == pytest.approx(float((now - was).norm() / was.norm()), rel=1e-5)
        assert row["norm_change"] == pytest.approx(float(now.norm() - was.norm()), rel=1e-4)
    assert len(table) == 4
    with pytest.raises(UnlearnError, match="has no weight in a module 'transformer.h.0"):
        weight_norms({"one": tmp_path}, small("opt"))


def test_module_place():
    assert module_place("model.layers.11.mlp.up_proj") == (11, "up_proj") and module_place("lm_head") == (-1, "lm_head")
    assert module_place("transformer.h.3.attn.c_attn") == (3, "c_attn")


# ---------------------------------------------------------------- trajectories and sweeps


def summary(value):
    return {"retain/T/knowledge": value, "forget/T/knowledge": 1 - value, "final": value}


def test_trajectory_is_sorted_and_reads_scores():
    scores = Scores(pd.DataFrame(), pd.DataFrame({"metric": ["final"], "value": [0.5], "low": [0.4], "high": [0.6]}))
    assert trajectory_row(3, scores) == {"step": 3, "final": 0.5}
    table = trajectory({20: summary(0.2), 0: summary(1.0), 10: summary(0.1)}, steps_per_epoch=5)
    assert table["step"].tolist() == [0, 10, 20] and table["epoch"].tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    "curve, expected",
    [
        ([1.0, 0.6, 0.4, 0.7], 20),
        ([1.0, 0.4, 0.4, 0.7], 10),
        ([0.1, 0.6, 0.5, 0.0], 20),
        ([1.0, 0.9, 0.8, 0.7], 20),
    ],
)
def test_turning_point(curve, expected):
    table = trajectory({10 * i: summary(value) for i, value in enumerate(curve)})
    assert turning_point(table) == expected
    assert turning_point(table.iloc[::-1]) == expected


def test_turning_point_of_other_columns():
    table = trajectory({10 * i: summary(value) for i, value in enumerate([1.0, 0.6, 0.4, 0.7])})
    assert turning_point(table, ["forget/T/knowledge"]) == 10
    with pytest.raises(UnlearnError, match="no column 'nothing'"):
        turning_point(table, ["nothing"])
    with pytest.raises(UnlearnError, match="at least 3"):
        turning_point(table.iloc[:2])


def test_density_sweep_merges_at_every_density():
    one, two = random_adapter(1), random_adapter(2)

    def size(merged):
        return {"norm": sum(float(t.double().square().sum()) for t in merged.tensors.values())}

    table = density_sweep([one, two], [1.0, 0.5], size, method="ties", space="factors", weights=[0.3, 0.7])
    assert table["density"].tolist() == [1.0, 0.5]
    for density, norm in zip(table["density"], table["norm"]):
        assert (
            norm
            == size(merge_adapters([one, two], method="ties", space="factors", weights=[0.3, 0.7], density=density))[
                "norm"
            ]
        )


@pytest.mark.parametrize("densities", [[0.5, 0.0], [1.2], [-1], []])
def test_density_sweep_refuses_before_any_merge(densities):
    with pytest.raises(UnlearnError, match="density"):
        density_sweep(["nowhere"], densities, lambda merged: pytest.fail("evaluated"))
