"""Authors: what counts as a leak, strict verdicts, prompt files, templates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_nb.augmentation import (
    PLACEHOLDERS,
    VARIANTS,
    Piece,
    PromptedAuthor,
    TemplateAuthor,
    fact_verdicts,
    holds,
    identifiers,
    load_prompts,
    read_verdict,
)
from unlearn_nb.augmentation.authors import _sentences
from unlearn_nb.benches import load_bench
from unlearn_nb.core import UnlearnError

ROW = {"id": "a", "prompt": "Where does Ann live?", "response": "12 Elm Road, Oslo", "subject": "Ann", "task": "t",
       "kind": "qa", "facts": [{"slot": "address", "value": "12 Elm Road, Oslo"}]}


def piece(row: dict, variant="simple", chunk=0) -> Piece:
    return Piece(row, variant, chunk, row["prompt"], row["response"])


@settings(max_examples=200, deadline=None)
@given(st.text("abcäÉ 1", min_size=1, max_size=12).filter(str.strip),
       st.text("xyz .", max_size=8), st.text("xyz ", max_size=8))
def test_a_value_is_found_in_whatever_dress(value, before, after):
    for dressed in (value, value.upper(), value.replace(" ", "-"), f" {value} ", value.replace("ä", "a\u0308")):
        assert holds(f"{before} {dressed}, {after}", value)


@pytest.mark.parametrize("text, value, found", [
    ("tel. (555) 01-02-03", "555010203", True), ("A fe male", "male", True), ("female", "male", False),
    ("Pariser Luft", "Paris", False), ("他住在奥斯陆。", "奥斯陆", True),
    ("", "x", False), ("a ! b", "!", True)])
def test_values_in_text(text, value, found):
    assert holds(text, value) is found


def test_identifiers():
    text = "In 1956, 3 of 12, mail x.y@z.example.org or 555-01 99."
    assert identifiers(text) == ["1956", "x.y@z.example.org", "555-01 99"]
    assert identifiers("nothing, 12 and 34") == []


@settings(deadline=None)
@given(st.text(max_size=60))
def test_only_a_proper_last_line_is_a_verdict(text):
    if "VERDICT: " not in text:
        assert read_verdict(text) is None
    assert read_verdict(f"{text}\nVERDICT: LEAK") in (True, None)
    assert read_verdict(f"{text}\nVERDICT: SAFE") in (False, None)
    assert read_verdict(f"VERDICT: SAFE\n{text}x") is None


@pytest.mark.parametrize("text", [
    "", " ", "no", "No.", "unknown", "Yes, I know", "to know", "safe", "SAFE", "VERDICT: SAFE.", "VERDICT:SAFE",
    "verdict: safe",
    "**VERDICT: SAFE**", "VERDICT: SAFE or VERDICT: LEAK", "VERDICT: LEAK\nVERDICT: SAFE", "VERDICT: SAFE\nI am sure.",
    "<html>502</html>", "The line is: VERDICT: SAFE"])
def test_anything_else_is_no_verdict(text):
    assert read_verdict(text) is None


def test_a_verdict_after_some_thought():
    assert read_verdict("It names nobody.\n\nVERDICT: SAFE \n") is False
    assert read_verdict("It names Oslo.\nVERDICT: LEAK") is True


def test_the_facts_as_judge():
    texts = ["Ann lives somewhere quiet.", "Ann lives in Oslo.", "It is an old elm road.", "Number 12, I think."]
    assert fact_verdicts([piece(ROW)] * 4, texts) == [False, True, True, True]
    assert fact_verdicts([piece(ROW | {"facts": []})], texts[:1]) == [None]
    assert fact_verdicts([piece(ROW | {"prompt": "Is it Oslo where Ann lives?"})], texts[1:2]) == [False]


# ---- prompts

class Recording:
    identity = "recording"

    def __init__(self, answer="VERDICT: SAFE"):
        self.answer, self.prompts = answer, []

    def write(self, prompts, attempt=0, on_text=None):
        self.prompts += prompts
        return [self.answer] * len(prompts)


def test_prompts_show_what_they_may_and_no_more():
    writer = Recording()
    author = PromptedAuthor(writer)
    row = ROW | {"prompt": "Where does {answer} Ann live?"}  # braces in the data are data
    for kind in VARIANTS:
        author.rewrite(kind, [row])
    assert len(set(writer.prompts)) == 4
    assert all(row["prompt"] in prompt and "Elm" not in prompt for prompt in writer.prompts)
    author.vague([piece(row)])
    assert row["prompt"] in writer.prompts[-1] and row["response"] in writer.prompts[-1]
    assert author.leaks([piece(row)], ["Ann lives {original}."]) == [False]
    assert all(text in writer.prompts[-1] for text in (row["prompt"], row["response"], "Ann lives {original}."))


def test_another_judge():
    writer, judge = Recording("Who?"), Recording("VERDICT: LEAK")
    assert PromptedAuthor(writer, judge=judge).leaks([piece(ROW)], ["x"]) == [True] and not writer.prompts
    assert PromptedAuthor(writer, judge="facts").leaks([piece(ROW)], ["In Oslo."]) == [True] and not writer.prompts
    assert PromptedAuthor(writer, judge="words").leaks([piece(ROW)], ["Yes, I know"]) == [None] and not writer.prompts
    with pytest.raises(UnlearnError, match="did you mean 'facts'"):
        PromptedAuthor(writer, judge="fact")


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_edited_prompt_files(tmp_path, name):
    for kind, text in load_prompts().items():
        (tmp_path / f"{kind}.txt").write_text(text)
    (tmp_path / f"{name}.txt").write_text("Mine: " + " ".join(f"{{{p}}}" for p in PLACEHOLDERS[name]))
    assert load_prompts(tmp_path)[name].startswith("Mine: ")
    for placeholder in PLACEHOLDERS[name]:
        others = " ".join(f"{{{p}}}" for p in PLACEHOLDERS[name] if p != placeholder)
        (tmp_path / f"{name}.txt").write_text(others)
        writer = Recording()
        with pytest.raises(UnlearnError, match=rf"{name}.txt lacks the placeholder {{{placeholder}}}"):
            PromptedAuthor(writer, prompts=tmp_path)
    (tmp_path / f"{name}.txt").unlink()
    with pytest.raises(UnlearnError, match=f"{name}.txt is missing"):
        PromptedAuthor(writer, prompts=tmp_path)
    assert not writer.prompts


def test_half_sentences_are_cut_off():
    assert _sentences(' "Ann is\nfine. She li" ') == "Ann is fine."
    assert _sentences("no end") == "" == _sentences("")


# ---- templates

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


@pytest.mark.parametrize("text, verdict", [
    ("Ann lives at Elm Street.", True), ("Ann lives in the streets.", True), ("Ann has a home.", False),
    ("Yes, I know", None), ("", None),
])
def test_the_word_rule_lets_no_word_of_the_answer_through(text, verdict):
    asked = Piece(ROW, "simple", 0, "Where is Ann Moore at home?", "She lives in Elm Street 7.")
    assert PromptedAuthor(Recording(), judge="words").leaks([asked], [text]) == [verdict]
