"""Tables, and the sentences beside them, on the data (Lab 1 a-d); see `discussion` for results."""

import pandas as pd

from labrnn.results.prose import quote


def source(data):
    """Name, size and balance of the reviews in use."""
    facts, words = data["facts"], data["facts"]["words"]
    rows = {
        "source": facts["name"],
        "fingerprint": facts["fingerprint"],
        "reviews": f"{facts['rows']:,}",
        "positive": f"{facts['positives']:,}",
        "negative": f"{facts['negatives']:,}",
        "distinct texts": f"{facts['distinct_texts']:,}",
        "words in a review": f"{words['min']} to {words['max']:,}, median {words['median']:.0f}",
    }
    return pd.DataFrame({"": rows.keys(), " ": rows.values()})


def on_duplicates(data):
    """What repeated texts mean for a random split."""
    facts = data["facts"]
    if not facts["duplicate_rows"]:
        return "No text occurs twice."
    return (
        f"{facts['duplicate_rows']:,} rows repeat a text that stands elsewhere. A random split can "
        "put one copy among the training reviews and the other among the test reviews; the lab "
        "keeps them, and `duplicates: drop` is the option that does not."
    )


def splits(data):
    """Sizes of the splits, what of them is in use, and the share of positive reviews in that."""
    lines = [
        {
            "split": {"train": "training", "valid": "validation"}.get(name, name),
            "reviews": f"{size:,}",
            "share": f"{100 * size / data['facts']['rows']:.0f} %",
            "in use": f"{used:,}",
            "positive": f"{100 * positive / used:.1f} %",
        }
        for name, size, used, positive in _splits(data)
    ]
    return pd.DataFrame(lines)


def on_splits(data):
    """Whether the training reviews are all in use."""
    (_, size, used, _), *_ = _splits(data)
    if used == size:
        return "All of them are in use."
    return (
        f"Of the {size:,} training reviews `train_reviews` leaves {used:,} in use here; the "
        "validation and the test reviews are all in use."
    )


def _splits(data):
    """(Name, reviews, those in use, positive ones of these); only the training set is ever cut."""
    cut = data["facts"]["rows"] - sum(used for used, _ in data["splits"].values())
    return [
        (name, used + cut * (name == "train"), used, positive)
        for name, (used, positive) in data["splits"].items()
    ]


def on_vocabulary(data):
    """Size of the vocabulary and what it covers."""
    first = ", ".join(f"“{quote(word)}”" for word in data["first_words"][:6])
    return (
        f"The training reviews hold {data['distinct_words']:,} distinct words. The vocabulary "
        f"keeps {data['vocabulary_size']:,}, `<pad>` and `<unk>` among them, and with them "
        f"{100 * data['kept_share']:.0f} % of all words written. It begins with {first}."
    )


def frequent(data):
    """The most frequent words; stop words in brackets, since the tokenizer drops them."""
    cells = [
        f"({word}) {count:,}" if stop else f"{word} {count:,}"
        for word, count, stop in data["frequent"]
    ]
    rows = len(cells) // 4
    table = pd.DataFrame(
        {
            f"ranks {c * rows + 1} to {(c + 1) * rows}": cells[c * rows : (c + 1) * rows]
            for c in range(4)
        }
    )
    table.attrs["key"] = "Stop words stand in brackets: the tokenizer drops them."
    return table


def on_lengths(data, part):
    """How much the tokenizer's cut takes away."""
    empty = data["without_known_words"]
    return (
        f"Cut after {part.max_tokens} known words, {100 * data['cut']:.0f} % of the reviews have "
        f"exactly that length: they lose their end, often the verdict. "
        + (
            f"{empty} of them hold no known word at all."
            if empty
            else "None is without any known word."
        )
    )


def example(data):
    """One item of the data set, and the words behind its ids."""
    item = data["example"]
    rows = {
        "review": item["text"],
        "ids": ", ".join(map(str, item["ids"][:24])) + (" ..." if item["length"] > 24 else ""),
        "words": " ".join(item["words"][:24]),
        "length": item["length"],
        "label": f"{item['label']} ({'positive' if item['label'] else 'negative'})",
    }
    return pd.DataFrame({"field": rows.keys(), "value": rows.values()})
