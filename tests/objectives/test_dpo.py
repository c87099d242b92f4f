"""DPO equals its formula."""

import math

import pytest
import torch
import torch.nn.functional as F

from unlearn_nb.objectives import DPO, TermInputs, parse_objective, resolve


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
    assert resolve("relearn-dpo-zjunlp")(inputs)[0].item() == pytest.approx((-20 * F.logsigmoid(0.1 * margin)).item())


def test_open_unlearning_means_rows_within_micro_batches_and_scales_by_two_over_beta():
    gains = {"chosen": [[1.0, 2.0], [0.5]], "rejected": [[-1.0], [0.25, 0.25, 1.0]]}
    def side(values, counts):
        flat = torch.tensor([x for row in values for x in row], dtype=torch.float64)
        rows = torch.tensor([i for i, row in enumerate(values) for _ in row])
        return TermInputs(flat, rows, len(values), torch.zeros_like(flat), counts=counts)
    def expected(rows):
        margins = [sum(gains["chosen"][i]) - sum(gains["rejected"][i]) for i in rows]
        return sum(2 / 0.5 * math.log1p(math.exp(-0.5 * m)) for m in margins) / len(margins)
    term = DPO(beta=0.5, faithful="open-unlearning")
    whole = term(side(gains["chosen"], None), side(gains["rejected"], None)).item()
    assert whole == pytest.approx(expected([0, 1])) == pytest.approx(2 / 0.5 * DPO(beta=0.5)(
        side(gains["chosen"], None), side(gains["rejected"], None)).item())
    counts = {"tokens": 9, "rows": 3, "sequences": 3, "microbatches": 2}
    parts = [term(side([gains["chosen"][i]], counts), side([gains["rejected"][i]], counts)).item() for i in (0, 1)]
    assert sum(parts) == pytest.approx((expected([0]) + expected([1])) / 2)
