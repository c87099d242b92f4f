"""Figures of the ReLearn study: labels, legends, the data drawn, and gaps shown as gaps."""

import struct

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unlearn_nb.core import UnlearnError
from unlearn_nb.plots import (
    GREY,
    PALETTE,
    WIDTH,
    attack_plot,
    caption_of,
    forgetting_bars,
    lens_plot,
    ratio_plot,
    save_figure,
    seesaw_plot,
    tradeoff_kfr_krr,
)


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    before = dict(plt.rcParams)
    yield
    plt.rcParams.update(before)


def intervals(table):
    return table.assign(low=table["value"] - 0.05, high=table["value"] + 0.02)


def scores():
    values = {"vanilla": (0.02, 0.98, 0.15), "GA $x$": (1.0, 0.06, 0.03), "ReLearn": (0.88, 0.74, 0.13)}
    values["oracle"] = (0.95, 0.96, 0.2)
    rows = [(m, k, v) for m, row in values.items() for k, v in zip(("forget/kfr", "retain/krr", "forget/ls"), row)]
    return intervals(pd.DataFrame(rows, columns=["method", "metric", "value"]))


def attacked():
    places = [("none", "none"), ("precision", "float16"), ("precision", "int4"), ("prompt", "jailbreak")]
    rows = [
        (method, *place, metric, base - 0.1 * i)
        for method, base in (("GA", 0.9), ("ReLearn", 0.7))
        for i, place in enumerate(places)
        for metric in ("forget/kfr", "ls")
    ]
    return intervals(pd.DataFrame(rows, columns=["method", "kind", "attack", "metric", "value"]))


def summary():
    table = pd.DataFrame({"model": ["vanilla", "GA"], "top1": [0.9, 0.1], "next_best": [0.08, 0.3]})
    return table.assign(entropy=[0.2, 4.25], rest=1 - table["top1"] - table["next_best"])


def lens():
    kl = np.array([4.0, 2.0, 0.0])
    models = {"vanilla": kl, "GA": kl + 1}
    frames = [pd.DataFrame({"model": name, "layer": [1, 2, 3], "kl_nats": values}) for name, values in models.items()]
    return pd.concat(frames).assign(low=lambda t: t["kl_nats"] * 0.9, high=lambda t: t["kl_nats"] * 1.1)


def sweep():
    rows = [(ratio, metric, 0.3 + 0.1 * ratio) for metric in ("forget/kfr", "retain/krr") for ratio in (2, 0.5, 1)]
    return intervals(pd.DataFrame(rows, columns=["ratio", "metric", "value"]))


FIGURES = {
    "forgetting": lambda: forgetting_bars(scores()),
    "tradeoff": lambda: tradeoff_kfr_krr(scores()),
    "attacks": lambda: attack_plot(attacked()),
    "seesaw": lambda: seesaw_plot(summary()),
    "lens": lambda: lens_plot(lens()),
    "ratio": lambda: ratio_plot(sweep(), oracle=pd.Series({"forget/kfr": 0.9})),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_labelled_saved_and_repeatable(name, tmp_path):
    settings, open_before = dict(plt.rcParams), plt.get_fignums()
    fig = FIGURES[name]()
    assert isinstance(fig, Figure) and dict(plt.rcParams) == settings and plt.get_fignums() == open_before
    assert all(axis.get_xlabel() for axis in fig.axes if axis.get_visible()) and len(fig.legends) == 1
    assert fig.axes[0].get_ylabel() or name == "forgetting"  # its rows bear the methods' names
    png, svg = save_figure(fig, tmp_path, name)
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    assert 1000 <= width <= 2 * 96 * WIDTH + 4 and 350 <= height <= 3000
    first = svg.read_bytes()
    save_figure(FIGURES[name](), tmp_path, name)
    assert svg.read_bytes() == first


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_drawn_outside_the_figure(name):
    fig = FIGURES[name]()
    FigureCanvasAgg(fig).draw()  # lays the figure out
    whole, inside = fig.bbox, [text for text in fig.findobj(plt.Text) if text.get_text() and text.get_visible()]
    for text in inside:
        box = text.get_window_extent()
        ticks = any(text in (*axis.get_xticklabels(), *axis.get_yticklabels()) for axis in fig.axes)
        assert ticks or (box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1), text


def legend(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_forgetting_bars_have_a_panel_a_metric_and_the_oracle_as_a_line():
    fig = forgetting_bars(scores(), metrics=["retain/krr", "forget/ls"])
    assert [axis.get_title() for axis in fig.axes] == ["KRR (oracle 0.96)", "LS, forget (oracle 0.20)"]
    bars = fig.axes[0].containers[-1]
    assert [bar.get_width() for bar in bars] == [0.98, 0.06, 0.74]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["vanilla", r"GA \$x\$", "ReLearn"]
    (line,) = [line for line in fig.axes[1].lines if line.get_linestyle() == "--"]
    assert set(line.get_xdata()) == {0.2} and legend(fig) == ["oracle (band: 95 % CI)"]
    low, high = fig.axes[0].collections[0].get_segments()[2][:, 0]
    np.testing.assert_allclose([low, high], [0.69, 0.76])
    assert fig.axes[1].get_xlim()[1] < 0.5  # each panel has its own scale


def test_forgetting_bars_without_oracle_and_with_a_gap():
    table = scores()
    gap = (table["method"] == "oracle") | ((table["method"] == "ReLearn") & (table["metric"] == "retain/krr"))
    fig = forgetting_bars(table[~gap].drop(columns=["low", "high"]))
    texts = [[text.get_text() for text in axis.texts] for axis in fig.axes]
    assert texts[1] == ["0.98", "0.06", "n/a"] and texts[0] == ["0.02", "1.00", "0.88"] and not fig.legends


def test_the_tradeoff_joins_checkpoints_in_order():
    kfr = pd.DataFrame({"method": "NPO", "checkpoint": [3, 1], "metric": "forget/kfr", "value": [0.9, 0.3]})
    fig = tradeoff_kfr_krr(pd.concat([kfr, kfr.assign(metric="retain/krr", value=1 - kfr["value"])]))
    points = np.array(fig.axes[0].lines[0].get_xydata(), float)
    np.testing.assert_allclose(points, [[0.3, 0.7], [0.9, 0.1]])
    fig = tradeoff_kfr_krr(scores(), "forget/kfr", "forget/ls")
    assert fig.axes[0].get_ylabel() == "LS, forget" and legend(fig) == ["vanilla", r"GA \$x\$", "ReLearn", "oracle"]
    fig = tradeoff_kfr_krr(scores().replace("retain/krr", "retain/rougeL"), y="retain/rougeL")
    assert fig.axes[0].get_ylabel() == "ROUGE-L recall, retain" and fig.axes[0].get_xlabel().startswith("KFR (")
    table = scores()
    lacking = table[~((table["method"] == "ReLearn") & (table["metric"] == "retain/krr"))]
    for wrong in (lacking, pd.concat([table, table])):
        with pytest.raises(UnlearnError, match="needs one forget/kfr and one retain/krr"):
            tradeoff_kfr_krr(wrong)


def test_attacks_stand_beside_the_untouched_model():
    fig = attack_plot(attacked())
    assert [[t.get_text() for t in axis.get_xticklabels()] for axis in fig.axes] == [
        ["none", "float16", "int4"],
        ["none", "jailbreak"],
    ]
    bars = fig.axes[0].containers[0]
    np.testing.assert_allclose(np.array(bars[0].get_ydata(), float), [0.9, 0.8, 0.7])
    np.testing.assert_allclose(bars.lines[2][0].get_segments()[0][:, 1], [0.85, 0.92])
    assert legend(fig) == ["GA", "ReLearn"] and fig.axes[0].get_ylabel() == "KFR"
    near = attacked().assign(value=0.9, low=0.89, high=0.91)
    assert "The axis of KFR is cut: it spans" in caption_of(attack_plot(near))
    only = attacked()
    assert len(attack_plot(only[only["kind"] != "prompt"], "ls").axes) == 1
    with pytest.raises(UnlearnError, match="no attack on forget/kfr"):
        attack_plot(only[only["kind"] == "none"])


def test_the_seesaw_stacks_to_one():
    fig = seesaw_plot(summary())
    bars = fig.axes[0].containers
    np.testing.assert_allclose([bar.get_width() for bar in bars[1]], [0.08, 0.3])
    ends = [bar.get_x() + bar.get_width() for bar in bars[2]]
    np.testing.assert_allclose(ends, 1)
    assert {"0.20", "4.25"} <= {text.get_text() for text in fig.axes[0].texts}
    known = summary().assign(positions=12, top1_low=0.05, top1_high=0.95, entropy_low=0.1, entropy_high=5.0)
    fig = seesaw_plot(known)
    assert "4.25 [0.1, 5.0]" in {text.get_text() for text in fig.axes[0].texts}
    assert list(fig.axes[0].containers[3].lines[2][0].get_segments()[0][:, 0]) == pytest.approx([0.05, 0.95])
    assert "(12 positions)" in caption_of(fig)


def test_lens_lines_hold_the_table_and_grey_is_the_original():
    fig = lens_plot(lens())
    vanilla, other = fig.axes[0].lines
    np.testing.assert_array_equal(other.get_ydata(), [5, 3, 1])
    assert vanilla.get_color() == GREY and other.get_color() == PALETTE[0]
    assert len(fig.axes[0].collections) == 2


def test_a_ratio_sweep_is_drawn_in_order():
    fig = ratio_plot(sweep(), label="Weight", oracle=pd.Series({"forget/kfr": 0.9}))
    line = fig.axes[0].lines[0]
    np.testing.assert_allclose(np.array([line.get_xdata(), line.get_ydata()], float), [[0.5, 1, 2], [0.35, 0.4, 0.5]])
    assert sorted(legend(fig)) == ["KFR", "KRR", "oracle (right edge)"] and fig.axes[0].get_xlabel() == "Weight"


@pytest.mark.parametrize("draw,table", [(forgetting_bars, scores), (tradeoff_kfr_krr, scores), (attack_plot, attacked),
                                        (seesaw_plot, summary), (lens_plot, lens), (ratio_plot, sweep)])
def test_a_wrong_table_is_refused(draw, table):
    table = table()
    with pytest.raises(UnlearnError, match="has no rows"):
        draw(table.iloc[:0])
    column = table.columns[0]
    with pytest.raises(UnlearnError, match=f"lacks the column '{column}'"):
        draw(table.drop(columns=column))


def test_many_methods_stay_apart():
    kfr = pd.DataFrame({"method": [f"method {i}" for i in range(12)], "metric": "forget/kfr", "value": 0.5})
    fig = tradeoff_kfr_krr(pd.concat([kfr, kfr.assign(metric="retain/krr")]))
    points = [line for line in fig.axes[0].lines if line.get_marker() not in "|_"]  # the rest are caps of intervals
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in points}) == 12
