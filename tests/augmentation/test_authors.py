"""Prompt files, judges, and what a writer is shown."""

import pytest
from augmenting import ROW, piece

from unlearn_nb.augmentation import PLACEHOLDERS, VARIANTS, Piece, PromptedAuthor, load_prompts
from unlearn_nb.augmentation.authors import _sentences
from unlearn_nb.core import UnlearnError


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


@pytest.mark.parametrize("text, verdict", [
    ("Ann lives at Elm Street.", True), ("Ann lives in the streets.", True), ("Ann has a home.", False),
    ("Yes, I know", None), ("", None),
])
def test_the_word_rule_lets_no_word_of_the_answer_through(text, verdict):
    asked = Piece(ROW, "simple", 0, "Where is Ann Moore at home?", "She lives in Elm Street 7.")
    assert PromptedAuthor(Recording(), judge="words").leaks([asked], [text]) == [verdict]


@pytest.mark.parametrize("data, problem", {
    "a prompt file of gigabytes": (b"{question} " * 10_000, "has more than 100000 bytes"),
    "a prompt file of another encoding": ("{question} für".encode("latin-1"), "is not UTF-8"),
}.values(), ids=["a_prompt_file_of_gigabytes", "another_encoding"])
def test_prompt_files_are_short_texts(tmp_path, data, problem):
    (tmp_path / "simple.txt").write_bytes(data)
    with pytest.raises(UnlearnError, match=f"simple.txt {problem}"):
        load_prompts(tmp_path)
