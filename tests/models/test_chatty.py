"""The chat model that tests unlearn: it knows its rows in both formats, and no others."""

from chatty import FORMATS, verbatim

from unlearn_nb.benches import read_own_rows
from unlearn_nb.models import load_model


def test_the_chat_model_knows_its_rows_by_heart_and_no_others(chatty_folder):
    model, tokenizer = load_model(chatty_folder / "model")
    rows = {split: read_own_rows(chatty_folder / f"{split}.jsonl") for split in ("forget", "retain", "holdout")}
    for template in FORMATS:
        assert {split: verbatim(model, tokenizer, found, template) for split, found in rows.items()} == {
            "forget": 12, "retain": 30, "holdout": 0}
