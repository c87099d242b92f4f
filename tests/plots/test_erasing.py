"""Figures of the study of influence edits: what is drawn is the table, landmarks and edges included."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.plots import EDGES, effort_plot, recovery_points, save_figure, sweep_plot


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    before = dict(plt.rcParams)
    yield
    plt.rcParams.update(before)


def recoveries(**changes):
    methods = {"no edit": (0.0, 0.0), "edit: cg": (0.9, 0.09), "SISA": (-3.0, 1.0), "retrained": (1.0, 1.0)}
    rows = [{"case": case, "method": name, "recovery": value, "low": value - 0.1, "high": np.nan, "share": share}
            for case in ("like", "facts") for name, (value, share) in methods.items()]
    return pd.DataFrame(rows).assign(**changes)


def sweep():
    return pd.DataFrame({"rank": [8, 2, 32], "method": "edit", "recovery": [0.5, 0.4, np.nan]})


def test_methods_have_a_row_and_cases_a_panel_without_the_ends_of_the_scale():
    fig = recovery_points(recoveries())
    assert [axis.get_title() for axis in fig.axes] == ["like", "facts"]
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == ["edit: cg", "SISA"]


def test_dear_methods_are_hollow_and_far_ones_stand_at_the_edge_with_their_number():
    axis = recovery_points(recoveries()).axes[0]
    cheap, dear = (container[0] for container in axis.containers)
    assert dear.get_markerfacecolor() == "white" != cheap.get_markerfacecolor()
    assert float(dear.get_xdata()[0]) == EDGES[0] and [text.get_text() for text in axis.texts] == ["-3.0"]


def test_intervals_are_drawn_where_they_are_known():
    axis = recovery_points(recoveries()).axes[0]
    ends = axis.containers[0].lines[2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(ends, [0.8, 0.9])


def test_a_method_without_a_gap_leaves_its_row_empty():
    table = recoveries()
    table.loc[table["method"] == "edit: cg", ["recovery", "low"]] = np.nan
    axis = recovery_points(table).axes[0]
    assert np.isnan(float(axis.containers[0][0].get_xdata()[0])) and len(axis.get_yticklabels()) == 2


def test_effort_is_a_share_of_retraining():
    table = pd.DataFrame({"solver": ["cg", "cg", "lissa"], "gradients": [960, 480, 48], "residual": 0.5,
                          "recovery": [0.9, 0.5, 0.1]})
    fig = effort_plot(table, 4800)
    assert list(fig.axes[0].lines[0].get_xdata()) == [0.1,
                                                      0.2] and fig.axes[1].get_ylabel() == "Recovered share of the gap"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["cg", "lissa"]


def test_a_sweep_is_drawn_in_order_with_its_own_ticks():
    axis = sweep_plot(sweep(), "rank", "method", label="Rank", title="Method", log=True).axes[0]
    assert list(axis.lines[0].get_xdata()) == [2, 8, 32] and axis.get_xlabel() == "Rank"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["2", "8", "32"]


@pytest.mark.parametrize("draw, table", [
    (recovery_points, recoveries), (lambda table: effort_plot(table, 1), recoveries),
    (lambda table: sweep_plot(table, "share", "method", label="x", title="y"), sweep),
])
def test_a_wrong_table_is_refused(draw, table):
    with pytest.raises(UnlearnError, match="has no rows|lacks the column"):
        draw(table().iloc[:0])


def test_figures_are_saved_alike_twice(tmp_path):
    one, two = (save_figure(recovery_points(recoveries()), tmp_path / name, "x")[1].read_text() for name in "ab")
    assert one == two
