"""The trainer on tiny random Llamas: exact references, invariance to batching, faithful terms, files and faults."""

import json
import math

import pytest
import torch
from peft import PeftModel
from toys import (
    DEFAULT,
    RETAIN,
    run,
    same,
    state,
    tiny,
    with_adapter,
)
from transformers import (
    AutoModelForCausalLM,
)

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import resolve
from unlearn_nb.unlearning import (
    UnlearnSettings,
)


def reloaded(kind, out):
    base = tiny()
    if kind == "full":
        return AutoModelForCausalLM.from_pretrained(out)
    if kind == "lora":
        return PeftModel.from_pretrained(base, out)
    target = with_adapter(base)
    target.load_adapter(out, "second")
    target.base_model.set_adapter(["default", "second"])
    return target


@pytest.mark.parametrize("kind", ["lora", "base+adapter", "full"])
def test_saved_result_reloads_to_equal_logits(tokenizer, tmp_path, kind):
    model = with_adapter(tiny()) if kind == "base+adapter" else tiny()
    before, flags, names = (
        state(model),
        [p.requires_grad for p in model.parameters()],
        list(dict(model.named_modules())),
    )
    ids, seen = torch.tensor([[5, 6, 7, 8]]), {}

    def on_step(step, live):
        live.eval()
        with torch.no_grad():
            seen[step] = live(ids).logits

    history = run(
        model, tokenizer, tmp_path / "out", method="full" if kind == "full" else "lora", on_step=on_step, snapshots=[2]
    )
    for folder, step in ((history.path, 3), (history.path / "snapshots" / "step-2", 2)):
        with torch.no_grad():
            logits = reloaded(kind, folder).eval()(ids).logits
        torch.testing.assert_close(logits, seen[step], rtol=0, atol=1e-6)
    assert (seen[2] - seen[3]).abs().max() > 1e-4
    if kind != "full":  # the given model is as it was
        assert same(before, state(model)) and names == list(dict(model.named_modules()))
        if kind == "base+adapter":
            assert model.active_adapters == ["default"] and list(model.peft_config) == ["default"]
            assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
    assert flags == [p.requires_grad for p in model.parameters()]
    assert not model.training
    assert {f.name for f in history.path.iterdir()} >= {"history.csv", "settings.json", "snapshots"}
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_history_says_what_happened(tokenizer, tmp_path):
    history = run(tiny(), tokenizer, tmp_path / "out", steps=4, warmup=0.5, lr=1e-2)
    frame = history.frame
    assert list(frame.columns) == ["step", "lr", "loss", "npo", "kl", "nll", "grad_norm", "seconds"]
    assert frame.step.tolist() == [1, 2, 3, 4]
    assert frame.npo[0] == pytest.approx(2 / 0.1 * math.log(2), rel=1e-5) and abs(frame.kl[0]) < 1e-5 < frame.kl[3]
    assert frame.loss.to_numpy() == pytest.approx(
        (0.4 * frame.npo + 0.4 * frame.kl + 0.2 * frame.nll).to_numpy(), rel=1e-6
    )
    assert history.peak_mb > 50 and 0 < history.frame.seconds.sum() <= history.seconds
    settings = json.loads((history.path / "settings.json").read_text())
    assert resolve(settings["objective"]) == resolve(DEFAULT) and settings["optimiser_steps"] == 4


@pytest.mark.parametrize("term", ["npo", "ga", "nll"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_lowers_each_term(tokenizer, tmp_path, term, method):
    frame = run(
        tiny(), tokenizer, tmp_path / "out", term, batch_size=8, steps=6, lr=1e-2, method=method, retain_per_forget=1.25
    ).frame
    assert frame[term].iloc[-1] < frame[term].iloc[0] - 0.05


def test_same_seed_gives_the_same_bits(tokenizer, tmp_path):
    results = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        history = run(
            tiny(),
            tokenizer,
            tmp_path / name,
            seed=seed,
            lora_dropout=0.1,
            snapshots=[1] if name == "b" else [],
            on_step=(lambda step, model: torch.rand(3)) if name == "b" else None,
        )
        results[name] = history.frame.drop(columns="seconds"), (history.path / "adapter_model.safetensors").read_bytes()
    assert results["a"][0].equals(results["b"][0]) and results["a"][1] == results["b"][1]
    assert results["a"][1] != results["c"][1]


def test_unlearning_twice_from_one_model_starts_from_the_same_place(tokenizer, tmp_path):
    model = tiny()
    first = run(model, tokenizer, tmp_path / "a")
    second = run(model, tokenizer, tmp_path / "b")
    assert first.frame.drop(columns="seconds").equals(second.frame.drop(columns="seconds"))


def test_bfloat16_runs_under_autocast_with_float32_losses(tokenizer, tmp_path):
    model = tiny()
    exact, low = run(model, tokenizer, tmp_path / "a"), run(model, tokenizer, tmp_path / "b", dtype="bfloat16")
    assert low.frame.kl[0] < 1e-3  # the reference ran in the same precision
    assert low.frame.nll[0] == pytest.approx(exact.frame.nll[0], rel=1e-2) and low.frame.nll[0] != exact.frame.nll[0]
    assert model(torch.tensor([[5]])).logits.dtype == torch.float32
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("objective, groups", [("ga", {"forget"}), ("npo", {"forget"}), ("nll", {"retain"})])
def test_rows_that_no_term_reads_are_left_out(tokenizer, tmp_path, objective, groups):
    history = run(tiny(), tokenizer, tmp_path / "out", objective, retain=[] if groups == {"forget"} else RETAIN)
    assert len(history.frame) == 3


@pytest.mark.parametrize("kind", ["lora", "base+adapter"])
def test_a_loss_that_is_not_finite_leaves_no_folder(tokenizer, tmp_path, kind):
    model = with_adapter(tiny()) if kind == "base+adapter" else tiny()
    names = list(dict(model.named_modules()))

    def poison(step, live):
        if step == 2:
            next(p for n, p in live.named_parameters() if p.requires_grad).data.fill_(math.nan)

    with pytest.raises(UnlearnError, match=r"^the term npo is nan at step 3: [^\n]*$"):
        run(model, tokenizer, tmp_path / "out", on_step=poison, steps=5, snapshots=[1])
    assert list(tmp_path.iterdir()) == []
    assert names == list(dict(model.named_modules()))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(forget=[]), "there are no forget rows"),
        (dict(retain=[]), "there are no retain rows"),
        (dict(forget=[{"prompt": "w5"}]), "no column 'response'"),
        (dict(objective="0.4*np0"), "did you mean 'npo'"),
    ],
)
def test_bad_input_gets_one_sentence(tokenizer, tmp_path, changes, message):
    with pytest.raises(UnlearnError, match=message):
        run(tiny(), tokenizer, tmp_path / "out", **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        dict(lr=0),
        dict(steps=0),
        dict(batch_size=-1),
        dict(method="qlora"),
        dict(dtype="float16"),
        dict(lora_dropout=1.0),
        dict(warmup="week"),
        dict(warmup=2),
        dict(lr="fast"),
    ],
)
def test_bad_settings_are_named(changes):
    with pytest.raises(UnlearnError, match=next(iter(changes))):
        UnlearnSettings(**changes)


def test_a_full_folder_is_not_overwritten(tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(UnlearnError, match="not empty"):
        run(tiny(), tokenizer, tmp_path / "out")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_full_training_of_an_adapter_model_is_refused(tokenizer, tmp_path):
    with pytest.raises(UnlearnError, match="merge the adapter"):
        run(with_adapter(tiny()), tokenizer, tmp_path / "out", method="full")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gpu_agrees_with_cpu(tokenizer, tmp_path, dtype):
    cpu = run(tiny(), tokenizer, tmp_path / "cpu", dtype=dtype)
    gpu = run(tiny().cuda(), tokenizer, tmp_path / "gpu", dtype=dtype)
    assert gpu.frame.loss.to_numpy() == pytest.approx(
        cpu.frame.loss.to_numpy(), rel=1e-4 if dtype == "float32" else 3e-2
    )
    assert gpu.peak_mb < 200
