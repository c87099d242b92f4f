"""Figures of the merging study: labels, legends, the data drawn, and the caller's settings untouched."""

import struct

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from unlearn_nb.metrics import Scores
from unlearn_nb.plots import (
    WIDTH,
    aggregate_bars,
    angles_plot,
    caption_of,
    cells_heatmap,
    density_sweep_plot,
    loss_curves,
    norms_plot,
    save_figure,
    tradeoff_plot,
    trajectories,
)


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    plt.switch_backend("agg")
    before = dict(plt.rcParams)
    yield
    plt.rcParams.update(before)


def scores(value=0.6, auc=0.4, low=-0.05, high=0.04, tasks=3):
    names = [
        f"{s}/Task{t + 1}/{m}"
        for s in ("forget", "retain")
        for t in range(tasks)
        for m in ("regurgitation", "knowledge")
    ]
    names += ["task_aggregate", "mia_auc", "mia_score", "utility", "final"]
    values = np.array([value] * (len(names) - 4) + [auc, 1 - 2 * abs(auc - 0.5), value, value])
    return Scores(
        pd.DataFrame(), pd.DataFrame({"metric": names, "value": values, "low": values + low, "high": values + high})
    )


MODELS = {"over": scores(0.9, 0.1), "under $x": scores(0.3, 0.8), "merged": scores(0.8, 0.5)}


def history(steps=5):
    return pd.DataFrame(
        {
            "step": range(1, steps + 1),
            "lr": 0.1,
            "loss": np.arange(steps) / 2.0,
            "npo": 1.0,
            "nll": 2.0,
            "grad_norm": 1.0,
            "seconds": 0.5,
        }
    )


def path():
    cells = {
        f"{s}/T{t}/{m}": [1.0, 0.2 * t, 0.5]
        for s in ("forget", "retain")
        for t in (1, 2)
        for m in ("regurgitation", "knowledge")
    }
    return pd.DataFrame({"step": [0, 5, 10], "mia_auc": 0.5, **cells})


def sweep():
    return pd.DataFrame(
        {"density": [0.2, 0.6, 1.0], **{m: [0.1, 0.5, 0.4] for m in ("final", "task_aggregate", "mia_auc", "utility")}}
    )


def angles():
    return pd.DataFrame(
        [
            {"step": 5, "space": space, "module": module, "pair": pair, "degrees": 80.0}
            for space in ("factors", "delta")
            for module in ("all", "a.b")
            for pair in ("0-t, t-T", "0-t, 0-T", "t-T, 0-T")
        ]
    )


def norms():
    return pd.DataFrame(
        [
            {
                "adapter": a,
                "layer": layer,
                "kind": kind,
                "norm": 1.0 + layer,
                "relative": 0.1,
                "norm_change": -0.1 * layer,
            }
            for a in ("one", "two")
            for layer in range(3)
            for kind in ("q_proj", "up_proj")
        ]
    )


FIGURES = {
    "loss": lambda: loss_curves({"a": history(), "b $y": history()}),
    "trajectories": lambda: trajectories({"a": path(), "b": path()}, turn=5),
    "sweep": lambda: density_sweep_plot(sweep(), oracle=scores(), chosen=0.6),
    "angles": lambda: angles_plot(angles()),
    "norms": lambda: norms_plot(norms()),
    "cells": lambda: cells_heatmap(MODELS, scores(0.1)),
    "tradeoff": lambda: tradeoff_plot(MODELS, scores(0.8, 0.5)),
    "bars": lambda: aggregate_bars(MODELS, scores(0.8, 0.5)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_labelled_saved_and_repeatable(name, tmp_path):
    settings, open_before = dict(plt.rcParams), plt.get_fignums()
    fig = FIGURES[name]()
    assert isinstance(fig, Figure) and dict(plt.rcParams) == settings and plt.get_fignums() == open_before
    assert all(axis.get_xlabel() or axis.get_ylabel() for axis in fig.axes if axis.get_visible())
    assert any(axis.get_xlabel() for axis in fig.axes)
    assert any(axis.get_ylabel() for axis in fig.axes) or name == "bars"  # its rows bear the models' names
    assert fig.legends or name in ("norms", "cells")  # heatmaps have a labelled colour bar instead
    data = pd.DataFrame({"x": [1, 2]})
    png, svg, csv = save_figure(fig, tmp_path / "figures", name, data)
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    assert 1000 <= width <= 2 * 96 * WIDTH + 4 and 350 <= height <= 3000
    assert "<svg" in svg.read_text() and pd.read_csv(csv).equals(data)
    first = svg.read_bytes()
    save_figure(FIGURES[name](), tmp_path / "figures", name)
    assert svg.read_bytes() == first


def test_loss_curves_have_a_panel_a_term_and_a_line_a_run():
    fig = loss_curves({"a": history(), "b": history().drop(columns="nll")})
    assert [axis.get_title() for axis in fig.axes if axis.get_visible()] == ["Total loss", "NPO", "NLL"]
    assert [len(axis.lines) for axis in fig.axes[:3]] == [2, 2, 1]
    np.testing.assert_array_equal(fig.axes[0].lines[0].get_ydata(), history()["loss"])
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b"]


def test_smoothing_keeps_the_mean_and_shows_the_raw_curve():
    fig = loss_curves(history(9), ["loss"], smooth=3)
    raw, mean = fig.axes[0].lines
    np.testing.assert_allclose(mean.get_ydata()[1:-1], raw.get_ydata()[1:-1])  # a straight line stays one
    assert not fig.legends


def test_trajectories_draw_every_cell():
    ends = {f"{end} forget/T1/knowledge": value for end, value in (("low", 0.1), ("high", 1.0))}
    fig = trajectories(path().assign(epoch=lambda t: t["step"] / 5, **ends))
    assert len(fig.axes) == 2 and fig.axes[0].get_xlabel() == "Epoch"
    assert [len(axis.containers) for axis in fig.axes] == [4, 4]
    styles = {bars.get_label(): bars[0].get_linestyle() for bars in fig.axes[0].containers}
    drawn = {bars.get_label(): bars.lines[2][0].get_segments()[1][:, 1] for bars in fig.axes[1].containers}
    assert list(drawn["T1, forget"]) == [0.1, 1.0] and np.ptp(drawn["T2, forget"]) == 0
    assert styles["T1, forget"] == "-" and styles["T1, retain"] == "--"


def test_error_bars_are_the_interval_and_never_negative():
    fig = aggregate_bars({"inside": scores(), "outside": scores(low=0.01, high=0.05)}, metrics=["task_aggregate"])
    (bars,) = (bars for bars in fig.axes[0].containers if getattr(bars, "errorbar", None))
    (low, high), (least, most) = (segment[:, 0] for segment in bars.errorbar.lines[2][0].get_segments())
    assert (low, high) == pytest.approx((0.55, 0.64))
    assert least == pytest.approx(0.6) and most == pytest.approx(0.65)


def test_missing_values_are_said():
    poor = scores()
    poor.ci.loc[poor.ci["metric"].isin(["mia_auc", "mia_score"]), ["value", "low", "high"]] = np.nan
    fig = aggregate_bars({"poor": poor})
    assert [[text.get_text() for text in axis.texts] for axis in fig.axes] == [["0.60"], ["n/a"], ["0.60"], ["0.60"]]
    tradeoff_plot({"poor": poor})


def test_cells_show_scores_as_measured_and_colour_what_they_contribute():
    fig = cells_heatmap({"m": scores(0.9)}, scores(0.2))
    shown = [text.get_text() for text in fig.axes[0].texts]
    assert shown.count("0.90") == 12 and shown.count("0.20") == 12
    colours = np.asarray(fig.axes[0].collections[0].get_array()).reshape(12, 2)
    assert colours[:6, 0] == pytest.approx(0.1) and colours[6:, 0] == pytest.approx(0.9)
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["m", "oracle"]


def test_cells_of_a_bench_with_one_task():
    fig = cells_heatmap({"m": scores(tasks=1)})
    assert len(fig.axes[0].texts) == 4


def test_many_models_fit():
    many = {f"model number {i}": scores(0.05 * i, 0.05 * i) for i in range(14)}
    for draw in (tradeoff_plot, aggregate_bars, cells_heatmap):
        assert draw(many, scores()).axes


def test_delta_angles_alone():
    fig = angles_plot(angles().query("space == 'delta'"), step=5)
    assert [text.get_text() for text in fig.legends[0].get_texts() if "factors" in text.get_text()] == []


def test_a_sweep_has_bars_where_intervals_are_known():
    fig = density_sweep_plot(sweep().assign(**{"low final": 0.05, "high final": 0.6}))
    final, aggregate = (bars.lines[2][0].get_segments() for bars in fig.axes[0].containers[:2])
    assert list(final[1][:, 1]) == pytest.approx([0.05, 0.6]) and np.ptp(aggregate[1][:, 1]) == 0
    assert "9 values without one" in caption_of(fig)


def test_a_model_has_one_look_in_the_trade_off_and_in_the_bars():
    bars, points = aggregate_bars(MODELS, scores(0.8)), tradeoff_plot(MODELS, scores(0.8))
    names = [text.get_text() for text in bars.axes[0].get_yticklabels()]
    colors = dict(zip(names, (patch.get_facecolor() for patch in bars.axes[0].patches)))
    for container in points.axes[0].containers:
        name = container.get_label()
        assert name == "oracle" or to_rgba(container[0].get_color()) == colors[name]


def test_captions_say_how_many_rows_stand_behind_the_numbers():
    rows = pd.DataFrame({"split": ["forget", "forget", "retain"], "subject": ["Ada", "Bo", "Cy"]})
    asked = {name: Scores(rows, score.ci) for name, score in MODELS.items()}
    for draw in (tradeoff_plot, aggregate_bars, cells_heatmap):
        assert "Asked: 2 forget rows of 2 subjects and 1 retain row of 1 subject." in caption_of(draw(asked))


def test_seven_terms_stand_three_in_a_row():
    many = pd.DataFrame({"step": range(200)} | {f"term_{i}": np.arange(200.0) for i in range(7)})
    fig = loss_curves({"a": many})
    shown = [axis for axis in fig.axes if axis.get_visible()]
    assert len(shown) == 7 and fig.axes[0].get_subplotspec().get_gridspec().ncols == 3
    assert "running mean over 5 steps" in caption_of(fig)
