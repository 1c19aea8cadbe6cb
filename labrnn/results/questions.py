"""Code that the checks of the ten statements share: measurements of two models, and figures.

The checks themselves are in the notebook, where the code is the argument.
"""

from contextlib import suppress

import numpy as np
import torch

from labrnn.errors import LabError
from labrnn.network.prediction import load
from labrnn.results.figures import BLUE, GREY, ORANGE, SERIES, page
from labrnn.reviews.description import remembered
from labrnn.reviews.text import load_corpus

LOOK_FORMAT = 1  # of the stored data; raise it if a change here changes figures


def look(lab, measure):
    """Return what `measure` computes from the part's trained models; None if not possible.

    The result is stored beside the trials, for copies without the weights or the reviews.

    Args:
        lab: a `Lab` that was run.
        measure: (dict of setting's name -> model, `Corpus`) -> plain values.
    """
    trials = {setting.name: lab.trial(setting.name) for setting in lab.results.settings}
    if not all(trials.values()):
        return None

    def make(_):
        corpus = load_corpus(lab.part.base, lab.part.data)
        return measure({name: load(trial, corpus).eval() for name, trial in trials.items()}, corpus)

    identity = [LOOK_FORMAT, *(trial.key for trial in trials.values())]
    fingerprint = next(iter(trials.values())).fingerprint
    with suppress(LabError):
        return remembered("models", identity, lab.part.data, fingerprint, lab.store, make)
    return None


def longest_reviews(corpus, reviews=64, tokens=64):
    """Return token ids [B, T] of the longest test reviews, cut to one length, without padding."""
    rows = corpus.rows["test"]
    rows = rows[np.argsort(-corpus.lengths[rows], kind="stable")[:reviews]]
    tokens = min(tokens, corpus.lengths[rows].min())
    return torch.tensor([corpus.example(row)["ids"][:tokens] for row in rows])


def sums_of_gates(sums):
    """Summarise the sums of two gates, [T, B, H], as plain values."""
    sums = sums.numpy()
    counts = np.histogram(sums, np.linspace(0, 2, 81))[0]
    return {
        "sums": [float(sums.min()), float(sums.max())],
        "away": float(np.abs(sums - 1).max()),
        "histogram": (100 * counts / sums.size).tolist(),
    }


# --- figures -----------------------------------------------------------------------------------

PALE = "#d3d9e2"
EDGE = {"edgecolor": "black", "linewidth": 0.5}
NOTE = {"textcoords": "offset points"}


def cosine_figure(cosines, weights):
    """Plot cosines and weights of the query for which the two measures disagree most.

    Args:
        cosines: [queries, keys].
        weights: factor of the query's length -> attention weights [queries, keys]; has factor 1.
    """
    chosen = weights[1].gather(1, cosines.argmax(-1, keepdim=True)).squeeze(1)
    query = int((weights[1].max(-1).values - chosen).argmax())
    order = cosines[query].argsort(descending=True)
    places = np.arange(1, len(order) + 1)
    with page(5.6, 2.1, 1, 2) as (figure, (left, right)):
        left.bar(places, cosines[query][order].numpy(), color=PALE, **EDGE)
        left.axhline(0, color="black", linewidth=0.6)
        left.set(title="cosine similarity", xlabel="key, by falling cosine", xticks=places)
        for (length, w), (color, dash, marker) in zip(weights.items(), SERIES, strict=False):
            look = {"color": color, "linestyle": dash, "marker": marker}
            right.plot(places, w[query][order].numpy(), label=f"query × {length}", **look)
        right.set(title="attention weight", xlabel="key, by falling cosine", xticks=places)
        right.legend()
        return figure


def influence_figure(both_sides, left_only, place):
    """Plot the L2 distance of each output before and after the token at `place` is replaced."""
    places, ticks = np.arange(1, len(both_sides) + 1), [0, 0.1, 0.3, 1, 3]
    with page(5, 2) as (figure, axes):
        axes.plot(places - 0.1, both_sides, "o", color=BLUE, label="encoder")
        axes.plot(places + 0.1, left_only, "s", color=ORANGE, fillstyle="none", label="decoder")
        axes.set(xlabel=f"output at token (token {place + 1} is replaced)", ylabel="L2 distance")
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set(xticks=places, yticks=ticks, yticklabels=ticks)
        axes.grid(visible=False, axis="x")
        figure.legend(loc="outside upper center", ncols=2)
        return figure


def mask_figure(matrices, words):
    """Plot attention matrices (title -> [T, T]); weights of 0 are crossed out."""
    with page(5.6, 2.7, 1, len(matrices), sharey=True) as (figure, panels):
        for axes, (title, weights) in zip(panels, matrices.items(), strict=True):
            axes.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1)
            for row, column in (weights == 0).nonzero().tolist():
                axes.plot(column, row, "x", color=GREY)
            axes.set(title=title, xlabel="key", yticks=range(len(words)), yticklabels=words)
            slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
            axes.set_xticks(range(len(words)), words, **slanted)
            axes.grid(visible=False)
        panels[0].set_ylabel("query")
        return figure


def clipping_figure(norms):
    """Plot gradient norms at each step before and after clipping; norms: gain -> both."""
    with page(5.4, 2.4) as (figure, axes):
        for (gain, (before, after)), (color, *_) in zip(norms.items(), SERIES, strict=False):
            steps = np.arange(1, len(before) + 1)
            axes.semilogy(steps, before, color=color, linewidth=3, alpha=0.35)
            axes.semilogy(steps, after, color=color, linestyle="--", linewidth=1)
            place = {"ha": "right", "va": "center"} | NOTE
            axes.annotate(f"gain {gain}", (1, before[0]), (-4, 0), color=color, **place)
        axes.plot([], [], color=GREY, linewidth=3, alpha=0.5, label="unclipped")
        axes.plot([], [], color=GREY, linestyle="--", linewidth=1, label="clipped")
        axes.legend(loc="upper right", handlelength=3)
        axes.set(xlabel="step (the loss is computed after the last)", ylabel="gradient norm")
        axes.set(xlim=(-len(steps) / 6, len(steps)), xticks=np.linspace(0, len(steps), 5))
        return figure


def embedding_figure(seen):
    """Plot histograms of the models' embeddings, with their extreme words."""
    with page(5.8, 2.2, 1, len(seen["words"]), sharey=True) as (figure, panels):
        for axes, (name, words) in zip(panels, seen["words"].items(), strict=True):
            edges = np.linspace(-1, 1, 31) * max(map(abs, words["reach"]))
            bars = axes.bar(edges[:-1], words["histogram"], np.diff(edges), align="edge", **EDGE)
            for bar, right in zip(bars, edges[1:], strict=True):
                negative = right < edges[-1] / 60  # with a tolerance for rounding at 0
                bar.set(facecolor="white" if negative else PALE, hatch="/////" if negative else "")
            axes.set(title=name, xlabel="value of a word")
            low, high = map("\n".join, words["outermost"])
            place = {"va": "top", "style": "italic", "parse_math": False}
            axes.text(0.02, 0.97, low, ha="left", transform=axes.transAxes, **place)
            axes.text(0.98, 0.97, high, ha="right", transform=axes.transAxes, **place)
        panels[0].set_ylabel("words")
        return figure


def gate_figure(seen):
    """Plot the sums of the LSTM's two gates; those of a GRU's weights are 1."""
    edges = np.linspace(0, 2, 81)
    with page(5, 2) as (figure, axes):
        shares = seen["gates"]["histogram"]
        axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=PALE, **EDGE)
        axes.axvline(1, color=BLUE, linestyle="--")
        place = {"va": "top", "xycoords": axes.get_xaxis_transform()} | NOTE
        axes.annotate("GRU: all here", (1, 1), (3, -2), color=BLUE, **place)
        axes.set(xlabel="forget gate + input gate", ylabel="share, %", xlim=(0, 2))
        return figure
