"""Figures show the results in the layout of the lab, with nothing cut off or overlapping."""

import io
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from fake_results import baseline, results
from matplotlib.backends.backend_agg import FigureCanvasAgg

from labrnn.config import TrialConfig
from labrnn.parts import Bidirectional, Compound, Depth, EmbeddingSize, Lstm, LstmOptimizers, Width
from labrnn.results import figures
from labrnn.results.comparison import Comparison
from labrnn.results.statistics import Estimate
from labrnn.results.table import LN2

PUBLISHED = {"train_reviews": 0, "max_tokens": 256, "batch_size": 96, "lr": 0.001}
ACCURACIES = {"Adagrad": 0.82, "Adam": 0.88, "RMSprop": [0.87, 0.5, 0.86]}


@pytest.fixture(scope="module")
def optimizers():
    return results(LstmOptimizers(seeds=[5, 6, 7], **PUBLISHED), ACCURACIES)


def drawn(figure):
    """Return the figure after the renderer has laid it out."""
    FigureCanvasAgg(figure).draw()
    figure.savefig(io.BytesIO(), format="svg")
    return figure


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def texts(figure):
    return [t for axes in figure.axes for t in axes.texts if t.get_text()]


def boxes(figure, artists):
    renderer = figure.canvas.get_renderer()
    return [artist.get_window_extent(renderer) for artist in artists]


def within(figure, box, slack=1):
    width, height = figure.bbox.width, figure.bbox.height
    return (
        box.x0 >= -slack
        and box.y0 >= -slack
        and box.x1 <= width + slack
        and box.y1 <= height + slack
    )


def panels(figure):
    """Return (accuracy axes, loss axes) of each visible panel, in order."""
    shown = [axes for axes in figure.axes if axes.get_visible()]
    tops = [axes for axes in shown if axes.get_title()]
    bottoms = [axes for axes in shown if not axes.get_title()]
    return list(zip(tops, bottoms, strict=True))


# Training curves


def test_training_curves_have_the_labs_layout(optimizers):
    figure = drawn(figures.training_curves(optimizers, optimizers.settings))
    assert figure.get_suptitle() == "LSTM"
    tops = [top for top, _ in panels(figure)]
    assert len(tops) == 4
    assert {top.get_ylim() for top in tops} == {(0.45, 1.05)}
    titles = [top.get_title() for top in tops]
    assert titles[0].startswith("(a) Adagrad, learning rate 0.001\ntest accuracy 8")
    assert "(2 of 3 trained)\n" in titles[2]
    assert titles[3] == "(d) SGD\nnot run"
    curves, _ = optimizers.curves(optimizers["Adam"], "valid_accuracy")
    assert titles[1].endswith(f"\nbest validation {100 * curves.max(axis=1).mean():.1f} %")
    [legend] = figure.legends  # one legend for all panels
    assert [t.get_text() for t in legend.get_texts()] == ["training", "validation"]


def test_shared_settings_are_in_the_figure_title():
    found = results(Width(widths=[20, 100], **PUBLISHED), {"20 units": 0.8, "100 units": 0.8})
    figure = figures.training_curves(found, found.settings)
    assert figure.get_suptitle() == "LSTM, RMSprop, learning rate 0.001"
    assert [top.get_title().split("\n")[0] for top, _ in panels(figure)] == [
        "(a) 20 units",
        "(b) 100 units",
    ]
    usual = results(Lstm(train_reviews=0, max_tokens=256, batch_size=96), {"LSTM": 0.5})
    title = figures.training_curves(usual, usual.settings, 1).get_suptitle()
    assert title == "LSTM, the lab's defaults"


def test_titles_name_every_change_in_words():
    changed = TrialConfig(
        bidirectional=True, dropout_rate=0.2, embedding_dim=32, hidden_dim=305, lr=0.001,
        n_layers=2, optim="rmsprop", readout="last_step",
    )  # fmt: skip
    assert figures._changes(changed, TrialConfig()) == [
        "RMSprop", "learning rate 0.001", "2 layers", "305 units", "32 dimensions", "dropout 0.2",
        "bidirectional", "readout last_step",
    ]  # fmt: skip


def test_mean_curve_excludes_untrained_runs(optimizers):
    figure = figures.training_curves(optimizers, [optimizers["RMSprop"]], 1)
    [(top, _)] = panels(figure)
    curves, able = optimizers.curves(optimizers["RMSprop"], "train_accuracy")
    assert able.tolist() == [True, False, True]
    thick = [line for line in top.lines if line.get_marker() == "o"]
    assert thick[0].get_ydata() == pytest.approx(curves[able].mean(axis=0))
    thin = [line for line in top.lines if line.get_linewidth() < 0.7]
    assert len(thin) == 6
    assert sum(line.get_color() == figures.GREY for line in thin) == 2


@pytest.mark.parametrize("seeds", [[5], [5, 6, 7]])
def test_loss_at_ln_2_is_magnified(seeds):
    part = Lstm(seeds=seeds, train_reviews=0, max_tokens=256, batch_size=96)
    flat, falls = (results(part, {"LSTM": a}) for a in (0.5, 0.8))
    figure = figures.training_curves(flat, flat.settings, 1)
    [(top, bottom)] = panels(figure)
    low, high = bottom.get_ylim()
    assert low < LN2 < high
    assert high - low < 0.01
    assert top.get_ylim() == (0.45, 1.05)
    for axes in (top, bottom):
        grey = [line for line in axes.lines if line.get_color() == figures.GREY]
        assert len(grey) == len(axes.lines) == 1 + 2 * len(seeds)
    assert {line.get_color() for line in figure.legends[0].legend_handles} == {figures.GREY}
    figure = figures.training_curves(falls, falls.settings, 1)
    [(top, bottom)] = panels(figure)
    assert bottom.get_ylim() == (0, 0.8)
    assert top.get_ylim() == (0.45, 1.05)


@pytest.mark.parametrize(("columns", "count"), [(1, 1), (2, 4), (3, 8)])
@pytest.mark.parametrize("course", [0.5, 0.72, 0.95])
def test_nothing_is_cut_off_and_legends_avoid_the_curves(columns, count, course):
    widths = [10, 20, 100, 150, 200, 260, 285, 319][:count]
    found = results(
        Width(widths=widths, seeds=[5, 6], **PUBLISHED), {f"{w} units": course for w in widths}
    )
    figure = drawn(figures.training_curves(found, found.settings, columns))
    assert len(panels(figure)) == count
    assert within(figure, boxes(figure, [figure._suptitle])[0])
    [legend] = boxes(figure, figure.legends)
    assert within(figure, legend)
    assert not any(legend.overlaps(axes.bbox) for axes in figure.axes if axes.get_visible())
    titles = boxes(figure, [top.title for top, _ in panels(figure)])
    assert all(within(figure, box) for box in titles)
    assert not any(a.overlaps(b) for a, b in combinations(titles, 2))


@pytest.mark.parametrize("count", [4, 5, 9])
def test_any_number_of_series_is_drawn_distinctly(count):
    """A fifth optimiser once vanished because there were only four styles."""
    styles = [figures.look(k) for k in range(count)]
    assert len(set(styles)) == count
    widths = list(range(10, 10 + count))[:8]
    found = results(Width(widths=widths, **PUBLISHED), {f"{w} units": 0.8 for w in widths})
    axes = drawn(figures.compare_curves(found, found.settings)).axes[0]
    assert [t.get_text() for t in axes.texts] == [s.name for s in found.settings]


def test_line_end_labels_do_not_overlap():
    close = results(
        LstmOptimizers(**PUBLISHED), {"Adagrad": 0.874, "Adam": 0.875, "RMSprop": 0.873, "SGD": 0.5}
    )
    figure = drawn(figures.compare_curves(close, close.run()))
    labels = boxes(figure, figure.axes[0].texts)
    assert len(labels) == 4
    assert not any(a.overlaps(b) for a, b in combinations(labels, 2))
    assert all(within(figure, box) for box in labels)


# One dimension, the grid


def depths(**more):
    accuracies = {"1 layer": 0.87, "2 layers": [0.86, 0.5, 0.87], "3 layers": 0.5, "4 layers": 0.5}
    return results(Depth(seeds=[5, 6, 7], **PUBLISHED), accuracies, **more)


def test_one_dimension_draws_each_run_and_marks_failures():
    top = drawn(figures.one_dimension(depths(), "layers")).axes[0]
    dots = [line.get_xydata() for line in top.lines if line.get_marker() == "."]
    assert [len(d) for d in dots] == [3, 2]
    failed = [(t.xy[0], t.get_text()) for t in top.texts if "/" in t.get_text()]
    assert failed == [(2, "1/3"), (3, "3/3"), (4, "3/3")]
    assert min(top.get_yticks()) > 0.8  # failed runs do not compress the axis
    means = [c[0].get_ydata()[0] for c in top.containers]
    found = depths()
    assert means == [found.accuracy(s).mean for s in found.settings[:2]]


def test_one_dimension_marks_only_published_settings():
    figure = drawn(figures.one_dimension(depths(), "layers"))
    top = figure.axes[0]
    diamonds = [
        tuple(xy) for line in top.lines if line.get_marker() == "D" for xy in line.get_xydata()
    ]
    assert sorted(x for x, _ in diamonds) == [1, 2]
    assert {y for _, y in diamonds} == {0.870, 0.866}
    assert [t.xy[0] for t in top.texts if t.get_text() == "0.50"] == [3, 4]
    assert {t.get_text() for t in top.texts} >= {"failed", "published"}
    strip = boxes(figure, top.texts)
    assert not any(a.overlaps(b) for a, b in combinations(strip, 2))
    lowest = min(line.get_ydata().min() for line in top.lines if line.get_marker() in ".oD")
    assert max(box.y1 for box in strip) < top.transData.transform((1, lowest))[1]
    [legend] = figure.legends
    assert within(figure, boxes(figure, [legend])[0])
    assert {t.get_text() for t in legend.get_texts()} == {
        "ours, best epoch",
        "published, one run, last epoch",
    }
    quick = figures.one_dimension(results(Depth(), {"1 layer": 0.87}), "layers")
    assert "D" not in [line.get_marker() for line in quick.axes[0].lines]


def test_axis_is_complete_if_nothing_trained():
    found = results(Width(widths=[20, 100], **PUBLISHED), {"20 units": 0.5, "100 units": 0.5})
    top = figures.one_dimension(found, "units").axes[0]
    assert top.get_ylim()[1] == 1.0
    assert min(top.get_yticks()) < 0.6


@pytest.mark.parametrize("part", [Width(**PUBLISHED), EmbeddingSize(**PUBLISHED)])
def test_eight_tick_labels_do_not_overlap(part):
    found = results(part, {s.name: 0.87 for s in part.settings()})
    figure = drawn(figures.one_dimension(found, part.unit))
    ticks = [t for t in figure.axes[1].get_xticklabels() if t.get_text()]
    assert len(ticks) == 8
    centres = [box.x0 + box.width / 2 for box in boxes(figure, ticks)]
    assert min(np.diff(centres)) > 8  # pixels at 100 dpi; the labels are rotated


def test_compound_heat_prints_every_cell():
    def accuracy(c):
        if c.n_layers == 4:
            return None if c.hidden_dim == 40 else 0.5 if c.hidden_dim == 10 else 0.86
        return 0.86

    figure = figures.compound_heat(results(Compound(), accuracy, reviews=500))
    assert len(figure.axes) == 4
    printed = [t.get_text() for t in texts(figure)]
    assert len(printed) == 48
    assert (printed.count("–"), printed.count("×")) == (3, 3)


def test_compound_scatter_shows_the_grid_and_single_dimensions():
    found = results(Compound(), lambda c: 0.86, reviews=500)
    axes = drawn(figures.compound_scatter(found)).axes[0]
    alone = {s.config for study in found.part.studies().values() for s in study.settings()}
    assert len(axes.containers) == 48 + len(alone)
    colors = [c[0].get_color() for c in axes.containers]
    assert colors.count(figures.GREY) == len(alone)


def test_compound_scatter_has_no_bars_for_single_runs():
    """Their intervals are so long that they would hide the others."""
    part = Compound(seeds=[5, 6])
    found = results(part, lambda c: [0.85, 0.87 if c.n_layers == 1 else None], reviews=500)
    studied = [s for study in part.studies().values() for s in study.settings()]
    shown = {s.config: found.accuracy(s) for s in [*found.settings, *studied]}.values()
    assert all(estimate.known for estimate in shown)
    single = [estimate for estimate in shown if estimate.n == 1]
    assert 0 < len(single) < len(shown)
    axes = drawn(figures.compound_scatter(found)).axes[0]
    bars = [sum(map(len, c[2][0].get_segments())) > 0 for c in axes.containers]
    assert bars.count(False) == len(single)


@pytest.mark.parametrize(
    ("draw", "label", "notes"),
    [
        (figures.compound_heat, "hidden units", ["–"] * 48),
        (figures.compound_scatter, "trainable parameters", []),
        (lambda r: figures.compare_curves(r, r.run()), "validation accuracy", []),
        (lambda r: figures.training_curves(r, r.settings[:3]), "accuracy", ["not run"] * 3),
        (lambda r: figures.accuracies(r, r.able()), "test accuracy, %", []),
        (lambda r: figures.forest([]), "difference in test accuracy, points", []),
        (lambda r: figures.agreement([]), "ours − published, points", []),
    ],
)
def test_figures_without_results_show_labels_but_no_data(draw, label, notes):
    figure = drawn(draw(results(Compound(), {})))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert label in {name for axes in shown for name in (axes.get_xlabel(), axes.get_ylabel())}
    # Reference lines, such as chance, span the axes and have another transform.
    data = [line for axes in shown for line in axes.lines if line.get_transform() == axes.transData]
    assert not any(len(line.get_xdata()) for line in data)
    titles = [axes.get_title().split("\n") for axes in shown]
    said = [*(t.get_text() for t in texts(figure)), *(line for _, *more in titles for line in more)]
    assert said == notes


# Differences and accuracies


def test_forest_marks_significance_and_limits_its_scale():
    figures_of = ((0.0, 0.005), (0.02, 0.005), (0.1, 0.2), (-0.03, 0.005))
    estimates = [Estimate(m, e, 50, 3, 100) for m, e in figures_of]
    names = ["nothing", "a gain", "wide", "untested"]
    compared = [
        Comparison(SimpleNamespace(name=n), None, difference=e, p=p, p_equivalent=1.0)
        for n, e, p in zip(names, estimates, (1.0, 0.001, 1.0, np.nan), strict=True)
    ]
    figure = drawn(figures.forest(compared))
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "Nothing",
        "A gain",
        "Wide",
        "Untested",
    ]
    colors = [figures.GREY, figures.BLUE, figures.GREY, figures.GREY]
    assert [c[0].get_color() for c in axes.containers] == colors
    assert [c[0].get_fillstyle() for c in axes.containers] == ["full", "full", "full", "none"]
    assert all(c.has_xerr and not c.has_yerr for c in axes.containers)
    sure = [axes.containers[k][2][0].get_segments()[0] for k in (0, 1, 3)]
    bars = [np.ptp(bar[:, 0]) for bar in sure]
    half = 100 * estimates[0].half_width
    assert bars == pytest.approx([2 * half, 2 * half, 2 * half])
    assert not len(axes.containers[2][2][0].get_segments()[0])  # neither bar nor caps
    assert "hollow: not tested, a single run" in figure.get_label()
    assert axes.yaxis_inverted()
    assert axes.get_xlim()[1] < 15  # the wide interval exceeds the axis


@pytest.mark.parametrize("best", [baseline(validation=0.90), None])
def test_stored_baseline_is_drawn_as_a_line(best):
    found = depths(baseline=best)
    shown = [
        figures.one_dimension(found, "layers"),
        figures.compare_curves(found, found.run()),
        figures.accuracies(found, found.able()),
    ]
    named = [[t.get_text() for t in texts(drawn(f)) if "NB-SVM" in t.get_text()] for f in shown]
    value = "NB-SVM: 93.0 %"
    assert named == ([[value], ["NB-SVM: 90.0 %"], [value]] if best else [[]] * 3)
    low, high = shown[0].axes[0].get_ylim()
    assert not best or low < 0.93 < high


def test_accuracies_omit_the_majority_baseline():
    found = results(Bidirectional(seeds=[5, 6], **PUBLISHED), lambda c: 0.86)
    models = [baseline("majority", 0.5), baseline(), *found.able()]
    (axes,) = drawn(figures.accuracies(found, models)).axes
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert len(labels) == len(models) - 1
    assert "Majority" not in labels
    assert axes.get_xlim()[0] > 80


def test_widely_spread_runs_have_no_mean():
    found = results(Width(widths=[20, 100], seeds=[5, 6, 7], **PUBLISHED),
                    {"20 units": [0.70, 0.88, 0.86], "100 units": [0.870, 0.871, 0.872]})  # fmt: skip
    apart, alike = found.settings
    assert found.accuracy(apart).ranges
    assert not found.accuracy(alike).ranges
    (axes,) = drawn(figures.accuracies(found, found.settings)).axes
    assert [c[0].get_xdata().tolist() for c in axes.containers] == [[pytest.approx(87.1)]]
    top = drawn(figures.one_dimension(found, "units")).axes[0]
    assert [c[0].get_xdata().tolist() for c in top.containers] == [[100]]
    points = [line for line in top.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in points] == [3, 3]
    titles = [axes.get_title() for axes in figures.training_curves(found, found.settings).axes]
    assert any("test accuracy 70.0 to 88.0 % (n = 3)" in title for title in titles)


def test_first_steps_draw_one_line_per_seed():
    losses = {seed: np.linspace(1, 0.5, 40) + seed / 100 for seed in range(5, 11)}
    figure = drawn(figures.first_steps(losses))
    [axes] = figure.axes
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == [f"seed {k}" for k in range(5, 11)]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines[1:]}) == 6


def test_gaps_beyond_the_axis_are_printed_at_its_edge():
    rows = [
        SimpleNamespace(
            section="2c", compared=True, gap=Estimate(gap, 0.01, 50, 1, 100), agrees=abs(gap) < 0.02
        )
        for gap in (-0.36, 0.01)
    ]
    [axes] = drawn(figures.agreement(rows)).axes
    assert [t.get_text() for t in axes.texts] == ["−36.0 ↓", "2c"]


# Keys of figures


def test_figure_key_explains_only_what_is_shown():
    part = Depth(depths=[1, 2], seeds=[5], **PUBLISHED)
    one, some = results(part, {"1 layer": 0.87, "2 layers": 0.86}), depths()
    keys = {
        name: [draw(found).get_label() for found in (one, some)]
        for name, draw in (
            ("curves", lambda r: figures.training_curves(r, r.settings)),
            ("points", lambda r: figures.one_dimension(r, "layers")),
        )
    }
    once, more = keys["curves"]
    assert "runs that failed" in more
    assert "Thin lines: runs; thick lines" in more
    assert "Thin" not in once
    once, more = keys["points"]
    assert "Under the line: failed / all runs and published" in more
    assert "failed" not in once


def test_losses_in_a_row_share_one_scale():
    found = depths()
    for entry in found.first(found["2 layers"]).history:
        entry["valid_loss"] *= 4
    losses = [loss for _, loss in panels(figures.training_curves(found, found.settings))]
    assert losses[0].get_ylim() == losses[1].get_ylim()
    assert losses[0].get_ylim()[1] > losses[2].get_ylim()[1]
