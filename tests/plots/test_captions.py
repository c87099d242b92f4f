"""Every figure of a study: a caption with its numbers, at most 700 px wide, no text below 8 pt, nothing clipped."""

import inspect
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import unlearn_nb.plots as plots
from unlearn_nb.metrics import Scores
from unlearn_nb.plots import WIDTH, caption_of, intervals_said, score_axis, seeds_said
from unlearn_nb.runs import Run

STUDIES = Path(__file__).resolve().parents[2] / "nbs" / "studies"
ENDS = {"low": 0.4, "high": 0.6}


def scores(value: float) -> Scores:
    names = [f"{s}/T{t}/{m}" for s in ("forget", "retain") for t in (1, 2) for m in ("regurgitation", "knowledge")]
    names += ["task_aggregate", "mia_auc", "mia_score", "utility", "final"]
    ci = pd.DataFrame({"metric": names, "value": value, "low": value - 0.1, "high": value + 0.1})
    return Scores(pd.DataFrame({"split": ["forget", "retain"], "subject": ["Ada", "Bo"]}), ci)


def runs() -> pd.DataFrame:
    return pd.DataFrame([{"seed": s, "objective": "npo", "region": r, "step": step, "share": 0.2, "rs": 0.9, "fs": 0.5,
                          "utility": 0.8, "log_quality": -3.0, "aues": 0.9 + 0.001 * s, "mu95": -3.0, "auc": 0.6}
                         for s in range(5) for r in ("oracle", "random") for step in (0, 1)])


def long(**columns) -> pd.DataFrame:
    rows = [{"method": m, "metric": k, "value": 0.5, **ENDS, **columns} for m in ("relearn", "oracle")
            for k in ("forget/kfr", "retain/krr")]
    return pd.DataFrame(rows)


def recovered(**columns) -> pd.DataFrame:
    return pd.DataFrame({"case": "like", "method": ["edit: cg", "SISA"], "recovery": [0.5, 0.55], **ENDS, "share": 0.1,
                         "solver": ["cg", "sgd"], "gradients": [40.0, 80.0], "residual": 0.1, "damping": [1.0, 2.0],
                         **columns})


MODELS, FINAL = {"merged": scores(0.5), "target": scores(0.3)}, runs().query("step == 1")
HISTORY = pd.DataFrame({"step": range(90), "loss": 1.0, "npo": 2.0})
CELLS = pd.DataFrame({"step": [0, 5, 9]} | {name: 0.5 for name in scores(0.5).cells})
SWEEP = pd.DataFrame({"density": [0.2, 0.8], **{m: 0.5 for m in ("final", "task_aggregate", "mia_auc", "utility")}})
ANGLES = pd.DataFrame([{"step": 5, "space": "delta", "module": m, "pair": p, "degrees": 80.0}
                       for m in ("all", "a.b") for p in ("0-t, t-T", "0-t, 0-T", "t-T, 0-T")])
NORMS = pd.DataFrame([{"adapter": a, "layer": n, "kind": "q_proj", "norm": 1.0} for a in "ab" for n in range(3)])
OVERLAP = pd.DataFrame(np.eye(2), ["oracle", "wagle"], ["oracle", "wagle"])
SEESAW = pd.DataFrame({"model": ["target", "relearn"], "top1": 0.5, "next_best": 0.3, "rest": 0.2, "entropy": 1.0})
LENS = pd.DataFrame({"model": "target", "layer": [1, 2], "kl_nats": [1.0, 0.0], "low": 0.0, "high": 1.5})
PATH = pd.DataFrame({"trial": 1, "lr": 1e-3, "step": [5, 9], "left": 0.1, "lost": 0.02, "chosen": [False, True]})
COMPARED = pd.DataFrame({"left": [1.0, 0.1, 0.2, 0.4], "retained": [1.0, 1.0, 0.9, 0.95],
                         "collateral": [1.0, 1.0, 0.4, 0.8]},
                        index=["target", "oracle", "NPO in the most active region", "ReLearn"])
TRAPS = pd.DataFrame({"trap": ["es-floor", "half-gradient"], "measure": ["ES", "recovery"], "without": [0.2, 0.9],
                      "with": [0.4, 0.85], "value": [0.2, -0.05], "low": [0.1, -0.1], "high": [0.3, 0.1],
                      "acts": [True, False], "subjects": 10, "seeds": 3})
DRAWN = {
    "loss_curves": lambda f: f({"over": HISTORY, "under": HISTORY}), 
    "trajectories": lambda f: f({"over": CELLS}, turn=5),
    "density_sweep_plot": lambda f: f(SWEEP, oracle=scores(0.9), chosen=0.2), "angles_plot": lambda f: f(ANGLES),
    "norms_plot": lambda f: f(NORMS), "cells_heatmap": lambda f: f(MODELS, scores(0.9)),
    "tradeoff_plot": lambda f: f(MODELS, scores(0.9)), "aggregate_bars": lambda f: f(MODELS, scores(0.9)),
    "forgetting_bars": lambda f: f(long()), "tradeoff_kfr_krr": lambda f: f(long()),
    "attack_plot": lambda f: f(pd.concat([long(kind="none", attack="none"), long(kind="precision", attack="int4")])),
    "seesaw_plot": lambda f: f(SEESAW), "lens_plot": lambda f: f(LENS),
    "ratio_plot": lambda f: f(long(ratio=1).query("method == 'relearn'")),
    "recovery_points": lambda f: f(recovered()), "effort_plot": lambda f: f(recovered(), 480),
    "sweep_plot": lambda f: f(recovered(), "damping", "method", label="Damping", title="Method", log=True),
    "curve_plot": lambda f: f(runs(), [("rs", "fs"), ("utility", "log_quality")]),
    "paired_plot": lambda f: f(FINAL), "share_plot": lambda f: f(FINAL.query("seed == 0")),
    "overlap_heatmap": lambda f: f(OVERLAP), "precision_plot": lambda f: f(FINAL),
    "forget_path_plot": lambda f: f(PATH, 0.05),
    "pareto_plot": lambda f: f(COMPARED, "left", ["retained", "collateral"]),
    "ranks_heatmap": lambda f: f(COMPARED.rank().iloc[2:], COMPARED.iloc[2:] > 0.5),
    "attacks_heatmap": lambda f: f(COMPARED.iloc[2:]),
    "trap_effects_plot": lambda f: f(TRAPS), "trap_sides_plot": lambda f: f(TRAPS),
}


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")


def figures() -> set[str]:
    """Names of all functions of the package that return a figure from a study's tables."""
    found = {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))}
    signed = {name for name in found if inspect.signature(getattr(plots, name)).return_annotation in (Figure, "Figure")}
    return signed - {"captioned", "metric_bars"}  # parts of figures


def test_every_figure_is_looked_at_here():
    assert figures() == set(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_can_be_read_alone(name):
    fig = DRAWN[name](getattr(plots, name))
    said = caption_of(fig)
    assert len(said) > 40 and said.endswith(".") and "nan" not in said and r"\$" not in said, said
    assert re.search("interval", said), "the caption says what the intervals are, or that there are none"
    assert fig.get_figwidth() <= WIDTH, "a page shows 700 px"
    FigureCanvasAgg(fig).draw()
    texts = [text for text in fig.findobj(plt.Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 8
    for axis in fig.axes:
        ticks = {*axis.get_xticklabels(), *axis.get_yticklabels()}
        for text in (text for text in axis.findobj(plt.Text) if text.get_text() and text.get_visible()):
            box = text.get_window_extent()
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= fig.bbox.x1 + 1 and box.y1 <= fig.bbox.y1 + 1
            assert inside or text in ticks, text
    for legend in fig.legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axis.patch.get_window_extent()) for axis in fig.axes if axis.get_visible())


def sources() -> dict[str, str]:
    return {file.stem: "\n".join("".join(cell["source"]) for cell in json.loads(file.read_text())["cells"]
                                 if cell["cell_type"] == "code") for file in STUDIES.glob("*.ipynb")}


@pytest.mark.parametrize("study", sorted(sources()))
def test_a_study_draws_with_functions_that_caption(study):
    text = sources()[study]
    shown = re.findall(r"run\.figure\(\s*(\w+)", text)
    drawn = {name: re.findall(rf"^\s*{name} = (\w+)\(", text, re.MULTILINE) for name in shown if name not in DRAWN}
    assert shown and all(functions and set(functions) <= set(DRAWN) for functions in drawn.values()), drawn


def test_a_report_shows_the_caption_below_the_figure(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    figure = plots.lens_plot(LENS)
    Run.open(tmp_path).figure(figure, "lens", caption="First seed, <3 rows.")
    html = seen[0]["text/html"]
    assert html.count("<figcaption>") == 1 and html.endswith("First seed, &lt;3 rows.</figcaption></figure>")
    assert caption_of(figure) in seen[0]["text/plain"] and f'width="{int(96 * WIDTH)}"' in html


def test_intervals_that_are_missing_are_counted_with_their_reason():
    table = pd.DataFrame({"low": [0.1, np.nan], "high": [0.2, np.nan], "reason": ["", "no interval: 3 runs"]})
    assert intervals_said(table) == "Bars: 95 % intervals (bootstrap over subjects); 1 value without one: 3 runs."
    assert intervals_said(table[1:]) == "No value has an interval: 3 runs."
    assert "95 %" in seeds_said(5) and seeds_said(3) == "3 seeds: no interval (that takes 5)."


@pytest.mark.parametrize("values, ends, said", [
    ([0.1, 0.9], (0.0, 1.0), False), ([0.892, 0.906], (0.75, 1.0), True), ([0.5, 0.514], (0.35, 0.65), True),
    ([0.0, 0.01], (0.0, 0.25), True), ([-0.3, 0.2], (-0.3, 1.0), False), ([np.nan], (0.0, 1.0), False)])
def test_an_axis_of_scores_spans_a_quarter_at_least_and_says_so(values, ends, said):
    _, axis = plt.subplots()
    caption = score_axis(axis, "y", values, label="AUES")
    low, high = axis.get_ylim()
    np.testing.assert_allclose((low, high), ends, atol=0.06)
    assert low < ends[0] and high > ends[1] and bool(caption) is said
    assert ("axis cut" in axis.get_ylabel()) is said
    plt.close("all")
