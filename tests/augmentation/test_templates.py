"""Templates: nothing given away, the same texts for the same seed."""

import pytest
from augmenting import ROW, piece

from unlearn_nb.augmentation import VARIANTS, TemplateAuthor, holds
from unlearn_nb.benches import load_bench
from unlearn_nb.core import UnlearnError


@pytest.fixture(scope="module")
def forget():
    return list(load_bench("biographies", size="quick").forget)


def test_templates_give_nothing_away(forget):
    author = TemplateAuthor()
    for attempt in range(3):
        pieces = [piece(row, variant) for row in forget for variant in VARIANTS]
        texts = author.vague(pieces, attempt)
        assert sum(author.leaks(pieces, texts)) < 0.05 * len(pieces)  # a template may share a word with a fact
        for one, text in zip(pieces, texts):
            assert one.row["subject"] in text and text[0].isupper() and text.endswith(".")
            assert not any(holds(text, fact["value"]) for fact in one.row["facts"])


def test_templates_are_many_and_the_same_for_the_same_seed(forget):
    pieces = [piece(row, variant) for row in forget for variant in VARIANTS]
    texts = TemplateAuthor(3).vague(pieces)
    assert len({text.replace(one.row["subject"], "") for one, text in zip(pieces, texts)}) >= 40
    assert texts == TemplateAuthor(3).vague(pieces) == TemplateAuthor(3).vague(pieces[::-1])[::-1]
    assert texts != TemplateAuthor(4).vague(pieces)
    assert all(a != b for a, b in zip(texts, TemplateAuthor(3).vague(pieces, attempt=1)))


def test_template_questions(forget):
    author, rows = TemplateAuthor(), [row for row in forget if row["kind"] == "qa"]
    forms = {kind: author.rewrite(kind, rows) for kind in VARIANTS}
    for i, row in enumerate(rows):
        questions = [forms[kind][i] for kind in VARIANTS]
        assert len({row["prompt"], *questions}) == 5
        assert forms["simple"][i] in row["paraphrased_prompts"] and row["prompt"] in forms["context"][i]
        assert row["subject"] in forms["noise"][i] and row["subject"] in forms["logical"][i]
        assert not any(holds(question, row["response"]) for question in questions)
    bare = {key: value for key, value in rows[0].items() if key != "paraphrased_prompts"}
    assert author.rewrite("simple", [bare])[0] not in ("", bare["prompt"])


def test_templates_need_facts():
    author, row = TemplateAuthor(), ROW | {"facts": []}
    for call in (lambda: author.rewrite("simple", [row]), lambda: author.vague([piece(row)])):
        with pytest.raises(UnlearnError, match="row 'a' has none; use a writer"):
            call()
    unknown_slot = ROW | {"facts": [{"slot": "shoe_size", "value": "forty"}]}
    assert "shoe size" in author.rewrite("logical", [unknown_slot])[0]
    assert "Ann" in author.vague([piece(unknown_slot)])[0]
