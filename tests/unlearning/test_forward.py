"""One forward for all terms: inner layers, lines that are shared, padding of published code."""

import pytest
import torch
from toys import FORGET, RETAIN, make_tokenizer, tiny, with_adapter

from unlearn_nb.objectives import (
    resolve,
    token_logps,
)
from unlearn_nb.unlearning import UnlearnSettings, compute_reference, forward_terms, make_batcher, schedule_for


def prepared(model, objective, share=False, length=24):
    data = {"forget": FORGET, "retain": RETAIN}
    batcher = make_batcher(make_tokenizer(), data, resolve(objective), max_length=length)
    schedule = schedule_for(batcher, UnlearnSettings(batch_size=2, steps=8))
    batcher.reference, batcher.share_lines = compute_reference(model, batcher, schedule), share
    return batcher, schedule


def test_layers_are_read_at_the_answer_tokens_and_the_reference_is_the_model_as_given():
    model, moved = tiny(dtype=torch.float64), tiny(seed=9, dtype=torch.float64)
    batcher, schedule = prepared(model, "rmu(layer=0) + embed_diff(layer=-1)", share=True)
    inputs = forward_terms(moved, batcher.objective, batcher(schedule[:4]))
    assert inputs["forget"].token_logps is None and inputs["forget"].ref_hidden == {}
    for group in ("forget", "retain"):
        order = [
            i
            for line in batcher._lines(
                group, {g: [i for item in schedule[:4] for i in item[g]] for g in ("forget", "retain")}
            )
            for i in line
        ]
        for key, source in (("hidden", moved), ("ref_hidden", model)):
            if group == "forget" and key == "ref_hidden":
                continue
            for layer in (0, -1):
                parts = []
                for i in order:
                    row = batcher.rows[group][i]
                    outputs = source(torch.tensor([row.input_ids]), output_hidden_states=True).hidden_states
                    parts.append(outputs[layer + 1] if layer == 0 else outputs[-1])
                    parts[-1] = parts[-1][0, [t for t, label in enumerate(row.labels) if label != -100]]
                found = getattr(inputs[group], key)[layer]
                found = found if layer == 0 else source.model.norm(found)
                torch.testing.assert_close(found, torch.cat(parts))


def test_a_row_whose_terms_look_at_layers_alone_costs_no_logits(monkeypatch):
    model = tiny()
    batcher, schedule = prepared(model, "rmu(layer=0) + embed_diff(layer=0)")
    widths = []
    model.lm_head.register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))
    loss, _ = batcher.objective(forward_terms(model, batcher.objective, batcher(schedule[:2])))
    assert widths == [0] and loss.requires_grad


ALL = "0.1*simnpo + wga + satimp + undial + ceu + rmu(layer=0) + 0.5*embed_diff(layer=1) + nll"


@pytest.mark.parametrize("kind", ["plain", "base+adapter"])
def test_sharing_lines_and_padding_change_nothing(kind):
    model, moved = tiny(dtype=torch.float64), tiny(seed=9, dtype=torch.float64)
    if kind == "base+adapter":
        model, moved = with_adapter(model), with_adapter(moved, seed=5)
    batcher, schedule = prepared(model, ALL)
    head = model.get_output_embeddings()
    results = []
    for batcher.share_lines in (False, True):
        moved.zero_grad()
        loss, values = batcher.objective(forward_terms(moved, batcher.objective, batcher(schedule[:8]), head=head))
        loss.backward()
        results.append((loss, *values.values(), *(p.grad.clone() for p in moved.parameters() if p.grad is not None)))
    for separate, shared in zip(*results):
        torch.testing.assert_close(shared, separate, rtol=1e-9, atol=1e-10)
    batch = batcher(schedule[:8])
    totals = {group: {key: 0 for key in batch["counts"][group]} for group in batch["counts"]}
    parts = [batcher(schedule[i : i + 2]) for i in range(0, 8, 2)]
    for part in parts:
        for group, counts in part["counts"].items():
            for key, count in counts.items():
                totals[group][key] += count
    summed = sum(
        batcher.objective(forward_terms(moved, batcher.objective, part, counts=totals, head=head))[0] for part in parts
    )
    assert summed.item() == pytest.approx(results[0][0].item(), rel=1e-9)


def test_the_published_undial_sees_prompt_and_padding_of_a_batch():
    model = tiny(dtype=torch.float64)
    batcher, schedule = prepared(model, "undial(faithful=True)", length=20)
    inputs = forward_terms(model, batcher.objective, batcher(schedule[:3]))["forget"]
    width = max(len(batcher.rows["forget"][i].input_ids) for item in schedule[:3] for i in item["forget"])
    assert inputs.all_logits.shape == inputs.all_ref_logits.shape == (3 * width, 200)
    assert len(inputs.all_targets) == 3 * width < 60
    assert inputs.all_targets[inputs.all_targets != -100].tolist() == inputs.targets.tolist()
    torch.testing.assert_close(
        token_logps(inputs.all_logits[inputs.all_targets != -100], inputs.targets), inputs.token_logps
    )
