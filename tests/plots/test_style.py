"""The house style: files written, names escaped, tables checked, colours apart, and the caller's settings untouched."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from unlearn_nb.core import UnlearnError
from unlearn_nb.plots import (
    BLACK,
    GREY,
    METHODS,
    PALETTE,
    checked,
    error_bars,
    label_of,
    line_styles,
    outside_legend,
    save_figure,
    styled,
    use_style,
)


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    before = dict(plt.rcParams)
    yield
    plt.rcParams.update(before)


@styled
def line(name="a line"):
    fig, axis = plt.subplots()
    axis.plot([0, 1], [0, 1], label=label_of(name))
    outside_legend(fig, axis)
    return fig


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a b", "/abs", "-x"])
def test_a_figure_name_can_not_leave_its_folder(name, tmp_path):
    with pytest.raises(UnlearnError, match="figure name"):
        save_figure(line(), tmp_path / "f", name)
    assert not list(tmp_path.rglob("*.png"))


def test_text_of_models_is_escaped_in_svg(tmp_path):
    fig = line("<script>alert(1)</script>")
    _, svg = save_figure(fig, tmp_path, "t")
    assert "<script>" not in svg.read_text() and "&lt;script&gt;" in svg.read_text()


@pytest.mark.parametrize("name, label", [
    ("x" * 2**21, "x" * 60 + "… (2097092 more characters)"), ("\x1b[2J\r\nevil \u202e", r"\x1b[2J\r\nevil \u202e")])
def test_labels_from_anywhere_are_bounded_and_seen(tmp_path, name, label):
    fig = line(name)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [label]
    _, svg = save_figure(fig, tmp_path, "t")
    assert svg.stat().st_size < 100_000


def test_use_style_and_palette():
    use_style()
    assert plt.rcParams["axes.grid"] and len(set(PALETTE)) == 10


def test_a_styled_figure_leaves_the_caller_s_settings_even_after_an_error():
    @styled
    def broken():
        plt.subplots()
        raise UnlearnError("nothing to draw")

    before = dict(plt.rcParams)
    line()
    with pytest.raises(UnlearnError):
        broken()
    assert dict(plt.rcParams) == before
    plt.close("all")


def test_a_table_is_checked_and_unknown_intervals_have_no_length():
    table = checked(pd.DataFrame({"value": [1.0, 2.0]}), ["value"])
    assert table["low"].isna().all() and not error_bars(table).any()
    bars = error_bars(pd.DataFrame({"value": [1.0, 1.0], "low": [0.5, 1.5], "high": [np.nan, 2.0]}))
    np.testing.assert_allclose(bars, [[0.5, 0], [0, 1]])
    for wrong, part in ((table[:0], "has no rows"), (table.drop(columns="value"), "lacks the column 'value'")):
        with pytest.raises(UnlearnError, match=part):
            checked(wrong, ["value"])


def test_grey_is_for_the_oracle_and_the_unchanged_model_and_forty_names_stay_apart():
    styles = line_styles(["oracle", "vanilla", "target", *map(str, range(40))])
    assert [styles[name]["color"] for name in ("oracle", "vanilla", "target")] == [BLACK, GREY, GREY]
    assert len({tuple(styles[str(i)].values()) for i in range(40)}) == 40


def test_a_listed_method_looks_alike_in_every_figure_and_no_two_listed_ones_do():
    names = [name for group in METHODS for name in group if name]
    everything = line_styles(names)
    assert len({tuple(look.values()) for look in everything.values()}) == len(names)
    for name in names:
        assert line_styles(["mine", name, "oracle"])[name] == everything[name]
    for group in METHODS:
        looks = line_styles([name for name in group if name]).values()
        assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == len(looks)
    mine = line_styles([*METHODS[0], "mine"])["mine"]
    assert mine["color"] not in {line_styles([name])[name]["color"] for name in METHODS[0]}


def contrast(color):
    """Of a colour on white (WCAG 2)."""
    channels = np.array([int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_colours_are_seen_on_white():
    assert min(map(contrast, PALETTE)) > 2.2 and len(set(PALETTE)) == 10


def test_a_legend_has_one_entry_a_label_and_is_left_out_where_there_is_none():
    fig, axes = plt.subplots(1, 2)
    for axis in axes:
        axis.plot([0], [0], label="same")
    outside_legend(fig, *axes)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["same"]
    fig, axis = plt.subplots()
    outside_legend(fig, axis)
    assert not fig.legends
    plt.close("all")
