"""DPO equals its formula."""

import pytest
import torch
import torch.nn.functional as F

from unlearn_nb.objectives import TermInputs, parse_objective, resolve


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
