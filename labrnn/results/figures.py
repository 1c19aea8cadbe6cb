"""All figures of the lab: functions that return matplotlib figures for the printed page.

Lines differ in dash, marker and colour; sizes are in inches on the page. Runs that failed are grey
lines or counted in a strip below the data; means and intervals exclude them.
"""

import math
import re
import textwrap
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from labrnn.network.registry import OPTIMIZERS
from labrnn.published import published_accuracy
from labrnn.results.prose import capital, percent, points, typical
from labrnn.results.table import LN2

BLUE, ORANGE, GREEN, PURPLE, GREY = "#1f5a99", "#c8561b", "#2c7a4b", "#75459c", "#6b6b6b"
SERIES = [(BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D")]
BASELINE = {"color": PURPLE, "linestyle": (0, (6, 2)), "linewidth": 0.7, "zorder": 1}
FAILED = {"color": GREY, "linewidth": 0.6, "alpha": 0.8}
# Styles of means with intervals, and of published values.
MEAN = {"capsize": 2, "elinewidth": 0.8, "markersize": 4, "fillstyle": "none"}
MEAN |= {"label": "ours, best epoch"}
PUBLISHED = {"color": ORANGE, "fillstyle": "none", "markersize": 5, "linestyle": "none"}
PUBLISHED |= {"marker": "D", "label": "published, one run, last epoch"}
# Keys of figures, which `show` adds to their captions.
POINTS = "Points: runs; bars: mean and 95 % CI of those that trained."
FAILURES = "Under the line: {}."
NO_BAR = "without a bar: a CI that is not known or extends more than 10 points to one side"
ALONE = "points without a mean: runs that differ too much for a CI"
BEST_BASELINE = "Dashed: the best linear baseline."
# Differences from the lab's defaults in titles, in this order.
TITLES = {"optim": "{}", "lr": "learning rate {:g}", "n_layers": "{} layers"}
TITLES |= {"hidden_dim": "{} units", "embedding_dim": "{} dimensions"}
TITLES |= {"dropout_rate": "dropout {:g}", "bidirectional": "bidirectional"}
WIDTH = 6.0  # inches of the text on a page
FIRST_STEPS = "Moving average over five steps; dotted: ln 2, the loss of a chance prediction."
BEST_VALIDATION = "Best validation: the highest validation accuracy of all epochs, mean over runs."
ALL_FAILED = "Accuracies in titles: of the runs that trained, of all if none did."
FRAME = 8  # points: range of the y axis in the figure of the reproduction
SHEET = Path(__file__).parent / "templates/figures.mplstyle"
STYLE = mpl.rc_params_from_file(SHEET, use_default_template=False)


@contextmanager
def page(width, height, rows=1, columns=1, key="", **grid):
    """Yield a figure and its axes in the lab's style; sizes in inches, `key` for the caption."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.set_label(key)
        yield figure, figure.subplots(rows, columns, **grid)


def _key(axes, text):
    """Append a text to the key of a figure."""
    axes.figure.set_label(f"{axes.figure.get_label()} {text}".strip())


def _drawn(kinds):
    """Return a key: the texts of `kinds` whose value is true."""
    text = "; ".join(text for text, drawn in kinds.items() if drawn)
    return capital(f"{text}." * bool(text))


def look(k):
    """Return colour, dash and marker of the k-th series; combinations repeat after 16."""
    color, _, _ = SERIES[k % len(SERIES)]
    _, dash, marker = SERIES[(k + k // len(SERIES)) % len(SERIES)]
    return color, dash, marker


def note(axes, text, place, shift, **style):
    """Add a small text, `shift` points away from a place."""
    axes.annotate(text, place, shift, textcoords="offset points", **{"fontsize": 6} | style)


def training_curves(results, settings, columns=2, width=WIDTH):
    """Accuracy over the epochs in the lab's layout, loss below it (figures 1 to 7, 9 to 11).

    There is one panel per setting, with y from 0.45 to 1.05. Its title has the difference from the
    lab's defaults, the test accuracy and the best validation accuracy; the figure's title has what
    all settings share. The panel of a setting that was not run is empty.
    """
    rows = math.ceil(len(settings) / columns)
    shared, own = _differences(results, settings)
    # If no run trained, the loss is enlarged around ln 2.
    flat = not results.able(settings)
    grid = {"squeeze": False, "key": _of_lines(results, settings)}
    grid["height_ratios"] = [2.2, 2.2 if flat else 1] * rows
    height = 0.6 + (2.25 if columns < 3 else 2) * rows
    with page(width, height, 2 * rows, columns, **grid) as (figure, panels):
        done = results.run(settings)
        failed = any(not results.trained(s).count for s in done)
        keys = {BEST_VALIDATION: done, ALL_FAILED: failed}
        for text in filter(keys.get, keys):
            _key(panels[0, 0], text)
        for k, setting in enumerate(settings):
            row, column = divmod(k, columns)
            pair = panels[2 * row, column], panels[2 * row + 1, column]
            letter = f"({chr(97 + k)}) " if len(settings) > 1 else ""
            _panel(*pair, results, setting, letter + (own[k] or setting.name), flat)
            if column:
                for axes in pair:
                    axes.set_ylabel("")
                    axes.tick_params(labelleft=flat and axes is pair[1])
        for row in panels[1::2] if not flat else ():  # the panels of a row share an axis
            high = max(axes.get_ylim()[1] for axes in row if axes.has_data())
            for axes in row:
                axes.set_ylim(0, high)
        for axes in panels.T.flat:
            axes.set_visible(axes.has_data())
        figure.suptitle(textwrap.fill(shared, int(15 * width)), size=7)
        styles = [(GREY, look(k)[1], "") if flat else look(k) for k in (0, 1)]
        handles = list(map(_line, styles, ("training", "validation")))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=2.6)
        return figure


def _line(style, name, **more):
    """Return an entry of a legend."""
    color, dash, marker = style
    return Line2D([], [], color=color, linestyle=dash, marker=marker, label=name, **more)


def _differences(results, settings):
    """Return the differences from the lab's defaults that all settings share, and the others."""
    every = [[s.config.cell.upper(), *_changes(s.config, results.part.base)] for s in settings]
    shared = [word for word in every[0] if all(word in words for words in every)] if every else []
    own = [", ".join(w for w in words if w not in shared) for words in every]
    only_cell = len(shared) == 1 and not any(own)
    return ", ".join([*shared, "the lab's defaults"] if only_cell else shared), own


def _changes(config, base):
    """Return in words the fields in which a configuration differs from another one."""
    changed = re.findall(r"(\w+)=", config.difference(base).lower())
    values = config.model_dump() | {"optim": OPTIMIZERS[config.optim].name}
    order = [
        *(name for name in TITLES if name in changed),
        *(n for n in changed if n not in TITLES),
    ]
    return [TITLES.get(n, n.replace("_", " ") + " {}").format(values[n]) for n in order]


def _panel(top, bottom, results, setting, title, flat):
    top.set(ylim=(0.45, 1.05), yticks=np.arange(0.5, 1.05, 0.1), ylabel="accuracy")
    bottom.set(xlim=(0.8, setting.config.epochs + 0.2), xlabel="epoch", ylabel="loss")
    top.tick_params(labelbottom=False)
    done = bool(results.run([setting]))
    top.set_title(f"{title}\n{_tested(results, setting) if done else 'not run'}", size=7)
    for axes, quantity, chance in ((top, "accuracy", 0.5), (bottom, "loss", LN2)):
        axes.set_xlim(bottom.get_xlim())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _chance(axes, chance)
        if not done:
            continue
        for k, kind in enumerate(("train", "valid")):
            _lines(axes, *results.curves(setting, f"{kind}_{quantity}"), look(k))
        if flat and axes is bottom:
            half = 1.2 * max(0.002, np.abs(axes.dataLim.intervaly - LN2).max())
            axes.set_ylim(LN2 - half, LN2 + half)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4f}"))
        elif axes is bottom:
            axes.set_ylim(0, min(2, max(0.8, 1.05 * axes.dataLim.ymax)))


def _tested(results, setting):
    """Return test and best validation accuracy of the runs that trained, or of all if none did."""
    runs, estimate = results.trained(setting), results.accuracy(setting)
    mean = results.mean(setting, f"{results.tested}_accuracy")
    tested = f"{typical(estimate)} %" if estimate.ranges else percent(mean)
    validation, able = results.curves(setting, "valid_accuracy")
    best = validation[able if able.any() else ~able].max(axis=1).mean()
    text = f"test accuracy {tested} (n = {runs.n})"
    if runs.count < runs.n:  # shorter, for rows of three panels
        text = f"test {tested} ({runs.count} of {runs.n} trained)"
    return f"{text}\nbest validation {percent(best)}"


def _chance(axes, value):
    axes.axhline(value, color=GREY, linestyle=(0, (1, 2)), linewidth=0.8)


def _baseline(axes, results, kind="accuracy"):
    """Draw a thin, named line at the best stored baseline."""
    if results.baseline:
        value = getattr(results.baseline, kind)
        _key(axes, BEST_BASELINE)
        axes.axhline(value, **BASELINE)
        place = {"xycoords": axes.get_yaxis_transform(), "color": PURPLE}
        note(axes, _named(results.baseline, kind), (0.01, value), (0, 2), **place)


def _named(baseline, kind="accuracy"):
    return f"{baseline.name}: {percent(getattr(baseline, kind))}"


def _lines(axes, curves, able, style, label=None):
    """Draw a thin line per run, grey if it did not train, and the mean of the others."""
    color, dash, marker = style
    epochs = np.arange(1, curves.shape[1] + 1)
    for curve, trained in zip(curves, able, strict=True):
        thin = {"color": color, "linewidth": 0.5, "alpha": 0.6} if trained else FAILED
        if len(curves) > 1 or not trained:
            axes.plot(epochs, curve, linestyle=dash, **thin)
    if able.any():
        mean = curves[able].mean(axis=0)
        axes.plot(epochs, mean, color=color, linestyle=dash, marker=marker, label=label)


def _of_lines(results, settings):
    """Return the key for the lines of some settings."""
    shares = [results.trained(s) for s in settings if len(results.rows(s))]
    kinds = {
        "thin lines: runs": any(share.n > 1 for share in shares),
        "thick lines: mean of those that trained": any(share.count for share in shares),
        "grey: runs that failed": any(share.count < share.n for share in shares),
        "dotted: chance": True,
    }
    return _drawn(kinds)


def compare_curves(results, settings):
    """Plot the validation accuracy over the epochs for several settings, with names at the end."""
    with page(WIDTH, 2.6, key=_of_lines(results, settings)) as (figure, axes):
        _chance(axes, 0.5)
        if settings:
            _baseline(axes, results, "validation")
        ends = []
        for k, setting in enumerate(settings):
            curves, able = results.curves(setting, "valid_accuracy")
            _lines(axes, curves, able, look(k), setting.name)
            last = curves[able if able.any() else ~able][:, -1].mean()
            ends.append((last, setting, look(k)[0] if able.any() else GREY))
        epochs = max((s.config.epochs for s in settings), default=1)
        low, high = axes.get_ylim()
        heights = _apart([value for value, *_ in ends], (high - low) / 13)
        for (value, setting, color), y in zip(ends, heights, strict=True):
            style = {"color": color, "va": "center", "bbox": {"color": "white", "pad": 0.5}}
            end = (setting.config.epochs, value)
            axes.annotate(setting.name, end, (epochs + 0.3, y), **style)
            axes.plot(
                [setting.config.epochs, epochs + 0.27], [value, y], color=color, linewidth=0.5
            )
        axes.set(xlabel="epoch", ylabel="validation accuracy")
        axes.set_xlim(0.8, epochs + 0.3 + 0.12 * (epochs + 1))
        axes.xaxis.set_major_locator(FixedLocator(range(1, epochs + 1)))
        return figure


def _apart(values, least):
    """Return heights for labels: the values, moved apart to a distance of at least `least`."""
    order, heights = np.argsort(values), np.array(values, dtype=float)
    for _ in range(50):
        for lower, upper in pairwise(order):
            push = max(0.0, least - (heights[upper] - heights[lower])) / 2
            heights[lower], heights[upper] = heights[lower] - push, heights[upper] + push
    return heights


def one_dimension(results, label):
    """Plot test accuracy and seconds per epoch against a part's dimension (figure 8).

    `label` names the x axis; hollow diamonds are the published accuracies.
    """
    field = results.part.field
    with page(4.5, 3.3, 2, key=POINTS, sharex=True, height_ratios=[2.2, 1]) as (figure, axes):
        top, bottom = axes
        settings = sorted(results.run(), key=lambda s: getattr(s.config, field))
        values = [getattr(s.config, field) for s in settings]
        top.set(ylabel="test accuracy")
        bottom.set(xlabel=label, ylabel="s / epoch")
        figure.align_ylabels()
        if not values:
            top.text(0.5, 0.5, "not run", transform=top.transAxes, ha="center", color=GREY)
            return figure
        known = {getattr(s.config, field): published_accuracy(s.config) for s in settings}
        places = [(getattr(s.config, field), s, BLUE, "o") for s in settings]
        _baseline(top, results)
        _runs(top, results, places, {v: accuracy for v, accuracy in known.items() if accuracy})
        handles, labels = top.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        figure.legend(once.values(), once.keys(), loc="outside upper center", ncols=3)
        seconds = [results.seconds(s) for s in settings]
        bottom.plot(values, seconds, color=GREEN, marker="^", linestyle="-.")
        if np.isnan(seconds).all():
            bottom.text(0.5, 0.5, "not known", transform=bottom.transAxes, ha="center", color=GREY)
        bottom.set_ylim(0, 1.15 * bottom.get_ylim()[1])
        _value_axis(bottom, values)
        return figure


def _runs(axes, results, places, known=None):
    """Draw each run that trained, their mean and interval; a strip below counts the others.

    Args:
        places: (x, setting, colour, marker) for each setting.
        known: x -> published accuracy. Without it settings are close together, so the strip only
            marks those with failed runs by a cross.
    """
    shown, failed = [], []
    for x, setting, color, marker in places:
        rows, estimate = results.rows(setting), results.accuracy(setting)
        able = rows[rows["trained"]][f"{results.tested}_accuracy"].tolist()
        if able:
            axes.plot([x] * len(able), able, ".", color=color, markersize=3, alpha=0.6)
            shown += able
            if not estimate.ranges:
                bar = known is not None or estimate.n > 1  # those of single runs hide the others
                half = estimate.half_width if bar else np.nan
                axes.errorbar(x, estimate.mean, half, color=color, marker=marker, **MEAN)
                shown += [estimate.low, estimate.high] * (bar and estimate.known)
        if missed := len(rows) - len(able):
            failed.append((x, "×" if known is None else f"{missed}/{len(rows)}", color))
    least = min(shown, default=0.0) - 0.05
    inside = {x: accuracy for x, accuracy in (known or {}).items() if accuracy > least}
    axes.set_ylim(0.45, 1.0)
    if shown:
        best = [results.baseline.accuracy] if results.baseline else []
        low, high = min([*shown, *inside.values()]), max([*shown, *inside.values(), *best])
        edge = max(0.005, 0.08 * (high - low))
        axes.set_ylim(low - edge, high + edge)
    if inside:
        axes.plot(list(inside), list(inside.values()), **PUBLISHED)
    below = [(x, f"{a:.2f}", ORANGE) for x, a in (known or {}).items() if x not in inside]
    what = {
        "settings with failed runs" if known is None else "failed / all runs": ("failed", failed),
        "published accuracies below the scale": ("published", below),
    }
    _strip(axes, {text: row for text, row in what.items() if row[1]})


def _strip(axes, rows):
    """Draw rows below the data; rows: key text -> (name, [(x, text, colour)])."""
    if not rows:
        return
    _key(axes, FAILURES.format(" and ".join(rows)))
    (low, high), tall = axes.get_ylim(), 0.09  # height of a row, as a share of the axis
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    axes.set_ylim(low - (high - low) * tall * len(rows) / (1 - tall * len(rows)), high)
    axes.set_yticks(ticks)
    axes.axhline(low, color=GREY, linewidth=0.6)
    for k, (name, marks) in enumerate(rows.values()):
        y, middle = tall * (len(rows) - k - 0.5), {"va": "center"}
        note(axes, name, (0, y), (-4, 0), xycoords="axes fraction", ha="right", **middle)
        for x, text, color in marks:
            place = {"xycoords": axes.get_xaxis_transform(), "ha": "center"} | middle
            note(axes, text, (x, y), (0, 0), color=color, **place)


def _value_axis(axes, values):
    """Mark each value on the x axis, linear or logarithmic, whichever separates them better."""
    gaps = [np.diff(scale) / np.ptp(scale) for scale in (values, np.log(values)) if np.ptp(scale)]
    axes.set_xscale("log" if gaps and gaps[1].min() > gaps[0].min() else "linear")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.tick_params(axis="x", labelrotation=90 if len(values) > 5 else 0, labelsize=7)


def compound_scatter(results):
    """Plot test accuracy against parameters: the grid by depth, sweeps of one dimension in grey."""
    with page(WIDTH, 3.8, key=f"{POINTS} Without a bar: a single run.") as (figure, axes):
        _baseline(axes, results)
        alone = {s.config: s for study in results.part.studies().values() for s in study.settings()}
        places = []
        for setting in results.run():
            color, _, marker = look(setting.config.n_layers - 1)
            places.append((results.parameters(setting), setting, color, marker))
        places += [(results.parameters(s), s, GREY, "o") for s in results.run(list(alone.values()))]
        _runs(axes, results, places)
        axes.set_xscale("log")
        axes.set(xlabel="trainable parameters", ylabel="test accuracy")
        hollow = {"fillstyle": "none"}
        handles = [_line((GREY, "none", "o"), "Labs 2 c to e", **hollow)]
        for n in results.part.depths:
            color, _, marker = look(n - 1)
            handles.append(_line((color, "none", marker), f"{n} layer{'s' * (n > 1)}", **hollow))
        figure.legend(handles=handles, loc="outside upper center", ncols=5)
        return figure


def compound_heat(results):
    """Plot the grid's test accuracy, %: one panel per depth, hidden units against embedding."""
    part = results.part
    cells = {
        (s.config.n_layers, s.config.hidden_dim, s.config.embedding_dim): results.accuracy(s).mean
        for s in results.run()
    }
    known = [value for value in cells.values() if value == value]
    low, high = min(known, default=0.5), max(known, default=1.0)
    absent = {
        "–: not run": bool(results.missing()),
        "×: all runs failed": len(results.able()) < len(results.run()),
    }
    grid = {"key": _drawn(absent), "sharey": True, "squeeze": False}
    with page(WIDTH, 2.2, 1, len(part.depths), **grid) as (figure, (panels,)):
        for axes, depth in zip(panels, part.depths, strict=True):
            places = [[(depth, h, e) for e in part.sizes] for h in part.widths]
            grid = np.array([[cells.get(place, np.nan) for place in row] for row in places])
            axes.pcolormesh(grid, cmap="Blues", vmin=low - 0.02, vmax=high, edgecolors="white")
            for (row, column), value in np.ndenumerate(grid):
                style = {"color": "white" if value > low + 0.6 * (high - low) else "black"}
                missing = "×" if places[row][column] in cells else "–"
                text = missing if np.isnan(value) else f"{100 * value:.1f}"
                style |= {"ha": "center", "va": "center", "fontsize": 6.5}
                axes.text(column + 0.5, row + 0.5, text, **style)
            axes.set_xticks(np.arange(len(part.sizes)) + 0.5, part.sizes)
            axes.set_yticks(np.arange(len(part.widths)) + 0.5, part.widths)
            axes.set(title=f"{depth} layer{'s' * (depth > 1)}", xlabel="embedding")
            axes.tick_params(length=0)
            axes.grid(visible=False)
        panels[0].set_ylabel("hidden units")
        return figure


def forest(compared):
    """Plot the differences of `Comparison`s with intervals; significant ones in blue."""
    kinds = {
        "bars: 95 % CI": bool(compared),
        NO_BAR: not all(c.difference.known for c in compared),
        "blue squares: significant": any(c.significant for c in compared),
        "grey: not significant": any(c.outcome in ("equivalent", "inconclusive") for c in compared),
        "hollow: not tested, a single run": any(c.outcome == "untested" for c in compared),
        "shaded: within 1 point": True,
    }
    with page(WIDTH, 0.55 + 0.24 * len(compared), key=_drawn(kinds)) as (figure, axes):
        axes.axvspan(-1, 1, color="#eef2f7", zorder=0)
        shown = [-1.0, 1.0]
        for place, c in enumerate(compared):
            color, marker = (BLUE, "s") if c.significant else (GREY, "o")
            fill = "none" if c.outcome == "untested" else "full"
            mean, half = 100 * c.difference.mean, 100 * c.difference.half_width
            style = {"fmt": marker, "color": color, "fillstyle": fill}
            axes.errorbar(mean, place, xerr=half, capsize=2, **style)
            shown += [mean, *([mean - half, mean + half] if c.difference.known else [])]
        edge = 0.05 * np.ptp(shown)
        axes.set_xlim(min(shown) - edge, max(shown) + edge)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(range(len(compared)), [c.name or capital(c.first.name) for c in compared])
        axes.set(
            xlabel="difference in test accuracy, points", ylim=(max(1, len(compared)) - 0.5, -0.5)
        )
        return figure


def accuracies(results, models):
    """Plot test accuracies of `Setting`s (hollow) and `Baseline`s (filled), from the top.

    Models below 60 % are left out.
    """
    shown = [(m, e) for m in models if (e := results.accuracy(m)).mean > 0.6]
    kinds = {
        "bars: 95 % CI": bool(shown),
        NO_BAR: not all(e.known or e.ranges for _, e in shown),
        ALONE: any(e.ranges for _, e in shown),
        "dashed: the best linear baseline": bool(results.baseline),
    }
    with page(WIDTH, 0.5 + 0.22 * len(shown), key=_drawn(kinds)) as (figure, axes):
        for place, (model, e) in enumerate(shown):
            linear, half = hasattr(model, "correct"), 100 * e.half_width
            style = {"fmt": "o", "color": BLUE} if linear else {"fmt": "s", "color": ORANGE}
            style["fillstyle"] = "full" if linear else "none"
            if e.ranges:
                axes.plot(100 * np.array(e.runs), [place] * e.n, ".", color=style["color"])
            else:
                axes.errorbar(100 * e.mean, place, xerr=half, capsize=2, **style)
        if results.baseline:
            best = 100 * results.baseline.accuracy
            axes.axvline(best, **BASELINE)
            place = {"xycoords": axes.get_xaxis_transform(), "ha": "right", "va": "bottom"}
            note(axes, _named(results.baseline), (best, 1), (0, 2), color=PURPLE, **place)
        axes.set_yticks(range(len(shown)), [capital(model.name) for model, _ in shown])
        axes.set(xlabel="test accuracy, %", ylim=(max(1, len(shown)) - 0.5, -0.5))
        return figure


def first_steps(losses):
    """Plot the loss of the first steps (see `steps`), one line per seed."""
    with page(WIDTH, 2.6, key=FIRST_STEPS) as (figure, axes):
        _chance(axes, LN2)
        for k, (seed, values) in enumerate(losses.items()):
            color, dash, _ = look(k)
            smooth = np.convolve(values, np.ones(5) / 5, "valid")
            style = {"color": color, "linestyle": dash, "linewidth": 1}
            axes.plot(np.arange(3, 3 + len(smooth)), smooth, label=f"seed {seed}", **style)
        axes.set(xlabel="step", ylabel="training loss")
        figure.legend(loc="outside upper center", ncols=6)
        return figure


def search(trials):
    """Plot the validation accuracy of each trial of `beyond.search`, and the best so far."""
    with page(WIDTH, 2.4, key="Hollow: stopped early. Without a point: aborted.") as (figure, axes):
        places = np.arange(1, len(trials) + 1)
        whole = trials["epochs"] == trials["epochs"].max()
        for shown, fill in ((whole, "full"), (~whole, "none")):
            place, value = places[shown], trials["validation"][shown]
            axes.plot(place, value, "o", color=GREY, markersize=4, fillstyle=fill)
        axes.step(places, trials["validation"].cummax().ffill(), where="post", color=BLUE)
        axes.set(xlabel="trial", ylabel="validation accuracy, %")
        return figure


def review_lengths(lengths, max_tokens):
    """Plot histograms of review lengths (name -> lengths) and the limit `max_tokens`."""
    with page(WIDTH, 2.3) as (figure, axes):
        bins = np.append(np.arange(1, 610, 16), 625)  # with an edge behind 256
        for k, (name, values) in enumerate(lengths.items()):
            color, dash, _ = look(k)
            shares, _ = np.histogram(np.minimum(values, bins[-1] - 1), bins)
            label = f"{name}, median {np.median(values):.0f}"
            style = {"color": color, "linestyle": dash, "linewidth": 1.3}
            axes.stairs(100 * shares / len(values), bins, label=label, **style)
        axes.axvline(max_tokens, color=GREY, linestyle=":")
        place, style = (max_tokens, axes.get_ylim()[1]), {"color": GREY, "fontsize": 8}
        note(axes, f"cut after {max_tokens}", place, (4, -8), **style)
        axes.set(xlabel="words in a review (609 and more in the last bin)", ylabel="reviews, %")
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.85))
        return figure


def word_frequencies(counts, min_count):
    """Plot the occurrences of training words by rank, with the threshold `min_count`."""
    with page(WIDTH, 2.3) as (figure, axes):
        ordered = np.sort(counts)[::-1]
        rank = np.unique(np.geomspace(1, len(ordered), 400).astype(int))
        axes.loglog(rank, ordered[rank - 1], color=BLUE)
        kept = int((ordered >= min_count).sum())
        axes.axvline(kept, color=GREY, linestyle=":")
        text, style = f"{kept:,} words occur {min_count} times or more", {"color": GREY}
        note(axes, text, (kept, ordered[0]), (-4, -6), ha="right", fontsize=8, **style)
        axes.set(xlabel="rank of the word", ylabel="occurrences")
        return figure


def by_length(groups):
    """Plot the test accuracy from short to long reviews, see `insight.by_length`."""
    with page(3.1, 2.4) as (figure, axes):
        means, halves = zip(*((e.mean, e.half_width) for *_, e in groups), strict=True)
        axes.errorbar(range(len(groups)), means, halves, color=BLUE, fmt="o", capsize=2)
        axes.set_xticks(range(len(groups)), [f"{low}–{high}" for low, high, _ in groups], size=6)
        axes.set(xlabel="tokens read", ylabel="test accuracy")
        return figure


def calibration(points):
    """Plot the share of positive reviews against their predicted probability.

    The area of a point of `insight.calibration` is proportional to its number of reviews.
    """
    with page(3.1, 2.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=0.8)
        said, true, counts = np.array(points).T
        axes.plot(said, true, color=BLUE, linewidth=0.8)
        axes.scatter(said, true, 4 + 200 * counts / counts.sum(), color=BLUE)
        axes.set(xlabel="probability of positive", ylabel="share of positive reviews")
        return figure


def agreement(rows):
    """Plot our last-epoch test accuracy minus the published one, with prediction intervals.

    Only `Row`s of `reproduction.compare` in which both sides trained are drawn.
    """
    shown = [row for row in rows if row.compared]
    beyond = any(abs(100 * row.gap.mean) > FRAME for row in shown)
    clipped = any(100 * (abs(row.gap.mean) + row.gap.half_width) > FRAME for row in shown)
    key = "Bars: 95 % prediction interval; thin grey lines separate the parts of the lab."
    key += " Bars that reach the frame continue beyond it." * clipped
    key += " Arrows: points beyond the frame." * beyond
    with page(WIDTH, 2.6, key=key) as (figure, axes):
        for agrees, color, marker in ((True, BLUE, "o"), (False, ORANGE, "s")):
            places = [k for k, row in enumerate(shown) if row.agrees == agrees]
            gaps = [100 * shown[k].gap.mean for k in places]
            halves = [100 * shown[k].gap.half_width for k in places]
            style = {"fmt": marker, "color": color, "elinewidth": 0.5, "markersize": 3}
            label = f"interval {'contains' if agrees else 'excludes'} 0"
            axes.errorbar(places, gaps, halves, label=label, **style)
        for k, row in enumerate(shown):
            if abs(gap := 100 * row.gap.mean) > FRAME:
                edge, shift, arrow = (FRAME, -8, "↑") if gap > 0 else (-FRAME, 3, "↓")
                note(axes, f"{points(row.gap.mean)} {arrow}", (k, edge), (0, shift), ha="center")
        starts = [k for k, row in enumerate(shown) if not k or shown[k - 1].section != row.section]
        below = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "fontsize": 7}
        for start, end in pairwise([*starts, len(shown)]):
            axes.axvline(start - 0.5, color=GREY, linewidth=0.4)
            note(axes, shown[start].section, ((start + end - 1) / 2, 0), (0, -10), **below)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlim=(-0.5, max(1, len(shown)) - 0.5), ylim=(-FRAME, FRAME), xticks=[])
        axes.set(ylabel="ours − published, points")
        axes.set_xlabel("published runs, by part of the lab", labelpad=14)
        figure.legend(loc="outside upper center", ncols=2)
        return figure
