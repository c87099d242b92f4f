"""Scores of training rows: blocks, units and errors."""

import numpy as np
import pytest
from toys import data, gpt2, lora, make_tokenizer

from unlearn_nb.core import UnlearnError
from unlearn_nb.influence import Attribution, AttributionSettings, scores
from unlearn_nb.models import RowsLoss

ROWS, QUERIES = data(7), data(3, seed=5)


def found(**options):
    loss = RowsLoss(options.pop("over", "rows"), max_length=48)
    settings = AttributionSettings(loss=loss, **{key: options.pop(key) for key in ("memory_mb", "max_tokens")
                                                 if key in options})
    return scores(lora(gpt2()), make_tokenizer(), ROWS, QUERIES, settings=settings, **options)


@pytest.mark.parametrize("method", ["dot", "cosine", "ekfac", "woodbury", "datainf"])
def test_blocks_of_queries_and_chunks_of_rows_change_nothing(method):
    wanted = found(method=method).values
    small = found(method=method, memory_mb=0.01, max_tokens=30).values
    assert np.allclose(small, wanted, rtol=1e-6, atol=1e-9 * abs(wanted).max())


def test_a_large_damping_makes_every_solver_a_gradient_step():
    wanted = found(method="dot(rate=1e-6)").values
    for solver in ("ekfac", "woodbury", "cg(max_products=3)"):
        assert np.allclose(found(method=solver, damping=1e6).values, wanted, rtol=1e-4)


def test_a_mean_over_tokens_gives_long_rows_their_share():
    rows, tokens = (found(method="dot", over=over).values for over in ("rows", "tokens"))
    counts = np.array([len(row["response"].split()) + 1 for row in ROWS])  # and the end of the text
    assert np.allclose(tokens, rows * counts / counts.mean(), rtol=1e-6)


@pytest.mark.parametrize(("options", "message"), [
    ({"method": "ekfack"}, "unknown attribution method"), ({"method": "dot(length=2)"}, "length"),
    ({"method": "random", "damping": 0.1}, "has no damping"), ({"method": "ekfac", "damping": -1.0}, "damping")])
def test_what_is_unfit_is_refused(options, message):
    with pytest.raises(UnlearnError, match=message):
        found(**options)


def test_a_row_without_response_is_named():
    with pytest.raises(UnlearnError, match="training rows: row 1 has no 'response'"):
        scores(lora(gpt2()), make_tokenizer(), [ROWS[0], {"prompt": "w5"}], QUERIES)


def test_saved_scores_are_the_same_and_their_card_shows_no_markup(tmp_path):
    one = found(method="dot")
    again = Attribution.load(one.save(tmp_path / "scores"))
    assert (again.values == one.values).all() and again.table().equals(one.table()) and again.facts == one.facts
    bad = Attribution(np.eye(2), ["<script>", "q"], ["a", "b"], "dot")
    assert "<script>" not in bad._repr_html_() and "&lt;script&gt;" in bad._repr_html_()
