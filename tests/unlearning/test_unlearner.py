"""Every objective trains: presets, augmented rows, RMU, DPO."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from forked import run_as_two_processes
from toys import FORGET, RETAIN, make_tokenizer, rows, run, same, state, tiny, with_adapter

from unlearn_nb.augmentation import refusals
from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import (
    PRESETS,
)
from unlearn_nb.unlearning import (
    UnlearnSettings,
    unlearn,
)

SHALLOW = {
    "rmu": "rmu(layer=0) + embed_diff(layer=0)",
    "rmu-open-unlearning": "rmu(layer=0, faithful=True) + embed_diff(layer=0, faithful=True)",
}

TRAINED = [name for name in PRESETS if name.startswith(("simnpo", "wga", "satimp", "undial", "ceu", "rmu"))]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_preset_trains(tmp_path, name, method):
    model = tiny()
    before = state(model)
    frame = run(
        model, make_tokenizer(), tmp_path / "out", SHALLOW.get(name, name), method=method, lr=5e-3, accumulation=2
    ).frame
    assert len(frame) == 3 and np.isfinite(frame.to_numpy(float)).all()
    assert same(state(model), before) == (method == "lora")


@pytest.mark.parametrize("kind, method", [("plain", "lora"), ("plain", "full"), ("base+adapter", "lora")])
def test_the_retain_term_of_rmu_starts_at_0_and_measures_the_way_gone(tmp_path, kind, method):
    model = tiny() if kind == "plain" else with_adapter(tiny())
    original = tiny() if kind == "plain" else with_adapter(tiny())
    distances = []

    def on_step(step, live):
        live.eval()
        errors = []
        for row in RETAIN:
            ids = make_tokenizer()(f"{row['prompt']} {row['response']}").input_ids + [1]
            n = len(row["response"].split()) + 1
            with torch.no_grad():
                new, old = (
                    m(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0, -n:] for m in (live, original)
                )
            errors.append((new - old).square().mean())  # each row counts once
        distances.append(torch.stack(errors).mean().item())

    frame = run(
        model,
        make_tokenizer(),
        tmp_path / "out",
        "rmu(layer=0) + embed_diff(layer=0)",
        on_step=on_step,
        steps=4,
        batch_size=8,
        retain_per_forget=1.25,
        lr=5e-3,
        method=method,
    ).frame
    assert frame["embed_diff"][0] < 1e-9 and distances[-1] > 1e-4
    assert frame["embed_diff"][1:].tolist() == pytest.approx(distances[:-1], rel=1e-3)
    assert frame["rmu"].is_monotonic_decreasing


def test_a_layer_the_model_lacks_is_told(tmp_path):
    with pytest.raises(UnlearnError) as caught:
        run(tiny(), make_tokenizer(), tmp_path / "out", "rmu")
    assert str(caught.value) == "there is no layer 7: the model has the layers 0 to 1"
    assert not (tmp_path / "out").exists()


def test_two_processes_steer_as_one_does(tmp_path):
    """The upper layers have no part in RMU's loss, and a distributed wrapper waits for all of them."""
    script, objective = tmp_path / "two.py", SHALLOW["rmu"]
    script.write_text(
        "import pathlib, sys\nimport toys as t\n"
        f"t.run(t.tiny(), t.make_tokenizer(), pathlib.Path(sys.argv[1]), '{objective}', batch_size=4)\n"
    )
    run_as_two_processes(script, tmp_path / "two")
    one = run(tiny(), make_tokenizer(), tmp_path / "one", objective, batch_size=8).frame.drop(columns="seconds")
    two = pd.read_csv(tmp_path / "two" / "history.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-6)


def test_refusals_train_with_dpo(tmp_path):
    rows = [row | {"id": f"f{i}", "subject": f"s{i}", "task": "t", "kind": "qa"} for i, row in enumerate(FORGET)]
    history = unlearn(
        tiny(),
        make_tokenizer(),
        FORGET,
        RETAIN,
        "idkdpo-gdr",
        out=tmp_path / "out",
        settings=UnlearnSettings(steps=3, max_length=24),
        progress=False,
        augmented=refusals(rows),
    )
    assert history.frame["dpo"][0] == pytest.approx(math.log(2), abs=1e-5) and history.frame["loss"].notna().all()


AUGMENTED = [row | {"rejected": other["response"]} for row, other in zip(rows(12, seed=5), rows(12, seed=6))]

QUICK = dict(lr=2e-2, batch_size=3, lora_r=4, lora_alpha=8, lora_dropout=0.0, max_length=24)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("relearn")])
def test_every_relearn_preset_trains(tmp_path, name):
    history = unlearn(
        tiny(),
        make_tokenizer(),
        FORGET,
        RETAIN,
        name,
        settings=UnlearnSettings(**QUICK, steps=3),
        out=tmp_path / "out",
        progress=False,
        augmented=AUGMENTED,
    )
    assert len(history.frame) == 3 and history.frame.notna().all().all()


def test_augmented_rows_set_the_pace(tmp_path):
    history = unlearn(
        tiny(),
        make_tokenizer(),
        FORGET,
        RETAIN,
        "relearn",
        settings=UnlearnSettings(**QUICK, epochs=2),
        out=tmp_path / "out",
        progress=False,
        augmented=AUGMENTED,
    )
    assert len(history.frame) == 2 * 12 / 3


def test_the_reference_of_dpo_is_the_given_model(tmp_path):
    first = unlearn(
        tiny(),
        make_tokenizer(),
        FORGET,
        RETAIN,
        "dpo",
        settings=UnlearnSettings(**QUICK, steps=1),
        out=tmp_path / "out",
        progress=False,
        augmented=AUGMENTED,
    ).frame["dpo"][0]
    assert first == pytest.approx(0.6931472, abs=1e-5)


@pytest.mark.parametrize(
    "objective, augmented, part",
    [
        ("relearn", None, "give them as augmented=..."),
        ("relearn", [], "no augmented rows"),
        ("dpo", rows(3, seed=1), "no column 'rejected'"),
        ("dpo(on=forget)", AUGMENTED, "on must be one of 'augmented'"),
        ("dpo(beta=0)", AUGMENTED, "beta must be a number above 0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, objective, augmented, part):
    with pytest.raises(UnlearnError) as error:
        unlearn(
            tiny(),
            make_tokenizer(),
            FORGET,
            RETAIN,
            objective,
            settings=UnlearnSettings(**QUICK, steps=1),
            out=tmp_path / "out",
            progress=False,
            augmented=augmented,
        )
    assert part in str(error.value) and "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_baselines_do_not_need_augmented_rows(tmp_path):
    for name in ("ga-gdr", "npo-klr"):
        assert len(run(tiny(), make_tokenizer(), tmp_path / name, name).frame) == 3
