"""Figures show what the results say, in the lab's layout, with nothing cut off or overlapping."""

import io
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from made import results
from matplotlib.backends.backend_agg import FigureCanvasAgg

from labrnn.lab import Results
from labrnn.parts import Compound, Depth, EmbeddingSize, LstmOptimizers, Width
from labrnn.results import figures
from labrnn.results.baselines import Baseline
from labrnn.results.statistics import Estimate

PUBLISHED = {"train_reviews": 0, "max_tokens": 256, "batch_size": 96, "lr": 0.001}


@pytest.fixture(scope="module")
def optimizers():
    return results(
        LstmOptimizers(seeds=[5, 6], **PUBLISHED), {"Adagrad": 0.82, "Adam": 0.88, "RMSprop": 0.87}
    )


def drawn(figure):
    """The figure after a renderer has laid it out."""
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


def test_training_curve_has_the_labs_layout(optimizers):
    figure = drawn(figures.training_curve(optimizers, optimizers["Adam"]))
    top, bottom = figure.axes
    assert top.get_ylim() == (0.45, 1.05)
    assert bottom.get_ylim()[0] == 0
    shown = lines(top)
    assert set(shown) >= {"training", "validation, best 0.880"}
    assert shown["training"].get_linestyle() != shown["validation, best 0.880"].get_linestyle()
    accuracy = optimizers.accuracy(optimizers["Adam"])
    title = figure.get_suptitle()
    assert title.startswith("LSTM LR=0.001, OPTIM=adam\n")
    assert f"test accuracy {accuracy.mean:.3f} ± " in title
    assert title.endswith("2 seeds")


def test_training_curve_shows_each_seed_and_their_mean(optimizers):
    top = figures.training_curve(optimizers, optimizers["Adam"]).axes[0]
    thin = [line for line in top.lines if line.get_linewidth() == 0.5]
    assert len(thin) == 4
    curves = optimizers.curves(optimizers["Adam"], "train_accuracy")
    assert lines(top)["training"].get_ydata() == pytest.approx(np.mean(curves, axis=0))


def test_not_run_is_said_and_not_drawn(optimizers):
    figure = figures.training_curve(optimizers, optimizers["SGD"])
    assert "not run" in figure.get_suptitle()
    assert [t.get_text() for t in texts(figure)] == ["not run"]


@pytest.mark.parametrize("size", [(3.1, 3.0), (2.05, 2.3), (4.2, 3.0)])
@pytest.mark.parametrize(
    "course",
    [
        [0.5, 0.51, 0.5, 0.51, 0.5],
        [0.72, 0.85, 0.88, 0.87, 0.87],
        [0.79, 0.6, 0.57, 0.52, 0.5],
        [0.5, 0.66, 0.66, 0.71, 0.75],
        [0.5, 0.5, 0.5, 0.6, 0.85],
    ],
    ids=["chance", "usual", "collapse", "slow", "late"],
)
def test_titles_fit_and_legends_keep_off_the_curves(optimizers, size, course, monkeypatch):
    for trial in optimizers.outcome.trials.values():
        monkeypatch.setattr(
            trial,
            "history",
            [
                e | {"train_accuracy": a + 0.02, "valid_accuracy": a}
                for e, a in zip(trial.history, course, strict=True)
            ],
        )
    for setting in optimizers.run:
        figure = drawn(figures.training_curve(optimizers, setting, *size))
        assert within(figure, boxes(figure, [figure._suptitle])[0])
        [legend] = boxes(figure, figure.legends)
        assert within(figure, legend)
        assert not any(legend.overlaps(axes.bbox) for axes in figure.axes)


def test_labels_at_the_lines_ends_keep_apart(optimizers):
    close = results(
        LstmOptimizers(**PUBLISHED), {"Adagrad": 0.874, "Adam": 0.875, "RMSprop": 0.873, "SGD": 0.5}
    )
    figure = drawn(figures.compare_curves(close, close.run))
    labels = boxes(figure, figure.axes[0].texts)
    assert len(labels) == 4
    assert not any(a.overlaps(b) for a, b in combinations(labels, 2))
    assert all(within(figure, box) for box in labels)


def test_one_dimension_marks_the_published_setting_only():
    accuracies = {"1 layer": 0.87, "2 layers": 0.86, "3 layers": 0.5, "4 layers": 0.5}
    found = results(Depth(**PUBLISHED), accuracies)
    figure = drawn(figures.one_dimension(found, "n_layers", "layers"))
    diamonds = lines(figure.axes[0])["published, one seed, last epoch"]
    assert list(diamonds.get_xydata()[:, 0]) == [1, 2, 3, 4]
    assert list(diamonds.get_xydata()[:, 1]) == [0.870, 0.866, 0.5, 0.5]
    assert diamonds.get_fillstyle() == "none"
    assert within(figure, boxes(figure, figure.legends)[0])
    quick = figures.one_dimension(results(Depth(), accuracies), "n_layers", "layers")
    assert "published, one seed, last epoch" not in lines(quick.axes[0])


def test_one_dimension_zooms_only_if_nothing_failed():
    part = Width(widths=[20, 100], **PUBLISHED)
    fine = figures.one_dimension(
        results(part, {"20 units": 0.87, "100 units": 0.88}), "hidden_dim", "units"
    ).axes[0]
    failed = figures.one_dimension(
        results(part, {"20 units": 0.5, "100 units": 0.88}), "hidden_dim", "units"
    ).axes[0]
    assert fine.get_ylim()[0] > 0.8
    assert failed.get_ylim() == (0.45, 1.0)


@pytest.mark.parametrize("part", [Width(**PUBLISHED), EmbeddingSize(**PUBLISHED)])
def test_eight_values_have_labels_that_do_not_touch(part):
    found = results(part, {s.name: 0.87 for s in part.settings()})
    figure = drawn(figures.one_dimension(found, part.field, part.unit))
    ticks = [t for t in figure.axes[1].get_xticklabels() if t.get_text()]
    assert len(ticks) == 8
    centres = [box.x0 + box.width / 2 for box in boxes(figure, ticks)]
    assert min(np.diff(centres)) > 8  # pixels at 100 dpi; they stand at an angle


def compound(accuracy):
    found = results(Compound(), accuracy)
    studies = {n: Results(p, found.outcome) for n, p in found.part.studies().items()}
    return found, studies


def test_compound_heat_prints_every_cell():
    found, _ = compound(lambda c: None if c.n_layers == 4 and c.hidden_dim == 40 else 0.86)
    figure = figures.compound_heat(found)
    assert len(figure.axes) == 4
    printed = [t.get_text() for t in texts(figure)]
    assert len(printed) == 48
    assert printed.count("–") == 3


def test_compound_scatter_has_every_trial_and_the_studies():
    found, studies = compound(lambda c: 0.86)
    axes = drawn(figures.compound_scatter(found, studies)).axes[0]
    counts = {c.get_label(): len(c[0].get_xdata()) for c in axes.containers}
    assert counts == {"1 layer": 12, "2 layers": 12, "3 layers": 12, "4 layers": 12}
    assert {"depth alone", "width alone", "embedding alone"} <= set(lines(axes))


@pytest.mark.parametrize(
    "draw",
    [
        figures.compound_heat,
        lambda r: figures.compound_scatter(r, {}),
        lambda r: figures.compare_curves(r, r.run),
        lambda r: figures.one_dimension(r, "n_layers", "layers"),
    ],
)
def test_figures_of_nothing_are_empty(draw):
    drawn(draw(results(Compound(), {})))


def test_forest_marks_what_is_clear():
    estimates = [Estimate(m, m - 0.01, m + 0.01, 3, 100, 0.5) for m in (0.0, 0.02)]
    figure = drawn(figures.forest([("nothing", estimates[0]), ("a gain", estimates[1])]))
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["nothing", "a gain"]
    colors = [c[0].get_color() for c in axes.containers]
    assert colors == [figures.GREY, figures.BLUE]
    assert axes.yaxis_inverted()


BASELINE = Baseline("NB-SVM", 0.1, 9, 1.0, 0.90, np.arange(1000) < 930)


@pytest.mark.parametrize("bar", [BASELINE, None])
def test_the_best_model_without_a_network_is_a_line_where_it_is_stored(bar):
    depth = results(Depth(**PUBLISHED), {"1 layer": 0.87, "2 layers": 0.86})
    found = Results(depth.part, depth.outcome, bar)
    shown = [
        figures.one_dimension(found, "n_layers", "layers"),
        figures.compare_curves(found, found.run),
        figures.compound_scatter(found, {}),
        figures.accuracies([("LSTM", Estimate(0.87, 0.86, 0.88, 1, 1000, 0.0), True)], bar),
    ]
    named = [[t.get_text() for t in texts(drawn(f)) if "NB-SVM" in t.get_text()] for f in shown]
    value = "NB-SVM: 0.930"
    assert named == ([[value], ["NB-SVM: 0.900"], [value], [value]] if bar else [[]] * 4)
    low, high = shown[0].axes[0].get_ylim()
    assert not bar or low < 0.93 < high


def test_a_setting_that_failed_does_not_flatten_the_others():
    accuracies = {f"{n} units": 0.87 for n in (10, 20, 100, 150, 200, 260, 285)}
    widths = [10, 20, 100, 150, 200, 260, 285, 319]
    found = results(Width(widths=widths, **PUBLISHED), accuracies | {"319 units": 0.56})
    top = drawn(figures.one_dimension(found, "hidden_dim", "hidden units")).axes[0]
    assert top.get_ylim()[0] > 0.8
    [told] = [t.get_text() for t in top.texts if "↓" in t.get_text()]
    assert told.startswith("0.5")


def test_gaps_beyond_the_frame_are_told_at_its_edge():
    known = SimpleNamespace(part="2c", test_acc=0.87)
    rows = [
        SimpleNamespace(published=known, seeds=1, gap=gap, noise=0.02, agrees=abs(gap) < 0.02)
        for gap in (-0.36, 0.01)
    ]
    [axes] = drawn(figures.agreement(rows)).axes
    assert [t.get_text() for t in axes.texts] == ["−36.0", "2c"]
