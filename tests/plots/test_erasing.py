"""Figures of the study of influence edits: what is drawn is the table, landmarks and edges included."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.plots import EDGES, caption_of, effort_plot, recovery_points, save_figure, sweep_plot


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
    assert list(fig.axes[0].lines[0].get_xdata()) == [0.1, 0.2]
    assert fig.axes[1].get_ylabel() == "Recovered share of the gap"
    assert {"cg", "lissa", "10% of retraining"} <= {text.get_text() for text in fig.legends[0].get_texts()}
    assert {text.get_text() for text in fig.axes[0].get_xticklabels()} >= {"10 %", "20 %"}
    assert "No value has an interval" in caption_of(fig)


def test_effort_has_bars_where_intervals_are_known():
    table = pd.DataFrame({"solver": "cg", "gradients": [960, 480], "residual": 0.5, "recovery": [0.9, 0.5],
                          "low": [0.8, 0.4], "high": [1.0, 0.6]})
    fig = effort_plot(table, 4800)
    segments = fig.axes[1].containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([list(part[:, 1]) for part in segments], [[0.4, 0.6], [0.8, 1.0]])
    assert "Bars, right: 95 % intervals" in caption_of(fig)


def test_single_seeds_are_small_dots_and_the_caption_says_how_many():
    table = recoveries(seeds=3, low=np.nan, high=np.nan, reason="no interval: not enough rows (3 runs, not 5 or more)")
    single = pd.concat([table.assign(recovery=table["recovery"] + shift, seed=shift) for shift in (-0.1, 0.0, 0.1)])
    fig = recovery_points(table, single)
    dots = [line for line in fig.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(dots) == 2 and all(line.get_markersize() < 5 for line in dots)
    assert "like: mean over 3 seeds (small dots). No value has an interval: not enough rows" in caption_of(fig)


def test_five_cases_stand_in_two_columns_each_with_its_own_methods():
    sizes = {"like": 13, "next": 5, "a": 5, "b": 5, "c": 6}
    table = pd.DataFrame([{"case": case, "method": f"method {i}", "recovery": 0.5, "share": 0.1}
                          for case, size in sizes.items() for i in range(size)])
    fig = recovery_points(table)
    assert [len(axis.get_yticklabels()) for axis in fig.axes] == list(sizes.values())
    assert len({axis.get_subplotspec().get_gridspec() for axis in fig.axes}) == 2 and fig.get_figheight() < 6
    assert len({axis.get_xlim() for axis in fig.axes}) == 1


def test_what_lies_beyond_the_axis_is_drawn_at_its_edge_with_its_number():
    table = pd.DataFrame({"parts": [1, 2], "way": "anew", "recovery": [0.6, -29.8]})
    fig = sweep_plot(table, "parts", "way", label="Parts", title="Way")
    line = fig.axes[0].containers[0][0]
    assert list(line.get_ydata()) == [0.6, EDGES[0]] and [text.get_text() for text in fig.axes[0].texts] == ["-29.8"]
    assert "beyond -1 to 1.5 (1)" in caption_of(fig)


def test_a_sweep_is_drawn_in_order_with_its_own_ticks():
    axis = sweep_plot(sweep(), "rank", "method", label="Rank", title="Method", log=True).axes[0]
    assert list(axis.lines[0].get_xdata()) == [2, 8, 32] and axis.get_xlabel() == "Rank (log)"
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
