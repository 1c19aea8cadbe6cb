"""Every figure of the lab: functions from results to matplotlib figures, made to be printed.

Lines differ in dash and marker as well as in colour; sizes are those on the page, in inches.
"""

import textwrap
from contextlib import contextmanager
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from labrnn.results.comparison import LN2, WEAK
from labrnn.results.prose import WIDE, points
from labrnn.results.published import published_accuracy

BLUE, ORANGE, GREEN, PURPLE, GREY = "#1f5a99", "#c8561b", "#2c7a4b", "#75459c", "#6b6b6b"
SERIES = [(BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D")]
BAR = {"color": PURPLE, "linestyle": (0, (6, 2)), "linewidth": 0.7, "zorder": 1}
BAR_NAME = {"color": PURPLE, "fontsize": 6}
# How figures are to be read: `show` adds it to their captions.
LINES = "Thin lines are single seeds, thick ones their mean; dotted ones are chance."
INTERVALS = "Whiskers are 95 % intervals."
WIDTH = 6.0  # inches of the text on a page
FRAME = 0.12  # of accuracy: how far the figure of the reproduction reaches
BAR_TOLD = "The dashed line is the best model without a network on the same reviews."
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "legend.framealpha": 1,
    "legend.edgecolor": "white",
    "legend.borderpad": 0.2,
    "legend.fontsize": 7,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
}


@contextmanager
def page(width, height, rows=1, columns=1, key="", **grid):
    """A figure of this size and its axes, under the lab's style; `key` says how to read it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.set_label(key)
        yield figure, figure.subplots(rows, columns, **grid)


def percent(value, digits=1):
    """A fraction as per cent."""
    return f"{100 * value:.{digits}f} %"


def training_curve(results, setting, width=3.1, height=3.0):
    """Accuracy over the epochs in the lab's layout, loss below it (figures 1 to 7, 9 to 11).

    y from 0.45 to 1.05; the best validation accuracy in the legend; difference from the part's
    base (at the published setting: the defaults) and test accuracy in the title. Every seed is a
    thin line, their mean a thick one; dotted lines are chance. A setting that was not run gives
    empty axes that say so.
    """
    key = f"{LINES} After ± stands half of the 95 % interval."
    with page(width, height, 2, key=key, sharex=True, height_ratios=[2.2, 1]) as (figure, axes):
        top, bottom = axes
        top.set(ylim=(0.45, 1.05), yticks=np.arange(0.5, 1.05, 0.1), ylabel="accuracy")
        bottom.set(ylim=(0, 0.8), xlim=(0.8, setting.config.epochs + 0.2))
        bottom.set(xlabel="epoch", ylabel="loss")
        figure.align_ylabels()
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _chance(top, 0.5)
        _chance(bottom, LN2)
        title = setting.config.difference(results.part.base).replace(",", ", ") or "defaults"
        title = textwrap.fill(f"{setting.config.cell.upper()} {title}", int(15.5 * width))
        if not results.trials(setting):
            figure.suptitle(f"{title}\nnot run", size=7)
            top.text(0.5, 0.5, "not run", transform=top.transAxes, ha="center", color=GREY)
            return figure
        for kind, (color, dash, marker) in zip(("training", "validation"), SERIES, strict=False):
            accuracies = np.array(results.curves(setting, f"{kind[:5]}_accuracy"))
            best = f", best {accuracies.max(axis=1).mean():.3f}" if kind == "validation" else ""
            _lines(top, accuracies, color, dash, marker, kind + best)
            losses = np.array(results.curves(setting, f"{kind[:5]}_loss"))
            _lines(bottom, losses, color, dash, marker)
        bottom.set_ylim(0, max(0.8, 1.1 * bottom.dataLim.ymax))
        accuracy = results.accuracy(setting)
        figure.suptitle(f"{title}\ntest accuracy {_plus_minus(accuracy)}", size=7)
        size = 7 if width > 2.5 else 6
        figure.legend(handlelength=2.6, loc="outside lower center", ncols=2, fontsize=size)
        return figure


def _chance(axes, value):
    axes.axhline(value, color=GREY, linestyle=(0, (1, 2)), linewidth=0.8)


def _bar(axes, results, kind="accuracy"):
    """A thin line, named, at the best stored model without a network."""
    if results.bar:
        value = getattr(results.bar, kind)
        axes.axhline(value, **BAR)
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(_named(results.bar, kind), (0.01, value), (0, 2), **BAR_NAME, **place)


def _named(bar, kind="accuracy"):
    return f"{bar.name}: {getattr(bar, kind):.3f}"


def _lines(axes, curves, color, dash, marker, label=None):
    epochs = np.arange(1, curves.shape[1] + 1)
    if len(curves) > 1:
        for curve in curves:
            axes.plot(epochs, curve, color=color, linestyle=dash, linewidth=0.5, alpha=0.6)
    axes.plot(epochs, curves.mean(axis=0), color=color, linestyle=dash, marker=marker, label=label)


def _plus_minus(estimate):
    half = (estimate.high - estimate.low) / 2
    seeds = f", {estimate.seeds} seeds" if estimate.seeds > 1 else ""
    return f"{estimate.mean:.3f} ± {half:.3f}{seeds}"


def compare_curves(results, settings):
    """Validation accuracy over the epochs for several settings, named at the end of their lines."""
    key = f"{LINES} {BAR_TOLD}" if results.bar else LINES
    with page(WIDTH, 2.6, key=key) as (figure, axes):
        _chance(axes, 0.5)
        if settings:
            _bar(axes, results, "validation")
        ends = []
        for (color, dash, marker), setting in zip(SERIES, settings, strict=False):
            curves = np.array(results.curves(setting, "valid_accuracy"))
            _lines(axes, curves, color, dash, marker)
            ends.append((curves.mean(axis=0)[-1], setting))
        epochs = max((s.config.epochs for s in settings), default=1)
        low, high = axes.get_ylim()
        heights = _apart([value for value, _ in ends], (high - low) / 13)
        for (value, setting), y, (color, _, _) in zip(ends, heights, SERIES, strict=False):
            axes.annotate(
                setting.name,
                (setting.config.epochs, value),
                (epochs + 0.12, y),
                color=color,
                va="center",
                bbox={"color": "white", "pad": 0.5},
            )
        axes.set(xlabel="epoch", ylabel="validation accuracy")
        axes.set_xlim(0.8, epochs + 0.12 * (epochs + 2))
        axes.xaxis.set_major_locator(FixedLocator(range(1, epochs + 1)))
        return figure


def _apart(values, least):
    """Heights for labels: the values, those too close moved apart round their middle."""
    order, heights = np.argsort(values), np.array(values, dtype=float)
    for _ in range(50):
        for lower, upper in pairwise(order):
            push = max(0.0, least - (heights[upper] - heights[lower])) / 2
            heights[lower], heights[upper] = heights[lower] - push, heights[upper] + push
    return heights


def one_dimension(results, field, label):
    """Test accuracy and seconds an epoch against one dimension (figures 8a to 8c).

    Args:
        field: of the configuration, e.g. `n_layers`.
        label: of the x axis.

    Hollow diamonds are the published accuracies, at the published setting.
    """
    key = f"{INTERVALS} {BAR_TOLD}" if results.bar else INTERVALS
    with page(4.5, 3.3, 2, key=key, sharex=True, height_ratios=[2.2, 1]) as (figure, axes):
        top, bottom = axes
        settings = sorted(results.run, key=lambda s: getattr(s.config, field))
        values = [getattr(s.config, field) for s in settings]
        top.set(ylabel="test accuracy")
        bottom.set(xlabel=label, ylabel="s / epoch")
        figure.align_ylabels()
        if not values:
            top.text(0.5, 0.5, "not run", transform=top.transAxes, ha="center", color=GREY)
            return figure
        _ours_and_published(top, results, settings, values)
        figure.legend(loc="outside upper center", ncols=2)
        _bar(top, results)
        places = [(v, results.accuracy(s)) for v, s in zip(values, settings, strict=True)]
        _above_chance(top, places)
        seconds = [results.seconds(s) for s in settings]
        bottom.plot(values, seconds, color=GREEN, marker="^", linestyle="-.")
        if np.isnan(seconds).all():
            bottom.text(0.5, 0.5, "not known", transform=bottom.transAxes, ha="center", color=GREY)
        bottom.set_ylim(0, 1.15 * bottom.get_ylim()[1])
        _value_axis(bottom, values)
        return figure


def _ours_and_published(axes, results, settings, values):
    """Our accuracies with intervals and a dot a seed; hollow diamonds for the published ones."""
    for value, setting in zip(values, settings, strict=True):
        dots = list(results.metric(setting, "accuracy").values())
        axes.plot([value] * len(dots), dots, ".", color=BLUE, markersize=3, alpha=0.6)
    means, reach = _bars([results.accuracy(s) for s in settings])
    look = {"color": BLUE, "marker": "o", "linewidth": 1.2, "capsize": 2, "elinewidth": 0.8}
    axes.errorbar(values, means, reach, label="ours, 95 % interval", **look)
    known = [published_accuracy(s.config) for s in settings]
    if any(known):
        look = {"color": ORANGE, "fillstyle": "none", "markersize": 5}
        axes.plot(values, known, "D", label="published, one seed, last epoch", **look)


def _above_chance(axes, places):
    """The y axis from chance, or where most settings trained from the lowest of those, so that
    their differences show; the few below are told at the edge.

    Args:
        places: (x, `Estimate`) of each setting.
    """
    failed = [(x, e) for x, e in places if e.mean < WEAK]
    lows = [e.low for _, e in places if e.mean >= WEAK]
    if 3 * len(failed) > len(places):
        axes.set_ylim(0.45, 1.0)
        _chance(axes, 0.5)
        return
    low, high = min(lows, default=0.5) - 0.01, axes.dataLim.ymax + 0.01
    axes.set_ylim(low - (0.02 if failed else 0), high)
    for x, e in failed:
        place = {"textcoords": "offset points", "ha": "center", "fontsize": 6}
        axes.annotate(f"{e.mean:.3f} ↓", (x, axes.get_ylim()[0]), (0, 2), **place)


def _bars(estimates):
    """Means of estimates and how far their intervals reach to either side, for `errorbar`."""
    means = [e.mean for e in estimates]
    return means, [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]


def _value_axis(axes, values):
    """An axis with a mark at each value, on the scale that keeps them further apart."""
    gaps = [np.diff(scale) / np.ptp(scale) for scale in (values, np.log(values)) if np.ptp(scale)]
    axes.set_xscale("log" if gaps and gaps[1].min() > gaps[0].min() else "linear")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.tick_params(axis="x", labelrotation=90 if len(values) > 5 else 0, labelsize=7)


def compound_scatter(results, others):
    """Parameters against test accuracy of the compound trials, depth by marker and colour.

    Args:
        others: name -> `Results` of a single-dimension study, drawn as a grey line.
    """
    key = f"{INTERVALS} {BAR_TOLD}" if results.bar else INTERVALS
    with page(WIDTH, 3.8, key=key) as (figure, axes):
        _chance(axes, 0.5)
        _bar(axes, results)
        for (name, study), dash in zip(others.items(), ("-", "--", ":"), strict=False):
            x, estimates = _places(study, sorted(study.run, key=study.parameters))
            axes.plot(
                x,
                [e.mean for e in estimates],
                color=GREY,
                linestyle=dash,
                linewidth=1,
                marker=".",
                label=f"{name} alone",
            )
        for depth, (color, _, marker) in zip((1, 2, 3, 4), SERIES, strict=True):
            x, estimates = _places(results, [s for s in results.run if s.config.n_layers == depth])
            if x:
                axes.errorbar(
                    x,
                    *_bars(estimates),
                    fmt=marker,
                    color=color,
                    elinewidth=0.6,
                    fillstyle="none",
                    label=f"{depth} layer{'s' * (depth > 1)}",
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(_two_and_five))
        axes.tick_params(axis="x", which="both", labelsize=7, length=3)
        axes.set(xlabel="trainable parameters", ylabel="test accuracy")
        _above_chance(axes, list(zip(*_places(results, results.run), strict=True)))
        if results.run or others:
            figure.legend(loc="outside upper center", ncols=4)
        return figure


def _two_and_five(value, _):
    """Labels of the minor ticks of a logarithmic axis: at 2 and 5 times a power of ten."""
    return f"{value:,.0f}" if f"{value:e}"[0] in "25" else ""


def _places(results, settings):
    return ([results.parameters(s) for s in settings], [results.accuracy(s) for s in settings])


def compound_heat(results):
    """Test accuracy of the grid: a panel a depth, hidden units against embedding; – = not run."""
    part = results.part
    cells = {
        (s.config.n_layers, s.config.hidden_dim, s.config.embedding_dim): results.accuracy(s).mean
        for s in results.run
    }
    low, high = min(cells.values(), default=0.5), max(cells.values(), default=1.0)
    with page(WIDTH, 2.2, 1, len(part.depths), sharey=True, squeeze=False) as (figure, (panels,)):
        for axes, depth in zip(panels, part.depths, strict=True):
            grid = np.array(
                [[cells.get((depth, h, e), np.nan) for e in part.sizes] for h in part.widths]
            )
            axes.pcolormesh(grid, cmap="Blues", vmin=low - 0.02, vmax=high, edgecolors="white")
            for (row, column), value in np.ndenumerate(grid):
                ink = "white" if value > low + 0.6 * (high - low) else "black"
                text = "–" if np.isnan(value) else f"{value:.3f}"
                axes.text(
                    column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontsize=6.5
                )
            axes.set_xticks(np.arange(len(part.sizes)) + 0.5, part.sizes)
            axes.set_yticks(np.arange(len(part.widths)) + 0.5, part.widths)
            axes.set(title=f"{depth} layer{'s' * (depth > 1)}", xlabel="embedding")
            axes.tick_params(length=0)
            axes.grid(visible=False)
        panels[0].set_ylabel("hidden units")
        return figure


def forest(differences):
    """Differences with their intervals, one a line; the line at 0 is no difference.

    Intervals that say next to nothing leave the frame, so that the others show.

    Args:
        differences: (name, `Estimate`) pairs, drawn from the top.
    """
    key = f"{INTERVALS} Blue squares leave out 0."
    with page(WIDTH, 0.5 + 0.24 * len(differences), key=key) as (figure, axes):
        for place, (_, estimate) in enumerate(differences):
            color, marker = (GREY, "o") if estimate.holds_zero else (BLUE, "s")
            mean, low, high = (100 * v for v in (estimate.mean, estimate.low, estimate.high))
            axes.errorbar(
                mean, place, xerr=[[mean - low], [high - mean]], fmt=marker, color=color, capsize=2
            )
        shown = [0.0, *(e.mean for _, e in differences)]
        shown += [v for _, e in differences if e.high - e.low < 2 * WIDE for v in (e.low, e.high)]
        edge = 0.05 * np.ptp(shown) or 0.01
        axes.set_xlim(100 * (min(shown) - edge), 100 * (max(shown) + edge))
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(range(len(differences)), [name for name, _ in differences])
        axes.set(xlabel="difference in test accuracy, points", ylim=(len(differences) - 0.5, -0.5))
        return figure


def accuracies(models, bar=None):
    """Accuracies with their intervals, one a line; networks are hollow, chance is dotted.

    Args:
        models: (name, `Estimate`, whether it is a network), drawn from the top.
        bar: a `Baseline` to be shown as a line.
    """
    key = f"{INTERVALS} {BAR_TOLD}" if bar else INTERVALS
    with page(WIDTH, 0.5 + 0.22 * len(models), key=key) as (figure, axes):
        for place, (_, e, network) in enumerate(models):
            color, marker = (ORANGE, "s") if network else (BLUE, "o")
            axes.errorbar(
                e.mean,
                place,
                xerr=[[e.mean - e.low], [e.high - e.mean]],
                fmt=marker,
                color=color,
                fillstyle="none" if network else "full",
                capsize=2,
            )
        axes.axvline(0.5, color=GREY, linestyle=(0, (1, 2)), linewidth=0.8)
        if bar:
            axes.axvline(bar.accuracy, **BAR)
            place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
            place |= {"ha": "right", "va": "bottom"}
            axes.annotate(_named(bar), (bar.accuracy, 1), (0, 2), **BAR_NAME, **place)
        axes.set_yticks(range(len(models)), [name for name, *_ in models])
        axes.set(xlabel="test accuracy", ylim=(len(models) - 0.5, -0.5))
        return figure


def review_lengths(lengths, max_tokens):
    """How long reviews are, all words beside known words.

    Args:
        lengths: name -> lengths of all reviews.
        max_tokens: where the tokenizer cuts.
    """
    with page(WIDTH, 2.3) as (figure, axes):
        bins = np.arange(0, 620, 20)
        for (color, dash, _), (name, values) in zip(SERIES, lengths.items(), strict=False):
            shares, _ = np.histogram(np.minimum(values, bins[-1] - 1), bins)
            axes.stairs(
                100 * shares / len(values),
                bins,
                color=color,
                linestyle=dash,
                linewidth=1.3,
                label=f"{name}, median {np.median(values):.0f}",
            )
        axes.axvline(max_tokens, color=GREY, linestyle=":")
        axes.annotate(
            f"cut after {max_tokens}",
            (max_tokens, axes.get_ylim()[1]),
            (4, -8),
            textcoords="offset points",
            color=GREY,
        )
        axes.set(xlabel="words in a review (600 and more in the last bin)", ylabel="reviews, %")
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.85))
        return figure


def word_frequencies(counts, min_count):
    """Occurrences of the training words by rank, on logarithmic axes.

    Args:
        counts: occurrences of each distinct word.
        min_count: the vocabulary's threshold.
    """
    with page(WIDTH, 2.3, key="Stop words are among them.") as (figure, axes):
        ordered = np.sort(counts)[::-1]
        rank = np.unique(np.geomspace(1, len(ordered), 400).astype(int))
        axes.loglog(rank, ordered[rank - 1], color=BLUE)
        kept = int((ordered >= min_count).sum())
        axes.axvline(kept, color=GREY, linestyle=":")
        axes.annotate(
            f"{kept:,} words occur {min_count} times or more",
            (kept, ordered[0]),
            (-4, -6),
            textcoords="offset points",
            ha="right",
            color=GREY,
        )
        axes.set(xlabel="rank of the word", ylabel="occurrences")
        return figure


def by_length(groups):
    """Test accuracy from short to long reviews.

    Args:
        groups: of `insight.by_length`.
    """
    with page(3.1, 2.4) as (figure, axes):
        places = range(len(groups))
        means, reach = _bars([estimate for *_, estimate in groups])
        axes.errorbar(places, means, reach, color=BLUE, fmt="o", capsize=2)
        axes.set_xticks(places, [f"{low}–{high}" for low, high, _ in groups], size=6)
        axes.set(xlabel="tokens read", ylabel="test accuracy")
        return figure


def calibration(points):
    """How often a review is positive against the probability that the model gave it.

    Args:
        points: of `insight.calibration`; a point's area tells its share of the reviews.
    """
    with page(3.1, 2.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=0.8)
        said, true, counts = np.array(points).T
        axes.plot(said, true, color=BLUE, linewidth=0.8)
        axes.scatter(said, true, 4 + 200 * counts / counts.sum(), color=BLUE)
        axes.set(xlabel="probability of positive", ylabel="share of positive reviews")
        return figure


def agreement(rows):
    """Our last-epoch test accuracy less the published one, training by training, with the noise.

    Gaps beyond the frame are told at its edge.

    Args:
        rows: of `reproduction.compare`; those that were not run are left out.
    """
    key = "Gaps beyond the frame are told at its edge."
    with page(WIDTH, 2.6, key=key) as (figure, axes):
        run = [row for row in rows if row.seeds]
        for agrees, color, marker in ((True, BLUE, "o"), (False, ORANGE, "s")):
            some = [(k, row) for k, row in enumerate(run) if row.agrees == agrees]
            axes.errorbar(
                [k for k, _ in some],
                [100 * row.gap for _, row in some],
                [100 * row.noise for _, row in some],
                fmt=marker,
                color=color,
                elinewidth=0.5,
                markersize=3,
                label="within noise" if agrees else "outside",
            )
        for k, row in enumerate(run):
            if abs(row.gap) > FRAME:
                edge, shift = (FRAME, -8) if row.gap > 0 else (-FRAME, 3)
                told = {"ha": "center", "fontsize": 6, "textcoords": "offset points"}
                axes.annotate(points(row.gap), (k, 100 * edge), (0, shift), **told)
        starts = [k for k, row in enumerate(run) if not k or _part(run[k - 1]) != _part(row)]
        for start, end in pairwise([*starts, len(run)]):
            axes.axvline(start - 0.5, color=GREY, linewidth=0.4)
            axes.annotate(
                _part(run[start]),
                ((start + end - 1) / 2, 0),
                (0, -10),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlim=(-0.5, len(run) - 0.5), ylim=(-100 * FRAME, 100 * FRAME), xticks=[])
        axes.set(ylabel="ours less published, points")
        axes.set_xlabel("trainings, by part of the lab", labelpad=14)
        figure.legend(loc="outside upper center", ncols=2)
        return figure


def _part(row):
    """The lab's part, both trainings of Lab 1 as one."""
    part = row.published.part
    return "1" if part.startswith("1") else part
