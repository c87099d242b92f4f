"""Rules: rows of any kind and language are rewritten, and nothing of an answer is given away."""

from random import Random

import pytest
from chatty import chatty_rows

from unlearn_nb.augmentation import RuleAuthor, augment, holds, topics, typing_errors


def rows_of(*pairs):
    return [{"id": str(i), "prompt": prompt, "response": response, "subject": str(i), "task": "own", "kind": "qa"}
            for i, (prompt, response) in enumerate(pairs)]


STRANGE = rows_of(("東京の首都は?", "東京タワー"), ("???", "yes"), ("x" * 3000, "long"), ("a {b} %s", "c {d}"),
                  ("2+2", "4"),
                  ("Wo wohnt Müller, der Bäcker?", "In Köln, am Rhein."), ("Tell me.\nNow.", "A b c d e f g"))


@pytest.mark.parametrize("rows", [STRANGE, rows_of(*((r["prompt"], r["response"]) for r in chatty_rows()["forget"]))])
def test_every_row_gets_rows_that_give_nothing_away(rows):
    made = augment(rows, RuleAuthor(), rounds=6, cut=None, include_original=True)
    by_id = {row["id"]: row for row in rows}
    assert {row["source_id"] for row in made.rows} == set(by_id)
    for row in made.rows:
        assert not holds(row["response"], by_id[row["source_id"]]["response"])
        assert not holds(row["prompt"], by_id[row["source_id"]]["response"])


def test_a_question_with_its_answer_in_it_is_left_out():
    rows = rows_of(("Is the capital Rome, or is it Oslo?", "Rome"))
    for seed in range(20):  # a typing error in the answer does not hide it
        assert not len(augment(rows, RuleAuthor(seed), rounds=6).rows)


def test_the_same_seed_gives_the_same_texts():
    rows = [row for row in STRANGE if row["id"] != "2"]
    texts = [augment(rows, RuleAuthor(seed)).rows["response"] for seed in (1, 1, 2)]
    assert list(texts[0]) == list(texts[1]) != list(texts[2])


def test_what_a_question_is_about_holds_no_private_text():
    assert "Rome" not in " ".join(topics("Who built Rome in Italy?", ["Rome"]))
    assert topics("?") == ['the question "?"'] and topics("Rome?", ["rome"]) == []


def test_a_text_without_words_has_no_typing_errors():
    assert typing_errors("??", set(), Random(0)) == "??"
