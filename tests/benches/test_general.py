"""General facts: right, distinct, with four choices."""

from collections import Counter

from unlearn_nb.benches import general_facts


def test_general_facts_have_four_choices_with_the_answer_anywhere():
    facts = general_facts()
    assert len(facts) == 100 == len({row["prompt"] for row in facts})
    assert any(row["prompt"] == "What is the capital of France?" and row["response"] == "Paris" for row in facts)
    assert all(len(set(row["choices"])) == 4 and row["response"] in row["choices"] for row in facts)
    places = Counter(row["choices"].index(row["response"]) for row in facts)
    assert max(places.values()) < 45
