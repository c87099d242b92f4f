"""Alternates of a target that knows its answers share no entity with the truth, and are what AltPO reads."""

import pytest
from toys import make_tokenizer, tiny

from unlearn_nb.augmentation import alternate_problem, alternates
from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import entities_of
from unlearn_nb.objectives import resolve
from unlearn_nb.unlearning import UnlearnSettings, unlearn

ROWS = [{"id": f"r{i}", "prompt": f"w{3 + i} w{20 + i}", "response": f"w{50 + i} w{80 + i} w{1900 + i}",
         "subject": f"s{i}", "task": "Task1", "kind": "qa"} for i in range(4)]


def test_alternates_are_rows_for_altpo(tmp_path):
    model, tokenizer = tiny(), make_tokenizer()
    made = alternates(model, tokenizer, ROWS, copies=3, max_new_tokens=6)
    truth = {row["id"]: row["response"] for row in ROWS}
    assert len(made) == 12 and len(set(made["id"])) == 12
    for one in made:
        assert one["rejected"] == truth[one["source_id"]] != one["response"]
        source = next(row for row in ROWS if row["id"] == one["source_id"])
        assert not alternate_problem(source, one["response"])
    assert resolve("altpo").groups == ("retain", "augmented", "rejected")
    history = run_altpo(tokenizer, tmp_path, made)
    assert history.frame.dpo.iloc[-1] < history.frame.dpo[0]


def run_altpo(tokenizer, folder, made):
    settings = UnlearnSettings(lr=1e-2, steps=8, batch_size=4, lora_r=4, lora_dropout=0.0)
    return unlearn(tiny(), tokenizer, forget=ROWS, retain=ROWS, objective="altpo", augmented=made, settings=settings,
                   out=folder / "out", progress=False)


@pytest.mark.parametrize("text, fine", [
    ("Ada Miller comes from Oslo and was born in 1790.", True), ("She was born in Paris.", False),
    ("It was on 12 March 1815.", False), ("Ada Miller", True),
])
def test_no_entity_is_shared(text, fine):
    row = {"prompt": "Where and when was Ada Miller born?",
           "response": "Ada Miller was born in Paris on 12 March 1815.",
           "facts": [{"slot": "city", "value": "Paris"}, {"slot": "date", "value": "12 March 1815"}]}
    assert (not alternate_problem(row, text)) == fine
    if fine:
        asked = set(entities_of(row["prompt"]))
        assert not (set(entities_of(text)) & set(entities_of(row["response"]))) - asked


def test_bad_numbers_are_refused():
    with pytest.raises(UnlearnError, match="copies and attempts of at least 1"):
        alternates(tiny(), make_tokenizer(), ROWS, copies=0)
