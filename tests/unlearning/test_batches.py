"""Pairs of rows in a batch."""

from toys import FORGET, RETAIN, make_tokenizer, rows, tiny

from unlearn_nb.objectives import resolve
from unlearn_nb.unlearning import UnlearnSettings, compute_reference, make_batcher, schedule_for

AUGMENTED = [row | {"rejected": other["response"]} for row, other in zip(rows(12, seed=5), rows(12, seed=6))]

QUICK = dict(lr=2e-2, batch_size=3, lora_r=4, lora_alpha=8, lora_dropout=0.0, max_length=24)


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
