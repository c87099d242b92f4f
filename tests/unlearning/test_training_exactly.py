"""Gradients, references and forwards of training equal plain computations, however batches are cut."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from toys import (
    DEFAULT,
    FORGET,
    QUICK,
    RETAIN,
    VOCAB,
    run,
    small,
    tiny,
    with_adapter,
)
from transformers import (
    TrainerCallback,
)

from unlearn_nb.models import Row, encode
from unlearn_nb.objectives import resolve
from unlearn_nb.unlearning import (
    Batcher,
    Reference,
    UnlearnSettings,
    can_share_lines,
    compute_reference,
    forward_terms,
    make_batcher,
    make_trainer,
    schedule_for,
    trainable,
)

DATA = {"forget": FORGET, "retain": RETAIN}


def plain_logits(model, row):
    """Logits of one unpadded row: the model called as anyone would."""
    return model(torch.tensor([row.input_ids])).logits[0]


def reference_for(model, tokenizer, objective=DEFAULT, **changes):
    settings = UnlearnSettings(**QUICK | changes)
    batcher = make_batcher(tokenizer, DATA, resolve(objective), max_length=settings.max_length)
    schedule = [{"forget": [i % 8], "retain": [i]} for i in range(10)]
    batcher.reference = compute_reference(model, batcher, schedule)
    return batcher, schedule


class Gradients(TrainerCallback):
    """Keeps the accumulated gradient of every step, before the optimiser sees it."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def gradients(tokenizer, objective, tmp_path, **cut):
    """Gradient of one step on 8 forget and 8 retain rows, through the real trainer, on an adapter away from zero."""
    settings = UnlearnSettings(**QUICK | dict(steps=1, max_grad_norm=0.0) | cut)
    model = with_adapter(tiny())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batcher = make_batcher(tokenizer, DATA, resolve(objective), max_length=settings.max_length)
    schedule, keep = schedule_for(batcher, settings), Gradients()
    with model.disable_adapter():
        batcher.reference = compute_reference(model, batcher, schedule)
    batcher.share_lines = True
    trainer = make_trainer(
        model, batcher, settings=settings, schedule=schedule, folder=tmp_path, callbacks=[keep], progress=False
    )
    trainer.train()
    return keep.steps[0], trainer.records[0]


@pytest.mark.parametrize("objective", [DEFAULT, "ga + kl(direction=forward)", "ga(per=sequences) + nll(per=sequences)"])
@pytest.mark.parametrize("retain_per_forget", [1, 1.5])
def test_gradient_does_not_depend_on_how_the_batch_is_cut(tokenizer, tmp_path, objective, retain_per_forget):
    cuts = [dict(batch_size=8, accumulation=1), dict(batch_size=4, accumulation=2), dict(batch_size=1, accumulation=8)]
    results = [gradients(tokenizer, objective, tmp_path, retain_per_forget=retain_per_forget, **cut) for cut in cuts]
    whole, record = results[0]
    assert max(g.abs().max() for g in whole.values()) > 1e-3
    for other, other_record in results[1:]:
        for name, grad in whole.items():
            torch.testing.assert_close(other[name], grad, rtol=1e-4, atol=2e-6)
        assert {k: other_record[k] for k in record if k != "seconds"} == pytest.approx(
            {k: v for k, v in record.items() if k != "seconds"}, rel=1e-5
        )


def test_two_processes_do_what_one_does(tokenizer, tmp_path):
    """`torchrun` with half of the batch in each process: the same history, one output folder."""
    script = tmp_path / "two.py"
    script.write_text(
        "import pathlib, sys\nimport toys as t\n"
        "t.run(t.tiny(), t.make_tokenizer(), pathlib.Path(sys.argv[1]), batch_size=4, steps=3, snapshots=[2])\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
        str(tmp_path / "two"),
    ]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, timeout=300)
    one = run(tiny(), tokenizer, tmp_path / "one", batch_size=8).frame.drop(columns="seconds")
    two = pd.read_csv(tmp_path / "two" / "history.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-6)
    assert (tmp_path / "two" / "snapshots" / "step-2" / "adapter_model.safetensors").exists()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["one", "two", "two.py"]


def test_faithful_terms_do_depend_on_the_cut(tokenizer, tmp_path):
    cuts = [dict(batch_size=8, accumulation=1), dict(batch_size=1, accumulation=8)]
    losses = [gradients(tokenizer, "nll(faithful=zjunlp)", tmp_path, **cut)[1]["loss"] for cut in cuts]
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("make", [tiny, lambda: with_adapter(tiny())], ids=["plain", "base+adapter"])
def test_reference_equals_plain_calls_of_the_target(tokenizer, make):
    """One row a batch, so that the reference pass and a plain call see the same shapes."""
    model = make()
    batcher, schedule = reference_for(model, tokenizer)
    for i in range(8):
        row = batcher.rows["forget"][i]
        single = compute_reference(model, batcher, [{"forget": [i], "retain": [i]}])
        answers = [t for t, label in enumerate(row.labels) if label != -100]
        with torch.no_grad():
            logits = plain_logits(model, row)[[t - 1 for t in answers]]
        expected = logits[range(len(answers)), [row.labels[t] for t in answers]] - logits.logsumexp(-1)
        torch.testing.assert_close(single.logps["forget"][i], expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(batcher.reference.logps["forget"][i], expected, rtol=0, atol=2e-5)
        if isinstance(model, PeftModel):
            with model.disable_adapter():
                off = compute_reference(model, batcher, [{"forget": [i], "retain": [i]}])
            assert (off.logps["forget"][i] - expected).abs().max() > 1e-2  # adapter off is another model


@pytest.mark.parametrize("make", [tiny, lambda: with_adapter(tiny())], ids=["plain", "base+adapter"])
def test_adapter_starts_at_the_reference_bit_for_bit(tokenizer, make):
    """With its fresh adapter (B = 0) attached, in training mode, the model gives the reference's own numbers."""
    model, settings = make(), UnlearnSettings(**QUICK)
    batcher, _ = reference_for(model, tokenizer)
    item = [{"forget": [2], "retain": [3]}]
    batcher.reference = compute_reference(model, batcher, item)
    shape = {g: batcher.rows[g][item[0][g][0]] for g in ("forget", "retain")}
    with trainable(model, tokenizer, settings) as (trained, _):
        trained.train()
        for group, row in shape.items():
            alone = Batcher(
                {group: [row]},
                resolve("npo + kl(on=forget)" if group == "forget" else "kl + npo(on=retain)"),
                Reference(),
                0,
                24,
            )
            alone.reference = compute_reference(trained, alone, [{group: [0]}])
            inputs = forward_terms(trained, alone.objective, alone([{group: [0]}]))[group]
            assert torch.equal(inputs.token_logps, inputs.ref_token_logps)
            if group == "forget":
                assert torch.equal(inputs.ref_token_logps, batcher.reference.logps["forget"][2])
            torch.testing.assert_close(inputs.logits, inputs.ref_logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["lora", "base+adapter", "full"])
def test_cached_reference_equals_a_fresh_one_after_training(tokenizer, tmp_path, kind, tied):
    """After three steps the cache still says what the untouched model says: logps, and logits by the frozen head."""
    model = tiny(tied=tied)
    original = tiny(tied=tied)
    if kind == "base+adapter":
        model, original = with_adapter(model), with_adapter(original)
    settings = UnlearnSettings(**QUICK | dict(method="full" if kind == "full" else "lora", lr=1e-2))
    batcher, schedule = reference_for(model, tokenizer)
    if kind == "full":
        batcher.reference.head = copy.deepcopy(model.get_output_embeddings()).requires_grad_(False)
    with trainable(model, tokenizer, settings) as (trained, _):
        trainer = make_trainer(
            trained, batcher, settings=settings, schedule=schedule[:6], folder=tmp_path, progress=False
        )
        trainer.train()
        trained.eval()
        with torch.no_grad():
            inputs = forward_terms(trained, batcher.objective, batcher(schedule[:4]), head=batcher.reference.head)
            fresh = forward_terms(original, batcher.objective, batcher(schedule[:4]))
    for group in ("forget", "retain"):
        assert (inputs[group].token_logps - fresh[group].token_logps).abs().max() > 1e-2  # it did move
    torch.testing.assert_close(inputs["forget"].ref_token_logps, fresh["forget"].token_logps, rtol=0, atol=1e-5)
    torch.testing.assert_close(inputs["retain"].ref_logits, fresh["retain"].logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["lora", "base+adapter", "full"])
def test_recorded_kl_is_the_distance_to_the_untouched_model(tokenizer, tmp_path, kind, tied):
    """Every step sees every row, so the KL of step k+1 is that of the weights after step k, by plain calls."""
    original, model = tiny(tied=tied), tiny(tied=tied)
    if kind == "base+adapter":
        original, model = with_adapter(original), with_adapter(model)
    encoded = [Row(*encode(tokenizer, row["prompt"], row["response"], max_length=24)) for row in RETAIN]
    fresh = []

    def on_step(step, live):
        live.eval()
        total, tokens = 0.0, 0
        for row in encoded:
            at = [t - 1 for t, label in enumerate(row.labels) if label != -100]
            with torch.no_grad():
                new, old = (plain_logits(m, row)[at].log_softmax(-1) for m in (live, original))
            total, tokens = total + (new.exp() * (new - old)).sum().item(), tokens + len(at)
        fresh.append(total / tokens)

    changes = dict(batch_size=8, retain_per_forget=1.25, steps=4, lr=5e-3, method="full" if kind == "full" else "lora")
    frame = run(model, tokenizer, tmp_path / "out", on_step=on_step, **changes).frame
    assert fresh[0] > 1e-4
    assert frame.kl[1:].tolist() == pytest.approx(fresh[:-1], rel=1e-3)


@pytest.mark.parametrize("objective", [DEFAULT, "npo(faithful=zjunlp) + kl(faithful=zjunlp) + nll"])
def test_padding_changes_nothing(tokenizer, objective):
    """One batch of uneven rows against the same rows one by one, in float64."""
    model, moved = tiny(dtype=torch.float64), tiny(seed=9, dtype=torch.float64)
    batcher, schedule = reference_for(model, tokenizer, objective)
    together = forward_terms(moved, batcher.objective, batcher(schedule[:5]))
    singles = [forward_terms(moved, batcher.objective, batcher([item])) for item in schedule[:5]]
    for group in ("forget", "retain"):
        torch.testing.assert_close(torch.cat([s[group].token_logps for s in singles]), together[group].token_logps)
        if together[group].ref_logits is not None:
            torch.testing.assert_close(torch.cat([s[group].ref_logits for s in singles]), together[group].ref_logits)


@pytest.mark.parametrize("objective", [DEFAULT, "npo(faithful=zjunlp) + kl(direction=forward) + nll(per=sequences)"])
def test_sharing_lines_changes_nothing(tokenizer, objective):
    """Short rows on one line: same loss, same gradient, fewer tokens."""
    model, moved = tiny(dtype=torch.float64), tiny(seed=9, dtype=torch.float64)
    batcher, schedule = reference_for(model, tokenizer, objective)
    results, tokens = [], []
    for batcher.share_lines in (False, True):
        batch = batcher(schedule[:8])
        moved.zero_grad()
        loss, _ = batcher.objective(forward_terms(moved, batcher.objective, batch, head=model.lm_head))
        loss.backward()
        results.append((loss, *(p.grad.clone() for p in moved.parameters())))
        tokens.append(batch["input_ids"].numel())
    for separate, shared in zip(*results):
        torch.testing.assert_close(shared, separate, rtol=1e-9, atol=1e-10)
    assert tokens[1] < 0.8 * tokens[0]


@pytest.mark.parametrize(
    "name, expected", [("llama", True), ("gpt2", True), ("gpt_neox", True), ("mamba", False), ("bloom", False)]
)
def test_lines_are_shared_only_where_the_model_keeps_rows_apart(tokenizer, name, expected):
    model = small(name, **({"intermediate_size": 48} if name != "mamba" else {}))
    batcher, schedule = reference_for(model, tokenizer)
    assert can_share_lines(model, batcher.rows["forget"], 0) is expected
    loss, _ = batcher.objective(forward_terms(model, batcher.objective, batcher(schedule[:4])))
    assert loss.isfinite()


def test_forward_equals_plain_calls(tokenizer):
    """Loss of the fused forward = loss from separate, unpadded calls of two whole models."""
    model, moved = tiny(dtype=torch.float64), tiny(seed=9, dtype=torch.float64)
    batcher, schedule = reference_for(model, tokenizer)
    loss, values = batcher.objective(forward_terms(moved, batcher.objective, batcher(schedule[:4]), head=model.lm_head))
    npo, kl, nll, tokens = 0.0, 0.0, 0.0, 0
    for item in schedule[:4]:
        row = batcher.rows["forget"][item["forget"][0]]
        at = [t - 1 for t, label in enumerate(row.labels) if label != -100]
        target = torch.tensor(row.labels)[[t + 1 for t in at]]
        gap = [plain_logits(m, row)[at].log_softmax(-1)[range(len(at)), target].sum().item() for m in (moved, model)]
        npo += 2 / 0.1 * math.log1p(math.exp(0.1 * (gap[0] - gap[1]))) / 4
        row = batcher.rows["retain"][item["retain"][0]]
        at = [t - 1 for t, label in enumerate(row.labels) if label != -100]
        new, old = (plain_logits(m, row)[at].log_softmax(-1) for m in (moved, model))
        kl += (new.exp() * (new - old)).sum().item()
        nll -= new[range(len(at)), torch.tensor(row.labels)[[t + 1 for t in at]]].sum().item()
        tokens += len(at)
    assert values["npo"].item() == pytest.approx(npo, rel=1e-6)
    assert values["kl"].item() == pytest.approx(kl / tokens, rel=1e-6)
    assert values["nll"].item() == pytest.approx(nll / tokens, rel=1e-6)
    assert loss.item() == pytest.approx(0.4 * npo + 0.4 * kl / tokens + 0.2 * nll / tokens, rel=1e-6)


def test_faithful_objective_equals_the_published_computation(tokenizer):
    """Both micro-batches padded left to max_length, batch-mean CE in NPO, forward KL over all B*L positions."""
    model, moved = tiny(dtype=torch.float64), tiny(seed=9, dtype=torch.float64)
    batcher, schedule = reference_for(model, tokenizer, "zjuklab-over-zjunlp")
    loss, values = batcher.objective(forward_terms(moved, batcher.objective, batcher(schedule[:4]), head=model.lm_head))

    def outputs(m, group):
        ids, mask, labels = [], [], []
        for item in schedule[:4]:
            row = batcher.rows[group][item[group][0]]
            gap = 24 - len(row.input_ids)
            ids.append([0] * gap + row.input_ids)
            mask.append([0] * gap + [1] * len(row.input_ids))
            labels.append([-100] * gap + row.labels)
        ids, mask, labels = torch.tensor(ids), torch.tensor(mask), torch.tensor(labels)
        out = m(input_ids=ids, attention_mask=mask, labels=labels)
        return out.loss.item(), out.logits

    (c, _), (c_ref, _) = outputs(moved, "forget"), outputs(model, "forget")
    npo = 2 / 0.1 * math.log1p(math.exp(-0.1 * (c - c_ref)))
    (ce, logits), (_, ref_logits) = outputs(moved, "retain"), outputs(model, "retain")
    logp, ref_logp = (x.log_softmax(-1).view(-1, VOCAB) for x in (logits, ref_logits))
    assert len(logp) == 4 * 24
    kl = (ref_logp.exp() * (ref_logp - logp)).sum().item() / len(logp)
    assert values["npo"].item() == pytest.approx(npo, rel=1e-6)
    assert values["kl"].item() == pytest.approx(kl, rel=1e-6)
    assert values["nll"].item() == pytest.approx(ce, rel=1e-6)
    assert loss.item() == pytest.approx(0.4 * npo + 0.4 * kl + 0.2 * ce, rel=1e-6)


def test_an_answer_that_is_all_masked_is_harmless(tokenizer):
    model = tiny()
    batcher, _ = reference_for(model, tokenizer)
    prompt_only = Row([5, 6, 7, 8], [-100] * 4)
    for group in ("forget", "retain"):
        batcher.rows[group] = [prompt_only, Row([5, 9, 1], [-100, 9, 1])]
    for items in (
        [{"forget": [0], "retain": [0]}],
        [{"forget": [0], "retain": []}],
        [{"forget": [0, 1], "retain": [1, 0]}],
    ):
        batcher.reference = compute_reference(model, batcher, items)
        model.zero_grad()
        loss, values = batcher.objective(forward_terms(model, batcher.objective, batcher(items)))
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        if 1 not in items[0]["forget"]:
            assert loss.item() == 0.0
