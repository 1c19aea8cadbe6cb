"""The ten statements of section 1: experiments, what they found in words, their figures.

Lines of PyTorch that show a fact by themselves stand in the notebook; what they are measured by,
and whatever is longer, stands here.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.nn import functional as F

from labrnn.errors import LabError
from labrnn.network.models import Classifier
from labrnn.results import statistics
from labrnn.results.figures import BLUE, GREY, SERIES, page, percent
from labrnn.results.prose import listing, quote
from labrnn.reviews.description import remembered

LOOK_FORMAT = 1  # of what `look` keeps; another one when a change here changes figures

STATEMENTS = [
    ("Self-attention computes query, key and value", "True"),
    ("Its weights are the cosine similarity of query and key", "False"),
    ("Its matrix needs a layer or batch norm afterwards", "False"),
    ("A transformer's encoder learns auto-regressively", "False"),
    ("BERT and GPT are both transformer decoders", "False"),
    ("BERT is pre-trained on masked tokens and next sentences", "True"),
    ("GPT and BERT are both zero-shot learners", "True, with reserve"),
    ("Gradient clipping cures vanishing gradients", "False"),
    ("Word embeddings can hold negative values", "True"),
    ("LSTM: old and new are weighted to a sum of 1", "False"),
]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        brief: plain words for the table.
        text: Markdown sentences.
        holds: whether the numbers bear the verdict out; None if nothing could be measured.
    """

    brief: str
    text: str
    holds: bool | None


def verdicts(found):
    """The table of all statements; `found` maps their numbers, 1 to 10, to findings."""
    rows = [
        (number, statement, verdict, found[number].brief)
        for number, (statement, verdict) in enumerate(STATEMENTS, 1)
    ]
    return pd.DataFrame(rows, columns=["", "Statement", "Verdict", "The check found"])


def summary(found):
    """Sentences on how many checks agree with their verdicts."""

    def those(holds):
        return [str(number) for number, finding in found.items() if finding.holds is holds]

    agree = "all" if len(those(True)) == len(found) else f"{len(those(True))} of the"
    text = f"In this run {agree} {len(found)} checks agree with their verdicts."
    if those(False):
        text += f" Not so: {', '.join(those(False))}."
    if those(None):
        text += f" Not made: {', '.join(those(None))}."
    return text


# --- attention: statements 1 to 5 --------------------------------------------------------------


def attention(query, key, value, mask=None):
    """Scaled dot-product attention.

    Args:
        query: [T, d].
        key: [S, d].
        value: [S, d].
        mask: True where a query may look at a key, [T, S].

    Returns:
        (outputs [T, d], weights [T, S])
    """
    scores = query @ key.T / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)
    return weights @ value, weights


def same_attention(layer, query, ours, theirs):
    """Statement 1: our attention beside torch's, from the projections of `layer`."""
    error = (ours - theirs).abs().max().item()
    stacked, (words, width) = tuple(layer.in_proj_weight.shape), query.shape
    return Finding(
        f"3 × {width} numbers a token; our attention and torch's differ by {_power(error)}",
        f"`nn.MultiheadAttention` keeps the three matrices stacked in one of {stacked[0]} × "
        f"{stacked[1]}: each of the {words} tokens gets a query, a key and a value of {width} "
        "numbers. Our few lines of attention agree with torch's `scaled_dot_product_attention`; "
        f"the largest difference is {_power(error)}.",
        stacked == (3 * width, width) and error < 1e-5,
    )


def against_cosine(cosines, weights):
    """Statement 2: attention weights [queries, keys], a tensor a query length, beside cosines."""
    same_first = (cosines.argmax(-1) == weights[0].argmax(-1)).float().mean().item()
    same_order = (cosines.argsort(-1) == weights[0].argsort(-1)).all(-1).float().mean().item()
    largest = [w.max(-1).values.mean().item() for w in weights]
    negative = (cosines < 0).float().mean().item()
    return Finding(
        f"same order of keys for {percent(same_order, 0)} of the queries; at equal cosines the "
        f"largest weight is {', '.join(f'{x:.2f}' for x in largest)} by length of the query",
        f"Over {len(cosines):,} random queries and {cosines.shape[1]} keys, weights and cosines "
        f"put the same key first for {percent(same_first, 0)} of the queries and all keys into the "
        f"same order for {percent(same_order, 0)}. Making the query longer changes no cosine, and "
        f"yet the largest weight grows, on average from {largest[0]:.2f} to "
        f"{listing([f'{x:.2f}' for x in largest[1:]])}. {percent(negative, 0)} of the cosines are "
        "negative; no weight can be.",
        same_order < 1 and largest == sorted(largest) and largest[0] < largest[-1],
    )


def row_sums(weights, normed):
    """Statement 3: attention matrices [T, S] before and after a layer norm."""
    off = (weights.sum(-1) - 1).abs().max().item()
    after, negative = normed.sum(-1).abs().max().item(), (normed < 0).float().mean().item()
    return Finding(
        f"rows sum to 1 but for {_power(off)}; a layer norm makes that {round(after, 2):g}",
        f"Every one of the {len(weights):,} rows sums to 1 as it leaves the softmax, to within "
        f"{_power(off)}. A layer norm on top does harm: the rows then sum to {round(after, 2):g}, "
        f"{percent(negative, 0)} of the weights are negative, and the output is no longer an "
        "average of the values.",
        off < 1e-5 and negative > 0,
    )


def influence(stack, pair, mask=None):
    """How much each output differs between two sentences.

    Args:
        stack: `nn.TransformerEncoder`, batch first.
        pair: [2, T, d].
        mask: True where a token may look at another, [T, T].

    Returns:
        Euclidean distances, float array [T].
    """
    with torch.no_grad():
        first, second = stack(pair, mask=None if mask is None else ~mask)
    return (first - second).norm(dim=-1).numpy()


def sees_later(both_sides, left_only, place):
    """Statement 4: `influence` of the token at index `place`, without and with a causal mask."""
    before, hidden = both_sides[:place], left_only[:place]
    least, most = before.min(), hidden.max()
    return Finding(
        f"a later token moves every earlier output by {least:.2f} or more; under a causal mask "
        f"by {most:.2g}",
        f"Only token {place + 1} of {len(both_sides)} is exchanged. In the encoder all {place} "
        f"outputs before it move, by {least:.2f} to {before.max():.2f}. With the same weights "
        f"under a decoder's mask they move by {most:.2g}.",
        bool(least > 1e-3 and most == 0),
    )


def looks_ahead(both_sides, left_only):
    """Statement 5: attention matrices [T, T] of the same words under the two masks."""
    ahead = [(torch.triu(w, 1).sum() / w.sum()).item() for w in (both_sides, left_only)]
    links = [int((w > 0).sum()) for w in (both_sides, left_only)]
    return Finding(
        f"attention on later words: {percent(ahead[0], 0)} under BERT's mask, "
        f"{percent(ahead[1], 0)} under GPT's",
        f"The mask is all that differs between the two matrices. Under BERT's, {links[0]} of "
        f"{both_sides.numel()} pairs of words are linked and {percent(ahead[0], 0)} of the "
        f"attention goes to words that come later; under GPT's {links[1]} are left, and later "
        f"words get {percent(ahead[1], 0)}.",
        ahead[0] > 0 and ahead[1] == 0,
    )


# --- pre-training: statements 6 and 7 ----------------------------------------------------------

TEXTS = [
    ["the plot is thin", "the actors save it", "we left in a good mood"],
    ["nothing in here is new", "the jokes are old", "half of the room slept"],
]


def pretraining_pair(rng, texts=TEXTS):
    """One example of BERT's pre-training: two sentences joined, some tokens to be predicted.

    Args:
        rng: numpy's random generator.
        texts: two texts, each a list of sentences.

    Returns:
        (whether the second sentence follows the first in its text, rows of a table with the
        columns token, segment, input, treatment; the treatment is empty where nothing is asked)
    """
    text, other = texts if rng.random() < 0.5 else texts[::-1]
    place, follows = rng.integers(len(text) - 1), bool(rng.random() < 0.5)
    second = text[place + 1] if follows else rng.choice(other)
    words = sorted({word for sentences in texts for s in sentences for word in s.split()})
    rows = [("[CLS]", "A", "[CLS]", "")]
    for segment, sentence in (("A", text[place]), ("B", second)):
        for token in sentence.split():
            shown = {"masked": "[MASK]", "replaced": str(rng.choice(words)), "kept": token}
            treatment = rng.choice([*shown, ""], p=[0.15 * 0.8, 0.15 * 0.1, 0.15 * 0.1, 0.85])
            rows.append((token, segment, shown.get(treatment, token), str(treatment)))
        rows.append(("[SEP]", segment, "[SEP]", ""))
    columns = ["token", "segment", "input", "treatment"]
    return follows, pd.DataFrame(rows, columns=columns)


def pretraining_rates(rng, pairs=1000):
    """Statement 6: how often the construction does what, over many pairs."""
    follows, tables = zip(*(pretraining_pair(rng) for _ in range(pairs)), strict=True)
    tokens = pd.concat(tables)
    words = tokens[~tokens["token"].isin(["[CLS]", "[SEP]"])]
    chosen = words.loc[words["treatment"] != "", "treatment"]
    asked, share = len(chosen) / len(words), chosen.value_counts(normalize=True)
    successors = np.mean(follows)
    near = abs(share["masked"] - 0.8) < 0.06 and abs(successors - 0.5) < 0.06
    return Finding(
        f"{percent(asked, 0)} of the words are asked for, {percent(share['masked'], 0)} of them "
        f"masked; {percent(successors, 0)} true successors",
        f"Over {pairs:,} such pairs {percent(asked)} of the words are to be predicted: "
        f"{percent(share['masked'], 0)} of these are masked, {percent(share['replaced'], 0)} "
        f"replaced, {percent(share['kept'], 0)} left as they are. {percent(successors, 0)} of the "
        "second sentences are true successors.",
        bool(abs(asked - 0.15) < 0.02 and near),
    )


def cloze(corpus, good, bad):
    """Sentiment without a label: which of two words would rather fill a blank in the review?

    The simplest language model, counts of word pairs in the unlabelled training reviews, gives
    log P(review | good) - log P(review | bad), words taken as independent.

    Returns:
        whether each test review is told rightly, bool [reviews]; None if a word is unknown.
    """
    index = corpus.vocabulary.index
    if good not in index or bad not in index:
        return None
    blanks = [index[good], index[bad]]
    shape = (len(corpus.labels), corpus.vocabulary_size)
    ones = np.ones(len(corpus.ids), dtype=np.float32)
    counts = csr_array((ones, corpus.ids.copy(), corpus.offsets.copy()), shape)
    present = counts.minimum(1)  # a word of a review counts once; copies of an entry add up first
    train, test = (present[corpus.rows[split]] for split in ("train", "test"))
    together = train[:, blanks].toarray().T @ train + 1.0
    together[:, [0, 1, *blanks]] = 1.0
    evidence = np.log(together / together.sum(1, keepdims=True))
    positive = test @ (evidence[0] - evidence[1]) > 0
    return positive == (corpus.labels[corpus.rows["test"]] == 1)


def without_labels(corpus, wordings=(("great", "bad"), ("good", "bad"))):
    """Statement 7: accuracy of `cloze` on the test reviews, for two wordings of the blank."""
    told = [cloze(corpus, *pair) for pair in wordings] if corpus else []
    if not told or any(correct is None for correct in told):
        reason = "lack the words for it" if corpus else "are not at hand"
        return Finding(
            f"not made: the reviews {reason}",
            f"*This check was not made: it counts words in the reviews, and these {reason}.*",
            None,
        )
    first, second = (
        statistics.accuracy(np.asarray(correct)[None], statistics.EXACT) for correct in told
    )
    (good, bad), (other, _) = wordings
    better = first.low > 0.5
    verdict = "better than a coin" if better else "not surely better than a coin"
    return Finding(
        "only the mechanism: counts of unlabelled text, asked a cloze, are right for "
        f"{percent(first.mean)}",
        f"Which words share an unlabelled review with *{good}*, and which with *{bad}*? These "
        f"counts are a language model of the humblest kind. Asked which of the two would rather "
        f"fill the blank in *a … film*, it tells {percent(first.mean)} of {first.reviews:,} test "
        f"reviews rightly (95 % interval {percent(first.low)} to {percent(first.high)}), "
        f"{verdict}, and has seen no label. With *{other}* in the place of *{good}* it is "
        f"{percent(second.mean)}: as with the prompts of large models, the wording matters.",
        better,
    )


# --- clipping: statement 8 ---------------------------------------------------------------------


def gradient_norms(gain, steps=256, units=16, limit=5.0, seed=5):
    """What reaches each step of a linear recurrence from a loss at its end.

    The state becomes gain × (a rotation of it) + the step's own input, so that one step back
    multiplies the gradient's norm by `gain`. All inputs are clipped together, as parameters are.

    Returns:
        (norms before, norms after clipping to `limit`), two float arrays [steps].
    """
    torch.manual_seed(seed)
    matrix = gain * nn.init.orthogonal_(torch.empty(units, units, dtype=torch.float64))
    inputs = torch.zeros(steps, units, dtype=torch.float64, requires_grad=True)
    state = torch.zeros(units, dtype=torch.float64)
    for step in inputs:
        state = matrix @ state + step
    (state @ F.normalize(torch.randn(units, dtype=torch.float64), dim=0)).backward()
    before = inputs.grad.norm(dim=1).numpy()
    nn.utils.clip_grad_norm_([inputs], limit)
    return before, inputs.grad.norm(dim=1).numpy()


def clipped(norms):
    """Statement 8: `norms` maps the gains, smallest first, to what `gradient_norms` gives."""
    (low, (faint, faint_clipped)), *_, (high, (loud, loud_clipped)) = norms.items()
    total, kept = np.linalg.norm(loud_clipped), faint_clipped[0] / faint[0]
    factor = "as it is" if np.isclose(kept, 1) else f"smaller still, by a factor of {kept:.2f}"
    return Finding(
        f"first of {len(faint)} steps: {_power(faint[0])} and after clipping "
        f"{_power(faint_clipped[0])} (gain {low}); {_power(loud[0])} and {loud_clipped[0]:.1f} "
        f"(gain {high})",
        "The recurrence is linear: every step back multiplies the gradient by a fixed gain. "
        f"Of a norm of 1 at the last of {len(faint)} steps a gain of {low} leaves "
        f"{_power(faint[0])} at the first, and clipping leaves that {factor}. A gain of {high} "
        f"makes it {_power(loud[0])}, and there clipping helps: the gradient as a whole is brought "
        f"down to {total:.1f}. Both times all steps are multiplied by one factor, so that the "
        "first stays as small or as large beside the last as it was.",
        bool(faint_clipped[0] <= faint[0] < 1e-6 and total < 1e-6 * np.linalg.norm(loud)),
    )


# --- trained models: statements 9 and 10 -------------------------------------------------------


class Reader(NamedTuple):
    """A model to look into; `trained` is False if random weights stand in for missing ones."""

    model: Classifier
    trained: bool


def reader(lab, name, corpus):
    """The model of a setting with its stored weights, or with random ones where none are stored."""
    trial = lab.trial(name)
    source = trial or corpus
    model = Classifier(lab.results[name].config, source.vocabulary_size if source else 1000).eval()
    try:
        if trial:
            model.load_state_dict(trial.weights())
            return Reader(model, True)
    except LabError:
        pass  # a copy of the results without the weights
    torch.manual_seed(lab.part.seeds[0])
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    return Reader(model, False)


def look(lab, corpus):
    """What is seen in the part's two models, plain values by name: `words` and `gates`.

    It is kept beside the trials, for copies of the results that lack the weights or the reviews;
    where it was not kept either, random weights stand in.
    """

    def readers():
        return {s.name: reader(lab, s.name, corpus) for s in lab.results.settings}

    def make(_):
        found = readers()
        if not all(trained for _, trained in found.values()):
            raise LabError("the weights of a model are not at hand")
        return measured(found, corpus)

    trials = [lab.trial(setting.name) for setting in lab.results.settings]
    if all(trials):
        identity = [LOOK_FORMAT, *(trial.key for trial in trials)]
        data, fingerprint = lab.part.data, trials[0].fingerprint
        with suppress(LabError):
            return remembered("models", identity, data, fingerprint, lab.store, make)
    return measured(readers(), corpus)


def measured(readers, corpus):
    """`look` at the readers' models, by name."""
    words = {
        name: {"trained": trained, **_words(model, corpus if trained else None)}
        for name, (model, trained) in readers.items()
    }
    return {"words": words, "gates": _gates(readers, corpus)}


def _caveat(seen):
    names = " and ".join(name for name, words in seen["words"].items() if not words["trained"])
    return names and (
        f"*The weights of the trained {names} are not at hand in this run; what follows is "
        "measured on random ones in their place.* "
    )


def _words(model, corpus, outermost=3):
    """The embedding: one number a known word, `<pad>` and `<unk>` left out."""
    values = model.embedding.weight.detach().numpy()[2:, 0]
    order = np.argsort(values)
    ends = order[:outermost], order[::-1][:outermost]
    low, high = ([corpus.words[i] for i in end] if corpus else [] for end in ends)
    counts, _ = np.histogram(values, np.linspace(-1, 1, 31) * np.abs(values).max())
    return {
        "count": len(values),
        "negative": float((values < 0).mean()),
        "reach": [float(values.min()), float(values.max())],
        "outermost": [low, high],
        "histogram": counts.tolist(),
    }


def signs(seen):
    """Statement 9: signs of the embeddings of the models of a `look`."""
    text, shares = _caveat(seen), {}
    for name, words in seen["words"].items():
        shares[name], (least, most) = words["negative"], words["reach"]
        text += (
            f"The {name} holds a negative number for {percent(shares[name], 0)} of its "
            f"{words['count']:,} words; they reach from {least:.2f} to {most:.2f}. "
        )
        low, high = ([f"*{quote(w)}*" for w in end] for end in words["outermost"])
        if low:
            text += f"At the lower end stand {listing(low)}, at the upper {listing(high)}. "
    all_trained = not _caveat(seen)
    return Finding(
        ("" if all_trained else "random numbers in place of trained ones; ")
        + "negative: "
        + listing([f"{percent(x, 0)} of the {name}'s words" for name, x in shares.items()]),
        text.strip(),
        all(0 < share < 1 for share in shares.values()) if all_trained else None,
    )


def longest_reviews(corpus, vocabulary_size, reviews=64, tokens=64):
    """Token ids [B, T] without padding: the longest test reviews, cut to one length.

    Without a corpus the ids are drawn at random.
    """
    if corpus is None:
        return torch.randint(2, vocabulary_size, (reviews, tokens))
    rows = corpus.rows["test"]
    rows = rows[np.argsort(-corpus.lengths[rows], kind="stable")[:reviews]]
    tokens = min(tokens, corpus.lengths[rows].min())
    return torch.tensor([corpus.example(row)["ids"][:tokens] for row in rows])


class Memory(NamedTuple):
    """What a layer does to its memory: state = keep × old + take × new, each [T, B, H]."""

    keep: torch.Tensor
    take: torch.Tensor
    old: torch.Tensor
    new: torch.Tensor
    state: torch.Tensor

    @property
    def between(self):
        """Share of states that lie between old and new, as every weighted average does."""
        low, high = torch.minimum(self.old, self.new), torch.maximum(self.old, self.new)
        inside = (self.state >= low - 1e-6) & (self.state <= high + 1e-6)
        return inside.float().mean().item()


@torch.no_grad()
def memory(rnn, x):
    """One-layer LSTM (memory: the cell state) or GRU (the hidden state), step by step.

    Args:
        rnn: `nn.LSTM` or `nn.GRU`.
        x: inputs, [B, T, in].

    Returns:
        (`Memory`, hidden state after the last step [B, H])
    """
    hidden = cell = x.new_zeros(len(x), rnn.hidden_size)
    steps = []
    for step in x.unbind(1):
        given = F.linear(step, rnn.weight_ih_l0, rnn.bias_ih_l0)
        recalled = F.linear(hidden, rnn.weight_hh_l0, rnn.bias_hh_l0)
        if rnn.mode == "LSTM":
            i, f, g, o = (given + recalled).chunk(4, dim=1)
            keep, take, old, new = f.sigmoid(), i.sigmoid(), cell, g.tanh()
            cell = state = keep * old + take * new
            hidden = o.sigmoid() * cell.tanh()
        else:
            reset, update = (given + recalled).sigmoid().chunk(3, dim=1)[:2]
            new = (given.chunk(3, dim=1)[2] + reset * recalled.chunk(3, dim=1)[2]).tanh()
            keep, take, old = update, 1 - update, hidden
            hidden = state = keep * old + take * new
        steps.append((keep, take, old, new, state))
    return Memory(*map(torch.stack, zip(*steps, strict=True))), hidden


def _gates(readers, corpus):
    """The memories of the readers `LSTM` and `GRU` over some reviews, in numbers."""
    found, errors = {}, []
    for name, (model, _) in readers.items():
        ids = longest_reviews(corpus, model.embedding.num_embeddings)
        x = model.embedding(ids).detach()
        found[name], hidden = memory(model.rnn, x)
        with torch.no_grad():
            errors.append((hidden - model.rnn(x.transpose(0, 1))[0][-1]).abs().max().item())
    lstm, gru = found["LSTM"], found["GRU"]
    sums = (lstm.keep + lstm.take).numpy()
    away, counts = np.abs(sums - 1), np.histogram(sums, np.linspace(0, 2, 81))[0]
    return {
        "steps": sums.shape[0],
        "rows": sums.shape[1],
        "units": sums.shape[2],
        "reviews": corpus is not None,
        "sums": [float(sums.min()), float(sums.max())],
        "mean": float(sums.mean()),
        "away": float(away.max()),
        "far": float((away > 0.1).mean()),
        "between": {"LSTM": lstm.between, "GRU": gru.between},
        "reach": lstm.state.abs().max().item(),
        "error": max(errors),
        "histogram": (100 * counts / sums.size).tolist(),
    }


def gate_sums(seen):
    """Statement 10: the two gates of the LSTM, and a GRU rebuilt from weights that sum to 1."""
    gates = seen["gates"]
    (low, high), reach, error = gates["sums"], gates["reach"], _power(gates["error"])
    what = "test reviews" if gates["reviews"] else "rows of random words (the reviews are missing)"
    beyond = ", out of reach for an average of values between −1 and 1" if reach > 1 else ""
    return Finding(
        f"forget + input gate of the LSTM: {low:.2f} to {high:.2f}; a GRU rebuilt "
        f"with weights z and 1 − z is torch's to {error}",
        f"{_caveat(seen)}Over {gates['rows']} {what}, {gates['steps']} steps and "
        f"{gates['units']} units the two gates of the LSTM sum to {low:.2f} to "
        f"{high:.2f}, on average to {gates['mean']:.2f}; {percent(gates['far'], 0)} of the sums "
        "are more than 0.1 away from 1. Its new cell state lies between the old one and the new "
        f"content in {percent(gates['between']['LSTM'], 0)} of the cases, and reaches "
        f"{reach:.1f}{beyond}. The GRU, rebuilt step by step with the weights $z$ and $1 - z$, "
        f"agrees with torch's to {error}; its new state lies between in "
        f"{percent(gates['between']['GRU'], 0)} of the cases.",
        gates["away"] > 0.01 and gates["between"]["GRU"] > 0.999 and gates["error"] < 1e-3,
    )


def _power(x):
    """A small or large number to two digits, such as 1.2 × 10⁻⁷."""
    if x == 0:
        return "0"
    digits, power = f"{x:.1e}".split("e")
    return f"{digits} × 10" + str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# --- figures -----------------------------------------------------------------------------------

PALE = "#d3d9e2"
EDGE = {"edgecolor": "black", "linewidth": 0.5}
HATCHED = {"color": "white", "edgecolor": BLUE, "hatch": "////"}
NOTE = {"textcoords": "offset points"}


def cosine_figure(cosines, weights, lengths):
    """Cosines and weights of the query on whose first key the two disagree most."""
    chosen = weights[0].gather(1, cosines.argmax(-1, keepdim=True)).squeeze(1)
    query = int((weights[0].max(-1).values - chosen).argmax())
    order = cosines[query].argsort(descending=True)
    places = np.arange(1, len(order) + 1)
    with page(5.6, 2.1, 1, 2) as (figure, (left, right)):
        left.bar(places, cosines[query][order], color=PALE, **EDGE)
        left.axhline(0, color="black", linewidth=0.6)
        left.set(title="cosine similarity", xlabel="key, by falling cosine", xticks=places)
        for w, length, (color, dash, marker) in zip(weights, lengths, SERIES, strict=False):
            look = {"color": color, "linestyle": dash, "marker": marker}
            right.plot(places, w[query][order], label=f"query × {length}", **look)
        right.set(title="attention weight", xlabel="key, by falling cosine", xticks=places)
        right.legend()
        return figure


def influence_figure(both_sides, left_only, place):
    """Change of each output after an exchange of the token at index `place`, its bars cut off."""
    places = np.arange(1, len(both_sides) + 1)
    top = 1.5 * np.delete(np.maximum(both_sides, left_only), place).max()
    with page(5, 2) as (figure, axes):
        axes.bar(places - 0.2, both_sides, 0.38, color=PALE, label="encoder", **EDGE)
        axes.bar(places + 0.2, left_only, 0.38, label="decoder", **HATCHED)
        most = max(both_sides[place], left_only[place])
        axes.text(place + 1.45, top, f"up to {most:.1f}", va="top", fontsize=7)
        axes.set(xlabel=f"output at token (token {place + 1} is exchanged)", ylabel="change")
        axes.set(xticks=places, ylim=(0, top))
        axes.grid(visible=False, axis="x")
        axes.legend(loc="upper left", ncols=2)
        return figure


def mask_figure(matrices, words):
    """Attention matrices [T, T] by title; what a mask forbids is crossed out."""
    with page(5.6, 2.7, 1, len(matrices), sharey=True) as (figure, panels):
        for axes, (title, weights) in zip(panels, matrices.items(), strict=True):
            axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
            for row, column in (weights == 0).nonzero().tolist():
                axes.plot(column, row, "x", color=GREY)
            axes.set(title=title, xlabel="looked at", yticks=range(len(words)), yticklabels=words)
            slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
            axes.set_xticks(range(len(words)), words, **slanted)
            axes.grid(visible=False)
        panels[0].set_ylabel("looking")
        return figure


def clipping_figure(norms):
    """Gradient norm at each step for some gains, before and after clipping."""
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
        axes.set(xlabel="step; the loss stands after the last", ylabel="gradient norm")
        axes.set(xlim=(-len(steps) / 6, len(steps)), xticks=np.linspace(0, len(steps), 5))
        return figure


def embedding_figure(seen):
    """Histograms of the models' embeddings, negative bars hatched, with the outermost words."""
    with page(5.8, 2.2, 1, len(seen["words"]), sharey=True) as (figure, panels):
        for axes, (name, words) in zip(panels, seen["words"].items(), strict=True):
            edges = np.linspace(-1, 1, 31) * max(map(abs, words["reach"]))
            bars = axes.bar(edges[:-1], words["histogram"], np.diff(edges), align="edge", **EDGE)
            for bar, right in zip(bars, edges[1:], strict=True):
                negative = right < edges[-1] / 60  # the edge at 0 may be off by rounding
                bar.set(facecolor="white" if negative else PALE, hatch="/////" if negative else "")
            title = name if words["trained"] else f"{name}, random weights"
            axes.set(title=title, xlabel="value of a word")
            low, high = map("\n".join, words["outermost"])
            place = {"va": "top", "style": "italic", "parse_math": False}
            axes.text(0.02, 0.97, low, ha="left", transform=axes.transAxes, **place)
            axes.text(0.98, 0.97, high, ha="right", transform=axes.transAxes, **place)
        panels[0].set_ylabel("words")
        return figure


def gate_figure(seen):
    """Sums of the two gates of the LSTM, and where the weights of a GRU sum to."""
    edges = np.linspace(0, 2, 81)
    with page(5, 2) as (figure, axes):
        shares = seen["gates"]["histogram"]
        axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=PALE, **EDGE)
        axes.axvline(1, color=BLUE, linestyle="--")
        place = {"va": "top", "xycoords": axes.get_xaxis_transform()} | NOTE
        axes.annotate("GRU: all here", (1, 1), (3, -2), color=BLUE, **place)
        axes.set(xlabel="forget gate + input gate", ylabel="sums, %", xlim=(0, 2))
        return figure
