"""Show how a classifier reads a text: its prediction after every word, and its gates."""

import base64
import io
import warnings

import matplotlib as mpl
import numpy as np
from matplotlib.textpath import TextPath

from labrnn.results.figures import BLUE, GREY, ORANGE, WIDTH, page
from labrnn.results.prose import UNPRINTABLE, templates

READER_FORMAT = 1  # of the data that `pack_reader` returns
LINE, SIZE, GAP, HEIGHT = 390, 8, 9, 23  # points: line width, font size, word gap, line height
TINT = 0.7  # strength of the background colour at probability 0 or 1


def short_review(corpus):
    """Return the known words of a short test review, joined by spaces, and its label as a word."""
    row = min(corpus.rows["test"], key=lambda row: abs(corpus.lengths[row] - 30))
    words = corpus.vocabulary.words_at(corpus.example(row)["ids"])
    return [" ".join(words), ["negative", "positive"][corpus.labels[row]]]


def pack_reader(weights, corpus):
    """Pack a model's weights (in half precision), vocabulary and a test review as plain values."""
    from safetensors.torch import save

    half = save({name: tensor.half() for name, tensor in weights.items()})
    return {
        "words": corpus.words,
        "weights": base64.b64encode(half).decode(),
        "review": short_review(corpus),
    }


def unpack_reader(packed):
    """Return what `pack_reader` packed: `weights`, `vocab` and `review`, see `Lab.reader`."""
    from safetensors.torch import load

    weights = load(base64.b64decode(packed["weights"]))
    words = ["<pad>", "<unk>", *packed["words"]]
    return {
        "weights": {name: tensor.float() for name, tensor in weights.items()},
        "vocab": {word: index for index, word in enumerate(words)},
        "review": packed["review"],
    }


def tint(probability):
    """Return the background colour of a word: white at 0.5, blue towards 1, orange towards 0."""
    strength = TINT * min(1.0, 2 * abs(probability - 0.5))
    color = np.array(mpl.colors.to_rgb(BLUE if probability > 0.5 else ORANGE))
    return mpl.colors.to_hex(1 - strength * (1 - color))


def _plain(words):
    """Return the words with unprintable characters replaced."""
    return [UNPRINTABLE.sub("\ufffd", word) for word in words]


def _lines(words):
    """Return the place of each word, (x in points, line), with line breaks."""
    places, x, line = [], 0.0, 0
    for word in words:
        wide = max(TextPath((0, 0), word, size=SIZE).get_extents().width, 14)
        if x and x + wide > LINE:
            x, line = 0.0, line + 1
        places.append((x + wide / 2, line))
        x += wide + GAP
    return places


def opinion_figure(words, opinions):
    """Plot the words of a text on a background that shows the prediction after each, and a curve.

    Args:
        words: words that the classifier read, in order.
        opinions: predicted probability of `positive` after each word.
    """
    words = _plain(words) or ["(no known word)"]
    opinions = [float(p) for p in opinions] or [0.5]
    with mpl.rc_context({"text.parse_math": False}):
        places = _lines(words)
        tall = (places[-1][1] + 1) * HEIGHT / 72
        with page(WIDTH, tall + 1.5, 2, height_ratios=[tall, 1.4]) as (figure, (top, bottom)):
            top.set(xlim=(0, LINE), ylim=(-(places[-1][1] + 1) * HEIGHT, 0))
            top.axis("off")
            for (x, line), word, p in zip(places, words, opinions, strict=True):
                box = {"boxstyle": "round,pad=0.15", "facecolor": tint(p), "edgecolor": "none"}
                middle = {"ha": "center", "va": "center"}
                top.text(x, -(line + 0.35) * HEIGHT, word, fontsize=SIZE, bbox=box, **middle)
                top.text(x, -(line + 0.82) * HEIGHT, f"{p:.2f}", fontsize=5.5, **middle)
            numbers = np.arange(1, len(words) + 1)
            bottom.axhline(0.5, color=GREY, linestyle=(0, (1, 2)), linewidth=0.8)
            bottom.plot(numbers, opinions, color=BLUE, marker=".")
            bottom.set(ylim=(-0.03, 1.03), xlabel="words read", ylabel="P(positive)")
            return figure


def gates_figure(words, gates, units=5):
    """Plot heat maps of the `units` units whose first gate varies most, over the words of a text.

    Args:
        words: list of T words.
        gates: name -> values [T, H], either in [0, 1] or of both signs.
    """
    gates = {name: np.asarray(values) for name, values in gates.items()}
    chosen = np.argsort(-next(iter(gates.values())).std(axis=0), kind="stable")[:units]
    plain, tall = mpl.rc_context({"text.parse_math": False}), 0.5 + 0.8 * len(gates)
    with plain, page(WIDTH, tall, len(gates), sharex=True) as (figure, panels):
        for axes, (name, values) in zip(panels, gates.items(), strict=True):
            values = values[:, chosen].T
            most = np.abs(values).max()
            look = {"cmap": "RdBu", "vmin": -most, "vmax": most}
            if values.min() >= 0:
                look = {"cmap": "Blues", "vmin": 0, "vmax": 1}
            image = axes.imshow(values, aspect="auto", **look)
            axes.set_yticks(range(len(chosen)), chosen + 1)
            axes.set_ylabel(f"{name}\nunit", fontsize=7)
            axes.grid(visible=False)
            figure.colorbar(image, ax=axes, pad=0.01, aspect=8)
        panels[-1].set_xticks(range(len(words)), _plain(words), rotation=90, fontsize=6.5)
        return figure


def explanation(text, answer, opinions, model):
    """Return a page and a picture that explain a prediction.

    Args:
        text: the text.
        answer: its `prediction.Answer`.
        opinions: predicted probability of `positive` after each word of `answer.known`.
        model: description of the model.

    Returns:
        (HTML, PNG), both as bytes.
    """
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing glyphs are drawn as boxes
        opinion_figure(answer.known, opinions).savefig(picture, format="png", dpi=144)
    content = (
        templates()
        .get_template("explanation.html")
        .render(
            text=text,
            answer=answer,
            words=[(word, p, tint(p)) for word, p in zip(answer.known, opinions, strict=True)],
            unread={"Dropped as unknown": answer.dropped, "Cut off": answer.cut},
            picture=base64.b64encode(picture.getvalue()).decode(),
            model=model,
        )
    )
    return content.encode("utf-8", "replace"), picture.getvalue()
