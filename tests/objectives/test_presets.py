"""ReLearn's terms: augmented rows set the pace, rejected answers stay beside their pairs, DPO equals its formula."""

import pytest
import torch
import torch.nn.functional as F
from toys import FORGET, RETAIN, make_tokenizer, rows, run, tiny

from unlearn_nb.core import UnlearnError
from unlearn_nb.objectives import PRESETS, TermInputs, parse_objective, resolve
from unlearn_nb.unlearning import UnlearnSettings, compute_reference, make_batcher, make_schedule, schedule_for, unlearn

AUGMENTED = [row | {"rejected": other["response"]} for row, other in zip(rows(12, seed=5), rows(12, seed=6))]
QUICK = dict(lr=2e-2, batch_size=3, lora_r=4, lora_alpha=8, lora_dropout=0.0, max_length=24)


def sides(seed):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 4, (11,), generator=generator).sort().values

    def logps():
        return -torch.rand(11, generator=generator, dtype=torch.float64) * 5

    return logps().requires_grad_(), logps(), numbers


def test_dpo_equals_the_formula_and_passes_gradcheck():
    (a, ra, na), (b, rb, nb) = sides(0), sides(1)

    def loss(a, b):
        chosen, rejected = TermInputs(a, na, 5, ra), TermInputs(b, nb, 5, rb)  # row 4 has no answer token
        return parse_objective("dpo(beta=0.3)")({"augmented": chosen, "rejected": rejected})[0]

    margins = [(a - ra)[na == i].sum() - (b - rb)[nb == i].sum() for i in range(5)]
    by_hand = torch.stack([-F.logsigmoid(0.3 * m) for m in margins]).mean()
    assert loss(a, b).item() == pytest.approx(by_hand.item(), rel=1e-12)
    assert torch.autograd.gradcheck(loss, (a, b))


def test_faithful_dpo_takes_token_means_of_the_micro_batch():
    (a, ra, na), (b, rb, nb) = sides(2), sides(3)
    inputs = {"augmented": TermInputs(a, na, 4, ra), "rejected": TermInputs(b, nb, 4, rb)}
    margin = (a - ra).mean() - (b - rb).mean()
    assert resolve("relearn-dpo-faithful")(inputs)[0].item() == pytest.approx((-20 * F.logsigmoid(0.1 * margin)).item())


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("relearn")])
def test_every_relearn_preset_trains(tmp_path, name):
    history = unlearn(tiny(), make_tokenizer(), FORGET, RETAIN, name, settings=UnlearnSettings(**QUICK, steps=3), out=tmp_path / "out",
                      progress=False, augmented=AUGMENTED)
    assert len(history.frame) == 3 and history.frame.notna().all().all()


def test_augmented_rows_set_the_pace(tmp_path):
    history = unlearn(tiny(), make_tokenizer(), FORGET, RETAIN, "relearn", settings=UnlearnSettings(**QUICK, epochs=2), out=tmp_path / "out",
                      progress=False, augmented=AUGMENTED)
    assert len(history.frame) == 2 * 12 / 3


def test_rejected_rows_go_with_their_pairs_and_retain_rows_do_not():
    schedule = make_schedule({"augmented": 5, "rejected": 5, "retain": 7}, 10, retain_per_forget=1.5, seed=3)
    assert all(item["augmented"] == item["rejected"] for item in schedule)
    assert sum(len(item["retain"]) for item in schedule) == 15


def test_pairs_stand_in_one_order_where_rows_could_share_lines():
    settings = UnlearnSettings(**QUICK, steps=2)
    data = {"forget": FORGET, "retain": RETAIN, "augmented": AUGMENTED}
    batcher = make_batcher(make_tokenizer(), data, resolve("dpo + nll"), max_length=settings.max_length)
    schedule = schedule_for(batcher, settings)
    batcher.reference, batcher.share_lines = compute_reference(tiny(), batcher, schedule), True
    batch = batcher(schedule[:3])
    for k, item in enumerate(schedule[:3]):
        for group in ("augmented", "rejected"):
            line = sum(list(batch["n_lines"].values())[: list(batch["n_lines"]).index(group)]) + k
            ids = batcher.rows[group][item[group][0]].input_ids
            assert batch["input_ids"][line, : len(ids)].tolist() == ids


def test_the_reference_of_dpo_is_the_given_model(tmp_path):
    first = unlearn(tiny(), make_tokenizer(), FORGET, RETAIN, "dpo", settings=UnlearnSettings(**QUICK, steps=1), out=tmp_path / "out",
                    progress=False, augmented=AUGMENTED).frame["dpo"][0]
    assert first == pytest.approx(0.6931472, abs=1e-5)


@pytest.mark.parametrize("objective, augmented, part", [
    ("relearn", None, "give them as augmented=..."),
    ("relearn", [], "no augmented rows"),
    ("dpo", rows(3, seed=1), "no column 'rejected'"),
    ("dpo(on=forget)", AUGMENTED, "on must be one of 'augmented'"),
    ("dpo(beta=0)", AUGMENTED, "beta must be a number above 0"),
])
def test_bad_input_is_refused_in_one_sentence(tmp_path, objective, augmented, part):
    with pytest.raises(UnlearnError) as error:
        unlearn(tiny(), make_tokenizer(), FORGET, RETAIN, objective, settings=UnlearnSettings(**QUICK, steps=1), out=tmp_path / "out",
                progress=False, augmented=augmented)
    assert part in str(error.value) and "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_baselines_do_not_need_augmented_rows(tmp_path):
    for name in ("ga-gdr", "npo-klr"):
        assert len(run(tiny(), make_tokenizer(), tmp_path / name, name).frame) == 3
