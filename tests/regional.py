"""Training settings and comparisons that tests of regions share."""

import torch
from hypothesis import strategies as st

from unlearn_nb.regions import Region

HARSH = dict(method="full", lr=2e-2, steps=3, batch_size=2, accumulation=2, weight_decay=0.3, max_grad_norm=0.5)


def full_masks(region):
    """The same region, written down weight by weight."""
    return Region({n: m.expand(region.shapes[n]).clone() for n, m in region.masks.items()}, region.shapes)


def changed(before, model):
    return {name: before[name] != p.detach() for name, p in model.named_parameters()}


masks = st.sampled_from([(1, 1), (1, 4), (3, 1), (3, 4)]).flatmap(
    lambda shape: st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda bits: torch.tensor(bits).reshape(shape)
    )
)
