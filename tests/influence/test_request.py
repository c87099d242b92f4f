"""Requests: what becomes of the rows, and bad ones."""

import pytest
from toys import data

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import Request


def test_requests_say_what_becomes_of_the_rows():
    rows = data(4)
    request = Request.remove(["r0"]) + Request.modify(["r1"], ["w3"]) + Request.correct(["r1", "r2"], ["w4", "w5"])
    request += Request.add([rows[0] | {"id": "new"}])
    after = request.apply(rows)
    assert [(row["id"], row["prompt"], row["response"]) for row in after] == [
        ("r1", "w3", "w4"),
        ("r2", rows[2]["prompt"], "w5"),
        ("r3", rows[3]["prompt"], rows[3]["response"]),
        ("new", rows[0]["prompt"], rows[0]["response"]),
    ]
    assert rows == data(4), "the rows given stay as they are"
    replaced = (Request.remove(["r0"]) + Request.add([rows[0] | {"response": "w9"}])).apply(rows)
    assert replaced[-1]["id"] == "r0" and replaced[-1]["response"] == "w9" and len(replaced) == 4


@pytest.mark.parametrize(
    "attempt, sentence",
    [
        (lambda: Request.remove("r0"), "ids is the text 'r0': give a list of ids"),
        (lambda: Request.remove(["r0", "r0"]), "row 'r0' is removed twice in one request: name it once"),
        (
            lambda: Request.remove(["r0"]) + Request.remove(["r0"]),
            "row 'r0' is removed twice in one request: name it once",
        ),
        (
            lambda: Request.modify(["r0", "r1"], ["w3"]),
            "the request has 2 ids and 1 new prompts: give one prompt for each id",
        ),
        (lambda: Request.modify(["r0"], [" "]), "row 'r0' has no new prompt: give its text, or remove the row"),
        (lambda: Request.correct(["r0"], [None]), "row 'r0' has no new response: give its text, or remove the row"),
        (
            lambda: Request.correct(["r0"], ["a"]) + Request.correct(["r0"], ["b"]),
            "row 'r0' is given new responses twice in one request: name it once",
        ),
        (
            lambda: Request.remove(["r0"]) + Request.modify(["r0"], ["a"]),
            "row 'r0' is to be removed and changed in one request: drop one of the two",
        ),
        (
            lambda: Request.remove(["x", "y", "r0"]).apply(data(2)),
            "the request names 2 row(s) that are not in the training set, or gone from it, among them 'x': "
            "give ids of its rows",
        ),
        (
            lambda: Request.add(data(1)).apply(data(2)),
            "the request adds row 'r0', which is in the training set: choose another id, or modify it",
        ),
        (
            lambda: Request.add([{"id": "a", "prompt": "b"}]),
            "training row 0 has no column 'response': each needs id, prompt and response",
        ),
        (lambda: Request().apply([*data(1), *data(1)]), "two training rows have the id 'r0': make the ids unique"),
    ],
)
def test_bad_requests_are_told_in_one_sentence(attempt, sentence):
    with pytest.raises(UnlearnError) as error:
        attempt()
    assert str(error.value) == sentence
