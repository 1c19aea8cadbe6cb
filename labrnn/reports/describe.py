"""Alternative texts: describe a matplotlib figure in words and numbers."""

import re

import numpy as np
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import BarContainer, ErrorbarContainer

LONGEST = 1500  # characters


def description(figure):
    """Describe the panels of a figure: their axes, and the range of the data in each."""
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.has_data()]
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    names = {
        _color(handle): text.get_text()
        for legend in legends
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
    }
    title = figure.get_suptitle().replace("\n", " ")
    texts = [f"Chart with {len(panels)} panels{f', {title}' * bool(title)}."] * (len(panels) > 1)
    texts += [_panel(axes, names) for axes in panels]
    whole = " ".join(texts) or "An empty chart."
    return whole if len(whole) <= LONGEST else whole[:LONGEST].rpartition(";")[0] + "; and more."


def _panel(axes, names):
    title = axes.get_title().replace("\n", ", ")
    labels = [axes.get_ylabel().replace("\n", " "), axes.get_xlabel()]
    scale = " against ".join(filter(None, labels))
    shown = [*_intervals(axes), *_lines(axes, names), *_others(axes)]
    head = ": ".join(filter(None, [title, scale])) or "Panel"
    return f"{head}: {'; '.join(shown) or 'reference lines only'}."


def _lines(axes, names):
    """Describe lines with markers one by one, and thin lines, such as runs, together."""
    inside = [part for c in axes.containers for part in c.get_children()]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2 and line not in inside]
    marked = [line for line in lines if line.get_marker() not in ("None", "", None, ".")]
    for line in marked:
        y = np.asarray(line.get_ydata(), float)
        if len(y := y[~np.isnan(y)]):
            name = str(line.get_label())
            name = names.get(_color(line), "line") if name.startswith("_") else name
            yield f"{name} from {_value(y[0])} to {_value(y[-1])}"
    if thin := [line for line in lines if line not in marked]:
        kind = "groups of points" if thin[0].get_marker() == "." else "thin lines"
        yield f"{kind} ({len(thin)}) {_range(*(line.get_ydata() for line in thin))}"


def _intervals(axes):
    """Describe points with error bars, by the name of their tick if there is one."""
    ticks = {t.get_position()[1]: t.get_text() for t in axes.get_yticklabels()}
    for container in (c for c in axes.containers if isinstance(c, ErrorbarContainer)):
        x, y = np.asarray(container.lines[0].get_data() if container.lines[0] else [[], []], float)
        if len(x) == 1 and re.search("[^-−.0-9]", ticks.get(y[0], "")):
            yield f"{ticks[y[0]]} {_value(x[0])}"
        elif len(x) == 1:
            yield f"{_value(y[0])} at {_value(x[0])}"
        elif len(x):
            name = "intervals" if container.get_label().startswith("_") else container.get_label()
            yield f"{name} ({len(x)}) {_range(y)}"


def _others(axes):
    for bars in (c for c in axes.containers if isinstance(c, BarContainer)):
        yield f"bars ({len(bars)}) {_range([bar.get_height() for bar in bars])}"
    for image in (*axes.images, *(c for c in axes.collections if isinstance(c, QuadMesh))):
        values = np.ma.asarray(image.get_array())
        yield f"heat map ({values.size} cells) {_range(values.compressed())}"
    for points in (c for c in axes.collections if isinstance(c, PathCollection)):
        yield f"points ({len(points.get_offsets())}) {_range(points.get_offsets()[:, 1])}"


def _color(artist):
    return str(artist.get_color()) if hasattr(artist, "get_color") else repr(artist)


def _value(number):
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _range(*data):
    values = np.concatenate([np.ravel(np.asarray(d, float)) for d in data])
    values = values[np.isfinite(values)]
    return f"between {_value(values.min())} and {_value(values.max())}" if len(values) else "empty"
