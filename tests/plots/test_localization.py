"""Figures of the localization study: what is drawn is the table, labels and legends are complete."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.plots import (
    AXES,
    caption_of,
    curve_plot,
    overlap_heatmap,
    paired_plot,
    precision_plot,
    save_figure,
    share_plot,
)


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    before = dict(plt.rcParams)
    yield
    plt.rcParams.update(before)


def points(objectives=("wga", "npo"), regions=("oracle", "random"), seeds=3):
    rows = [(s, o, r, step, 0.9 - 0.1 * step, 0.3 * step + 0.01 * s, 0.8 - 0.01 * step, -8.0 + step)
            for o in objectives for r in regions for s in range(seeds) for step in range(3)]
    return pd.DataFrame(rows, columns=["seed", "objective", "region", "step", "rs", "fs", "utility", "log_quality"])


def scores():
    rows = [(s, o, r, 0.2, 0.6 + 0.01 * s + 0.1 * (r == "oracle"), -8.0 + s) for o in ("wga", "npo")
            for r in ("random", "oracle") for s in range(3)]
    return pd.DataFrame(rows, columns=["seed", "objective", "region", "share", "aues", "mu95"])


def texts(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_every_seed_is_a_line_and_start_and_goal_are_marked():
    alone = pd.DataFrame({"rs": [0.95], "fs": [0.9], "utility": [0.82], "log_quality": [0.0]})
    fig = curve_plot(points(), [("rs", "fs"), ("utility", "log_quality")], alone)
    assert len(fig.axes) == 4 and [a.get_title() for a in fig.axes[:2]] == ["WGA", "NPO"]
    assert sorted(texts(fig)) == ["injected model", "oracle region", "random region", "retain-only model"]
    lines = fig.axes[0].lines
    faint = [line for line in lines if line.get_alpha() == 0.3]
    assert len(faint) == 6 and list(faint[0].get_ydata()) == [0.0, 0.3, 0.6]
    means = np.array(fig.axes[0].containers[0][0].get_ydata(), float)
    np.testing.assert_allclose(means, [0.01, 0.31, 0.61])
    assert "3 seeds: no interval" in caption_of(fig)
    assert fig.axes[0].get_ylabel() == AXES["fs"]
    assert fig.axes[2].get_xlabel() == AXES["utility"] + "\n(axis cut: 0.65 to 0.95)"
    assert "retain-only model" not in texts(curve_plot(points()))


def test_further_regions_have_colours_of_their_own():
    regions = ("oracle", "random", "random B", "random C", "wa$gle")
    fig = curve_plot(points(("supervision",), regions, 1))
    colors = {container[0].get_color() for container in fig.axes[0].containers}
    assert len(colors) == 5 and r"wa\$gle" in texts(fig)


def test_means_over_enough_seeds_have_intervals_both_ways():
    fig = curve_plot(points(("wga",), ("oracle",), 5))
    _, caps, bars = fig.axes[0].containers[0].lines
    up = bars[1].get_segments()[1][:, 1]
    mean, reach = 0.32, 2.7764 * 0.0158114 / 5**0.5  # t and deviation of 5 seeds
    np.testing.assert_allclose(up, [mean - reach, mean + reach], atol=1e-5)
    assert len(bars) == 2 and "95 % intervals of the mean over 5 seeds" in caption_of(fig)


def test_pairs_are_joined_seed_by_seed():
    fig = paired_plot(scores())
    assert [a.get_ylabel() for a in fig.axes] == [AXES["aues"] + "\n(axis cut: 0.50 to 0.80)", AXES["mu95"]]
    assert "The axis of AUES is cut" in caption_of(fig) and "-0" not in fig.axes[0].texts[0].get_text()
    assert [text.get_text() for text in fig.axes[0].texts] == ["+0.100", "+0.100"]
    joined = [line.get_ydata() for line in fig.axes[0].lines if line.get_color() == "#999999"]
    assert len(joined) == 6 and np.allclose([b - a for a, b in joined], 0.1)
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["WGA", "NPO"]
    assert sorted(texts(fig)) == ["oracle region", "random region"]


def test_sizes_are_drawn_in_order():
    table = pd.concat([scores().query("objective == 'npo' and seed == 0").assign(share=share)
                       for share in (0.4, 0.1, 0.2)])
    assert list(share_plot(table).axes[0].lines[0].get_xdata()) == [0.1, 0.2, 0.4]


def test_overlaps_and_precision():
    table = pd.DataFrame([[1.0, 0.2], [0.2, 1.0]], ["oracle", "wagle"], ["oracle", "wagle"])
    assert [t.get_text() for t in overlap_heatmap(table).axes[0].texts] == ["1.00", "0.20", "0.20", "1.00"]
    graded = pd.DataFrame({"region": ["random", "wagle"], "auc": [0.5, 0.8], "aues": [0.6, 0.7]})
    fig = precision_plot(graded)
    assert list(fig.axes[0].containers[1][0].get_xdata()) == [0.8]
    assert texts(fig) == ["chance", "random, anywhere", "wagle"]
    many = pd.concat([graded.assign(seed=s, aues=graded["aues"] + 0.01 * s) for s in range(5)])
    bars = precision_plot(many).axes[0].containers[0].lines[2]
    assert len(bars) == 2 and np.ptp(bars[1].get_segments()[0][:, 1]) > 0.02


@pytest.mark.parametrize("call, part", [
    (lambda: curve_plot(points().drop(columns="fs")), "'fs'"), (lambda: paired_plot(scores()[:0]), "no rows"),
    (lambda: precision_plot(scores()), "'auc'")])
def test_nothing_to_draw_gets_one_sentence(call, part):
    with pytest.raises(UnlearnError) as error:
        call()
    assert part in str(error.value) and "\n" not in str(error.value)


def test_figures_are_saved_alike_twice(tmp_path):
    one, two = (save_figure(paired_plot(scores()), tmp_path / name, "paired")[1].read_text() for name in "ab")
    assert one == two
