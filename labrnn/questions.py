"""The ten statements of section 1: experiments, what they found in words, their figures.

Lines of PyTorch that show a fact by themselves stand in the notebook; what they are measured by,
and whatever is longer, stands here.
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.nn import functional as F

from labrnn import statistics
from labrnn.errors import LabError
from labrnn.models import Classifier
from labrnn.report import quote

STATEMENTS = [
    ("Self-attention computes query, key and value", "True"),
    ("Its weights are the cosine similarity of query and key", "False"),
    ("Its matrix needs a layer or batch norm afterwards", "False"),
    ("A transformer's encoder learns auto-regressively", "False"),
    ("BERT and GPT are both transformer decoders", "False"),
    ("BERT is pre-trained on masked tokens and next sentences", "True"),
    ("GPT and BERT are both zero-shot learners", "True"),
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
    holds: Optional[bool]


def verdicts(found):
    """The table of all statements; `found` maps their numbers, 1 to 10, to findings."""
    rows = [
        (number, statement, verdict, found[number].brief)
        for number, (statement, verdict) in enumerate(STATEMENTS, 1)
    ]
    return pd.DataFrame(rows, columns=["", "Statement", "Verdict", "The check found"])


def summary(found):
    """Sentences on how many checks bear their verdicts out."""
    against = [str(number) for number, finding in found.items() if finding.holds is False]
    open_ = [str(number) for number, finding in found.items() if finding.holds is None]
    borne_out = len(found) - len(against) - len(open_)
    text = f"{borne_out} of {len(found)} checks bear the verdict on their statement out."
    if against:
        text += f" In this run these do not: {', '.join(against)}."
    if open_:
        text += f" In this run these could not be made: {', '.join(open_)}."
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
        f"3 × {width} numbers a token; ours and torch's attention differ by at most {error:.0e}",
        f"`nn.MultiheadAttention` keeps the three matrices stacked in one of {stacked[0]} × "
        f"{stacked[1]}: each of the {words} tokens gets a query, a key and a value of {width} "
        "numbers. Our four lines and torch's `scaled_dot_product_attention` agree: the largest "
        f"difference is {_power(error)}.",
        stacked == (3 * width, width) and error < 1e-5,
    )


def against_cosine(cosines, weights):
    """Statement 2: attention weights [queries, keys], a tensor a query length, beside cosines."""
    same_first = (cosines.argmax(-1) == weights[0].argmax(-1)).float().mean().item()
    same_order = (cosines.argsort(-1) == weights[0].argsort(-1)).all(-1).float().mean().item()
    largest = [w.max(-1).values.mean().item() for w in weights]
    return Finding(
        f"same order of the keys for {same_order:.0%} of queries; longer queries get sharper "
        f"weights ({', '.join(f'{x:.2f}' for x in largest)}) at equal cosines",
        f"Over {len(cosines):,} random queries and {cosines.shape[1]} keys, weights and cosines "
        f"put the same key first for {same_first:.0%} of the queries and all keys into the same "
        f"order for {same_order:.0%}. Making the query longer changes no cosine, and yet the "
        f"largest weight grows, on average from {largest[0]:.2f} to "
        f"{' and '.join(f'{x:.2f}' for x in largest[1:])}. {(cosines < 0).float().mean():.0%} of "
        "the cosines are negative; no weight can be.",
        same_order < 1 and largest == sorted(largest) and largest[0] < largest[-1],
    )


def row_sums(weights, normed):
    """Statement 3: attention matrices [T, S] before and after a layer norm."""
    off = (weights.sum(-1) - 1).abs().max().item()
    after, negative = normed.sum(-1).abs().max().item(), (normed < 0).float().mean().item()
    return Finding(
        f"each row sums to 1 within {off:.0e}; a layer norm would make that 0",
        f"Every one of the {len(weights):,} rows sums to 1 as it leaves the softmax, to within "
        f"{_power(off)}. A layer norm on top does harm: the rows then sum to "
        f"{'0' if after < 1e-3 else f'up to {after:.2f}'}, {negative:.0%} of the weights are "
        "negative, and the output is no longer an average of the values.",
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
    least, most, words = before.min(), hidden.max(), "token" if place == 1 else "tokens"
    return Finding(
        f"a later token moves every earlier output by {least:.2f} or more; under a causal mask "
        f"by {most:.2g}",
        f"Only token {place + 1} of {len(both_sides)} was exchanged. In the encoder all {place} "
        f"outputs of the {words} before it move, by {least:.2f} to {before.max():.2f}. With the "
        f"same weights under a decoder's mask they move by {most:.2g}; the output at the "
        f"exchanged token itself by {left_only[place]:.2f}.",
        bool(least > 1e-3 and most == 0),
    )


def looks_ahead(both_sides, left_only):
    """Statement 5: attention matrices [T, T] of the same words under the two masks."""
    ahead = [(torch.triu(w, 1).sum() / w.sum()).item() for w in (both_sides, left_only)]
    links = [int((w > 0).sum()) for w in (both_sides, left_only)]
    return Finding(
        f"share of attention on later words: {ahead[0]:.0%} under BERT's mask, {ahead[1]:.0%} "
        "under GPT's",
        f"The mask is all that differs between the two matrices. Under BERT's, {links[0]} of "
        f"{both_sides.numel()} pairs of words are linked and {ahead[0]:.0%} of the attention goes "
        f"to words that come later; under GPT's {links[1]} are left and later words get "
        f"{ahead[1]:.0%}.",
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
    follows, tables = zip(*(pretraining_pair(rng) for _ in range(pairs)))
    tokens = pd.concat(tables)
    words = tokens[~tokens["token"].isin(["[CLS]", "[SEP]"])]
    chosen = words.loc[words["treatment"] != "", "treatment"]
    asked, share = len(chosen) / len(words), chosen.value_counts(normalize=True)
    next_ = np.mean(follows)
    return Finding(
        f"{asked:.0%} of tokens asked for, {share['masked']:.0%} of them as [MASK]; {next_:.0%} "
        "true next sentences",
        f"Over {pairs:,} such pairs {asked:.1%} of the words are to be predicted: "
        f"{share['masked']:.0%} of them are masked, {share['replaced']:.0%} replaced, "
        f"{share['kept']:.0%} left as they are. {next_:.0%} of the second sentences are true "
        "successors. The published shares are 15 %, 80 %, 10 %, 10 % and 50 %.",
        bool(abs(asked - 0.15) < 0.02 and abs(share["masked"] - 0.8) < 0.06
             and abs(next_ - 0.5) < 0.06),
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
    first, second = (statistics.accuracy([correct]) for correct in told)
    (good, bad), (other, _) = wordings
    better = first.low > 0.5
    verdict = "better than a coin" if better else "not surely better than a coin"
    return Finding(
        f"counts of unlabelled text, asked a cloze: {first.mean:.1%} right without a label",
        f"Which words share an unlabelled review with *{good}*, and which with *{bad}*? These "
        f"counts are a language model of the humblest kind. Asked which of the two would rather "
        f"fill the blank in *a … film*, it tells {first.mean:.1%} of {first.reviews:,} test "
        f"reviews rightly (95 % interval {first.low:.1%} to {first.high:.1%}), {verdict}, "
        f"and has seen no label. With *{other}* in the place of *{good}* it is "
        f"{second.mean:.1%}: as with the prompts of large models, the wording matters.",
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
    total = np.linalg.norm(loud_clipped)
    kept = faint_clipped[0] / faint[0]
    factor = "unchanged" if np.isclose(kept, 1) else f"multiplied by {kept:.2f}"
    return Finding(
        f"gain {low}: {faint[0]:.0e} at step 1, {faint_clipped[0]:.0e} after clipping; gain {high}: "
        f"{loud[0]:.0e}, then {loud_clipped[0]:.1f}",
        f"Of a gradient of norm 1 at the last of {len(faint)} steps, a gain of {low} leaves "
        f"{_power(faint[0])} at the first step, and clipping leaves that {factor}. A gain of "
        f"{high} makes it {_power(loud[0])}, and there clipping helps: the whole gradient is "
        f"brought down to a norm of {total:.1f}. Clipping multiplies all steps by one factor, "
        "never above 1, so what the first step gets beside the last stays as it was.",
        bool(faint_clipped[0] <= faint[0] < 1e-6 and total < 1e-6 * np.linalg.norm(loud)),
    )


# --- trained models: statements 9 and 10 -------------------------------------------------------


class Reader(NamedTuple):
    """A model to look into, and what has to be said about it first."""

    model: Classifier
    caveat: str


def reader(lab, name):
    """The trained model of a setting of `lab`; as it was initialised where no weights are stored."""
    trial, config, corpus = lab.trial(name), lab.results[name].config, lab.corpus
    source = trial or corpus
    torch.manual_seed(lab.part.seeds[0])
    model = Classifier(config, source.vocabulary_size if source else 1000).eval()
    try:
        if trial:
            model.load_state_dict(trial.weights())
            return Reader(model, "")
    except LabError:
        pass  # results were copied without their weights
    return Reader(model, f"*The weights of the trained {name} are not at hand in this run: this "
                         f"is the {name} as it is initialised, untrained.* ")


def embedded_words(model):
    """The one number of each known word, `<pad>` and `<unk>` left out, float array [V - 2]."""
    return model.embedding.weight.detach().numpy()[2:, 0]


def extremes(values, corpus, count=3):
    """The words at both ends of the embedding, outermost first; two empty lists without corpus."""
    if corpus is None:
        return [], []
    order = np.argsort(values)
    low, high = order[:count], order[::-1][:count]
    return [corpus.words[i] for i in low], [corpus.words[i] for i in high]


def signs(readers, corpus):
    """Statement 9: signs of the embeddings of some readers, by name."""
    text, shares = "", {}
    for name, (model, caveat) in readers.items():
        values = embedded_words(model)
        shares[name] = (values < 0).mean()
        text += (f"{caveat}The {name} holds a negative number for {shares[name]:.0%} of its "
                 f"{len(values):,} words; they reach from {values.min():.2f} to {values.max():.2f}. ")
        low, high = ([f"*{quote(w)}*" for w in words] for words in extremes(values, corpus))
        if low and not caveat:
            text += f"At the lower end stand {_list(low)}, at the upper {_list(high)}. "
    return Finding(
        "negative: " + ", ".join(f"{share:.0%} of the {n}'s words" for n, share in shares.items()),
        text.strip(),
        all(0 < share < 1 for share in shares.values()),
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
    return Memory(*map(torch.stack, zip(*steps))), hidden


def memories(readers, corpus):
    """`Memory` by name of reader, and the largest difference of our steps to torch's own."""
    found, errors = {}, []
    for name, (model, _) in readers.items():
        ids = longest_reviews(corpus, model.embedding.num_embeddings)
        x = model.embedding(ids).detach()
        found[name], hidden = memory(model.rnn, x)
        with torch.no_grad():
            errors.append((hidden - model.rnn(x.transpose(0, 1))[0][-1]).abs().max().item())
    return found, max(errors)


def gate_sums(found, error, readers, corpus):
    """Statement 10: what `memories` found for the readers `LSTM` and `GRU`."""
    lstm, gru = found["LSTM"], found["GRU"]
    sums, gru_off = lstm.keep + lstm.take, (gru.keep + gru.take - 1).abs().max().item()
    reach, far = lstm.state.abs().max().item(), ((sums - 1).abs() > 0.1).float().mean().item()
    caveats = "".join(dict.fromkeys(r.caveat for r in readers.values()))
    what = "test reviews" if corpus else "rows of random words (the reviews are not at hand)"
    beyond = ", which no average of values in (−1, 1) can" if reach > 1 else ""
    return Finding(
        f"LSTM: forget + input from {sums.min():.2f} to {sums.max():.2f}; GRU: 1 within "
        f"{gru_off:.0e}",
        f"{caveats}Over {sums.shape[1]} {what}, {sums.shape[0]} steps and {sums.shape[2]} units, "
        f"forget and input gate of the LSTM sum to {sums.min():.2f} to {sums.max():.2f}, on "
        f"average to {sums.mean():.2f}; {far:.0%} of the sums are more than 0.1 away from 1. "
        f"Its cell states lie between the old state and the new content in {lstm.between:.0%} of "
        f"the steps and reach {reach:.1f}{beyond}. In the GRU the two weights sum to 1 "
        f"(largest difference {_power(gru_off)}), and {gru.between:.0%} of the states lie "
        f"between. Both layers, rebuilt here step by step, agree with torch's: the "
        f"largest difference is {_power(error)}.",
        bool((sums - 1).abs().max() > 0.01 and gru_off < 1e-5 and error < 1e-3),
    )


def _power(x):
    """A number as TeX, such as 1.2 × 10^-7."""
    if x == 0:
        return "0"
    digits, power = f"{x:.1e}".split("e")
    return rf"${digits}\times 10^{{{int(power)}}}$"


def _list(words):
    return ", ".join(words[:-1]) + " and " + words[-1]


# --- figures -----------------------------------------------------------------------------------

STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False,
         "axes.titlesize": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 4}
BLUE, RED, GREY = "#1f5f9f", "#b5452c", "#c9ced6"


def _panels(width, height, columns=1, **options):
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **options)


@plt.rc_context(STYLE)
def cosine_figure(cosines, weights, lengths):
    """Cosines and weights of the first query whose keys the two rank differently."""
    query = int((cosines.argmax(-1) != weights[0].argmax(-1)).nonzero()[0])
    order = cosines[query].argsort(descending=True)
    figure, (left, right) = _panels(5.6, 2.2, 2)
    places = np.arange(1, len(order) + 1)
    left.bar(places, cosines[query][order], color=GREY, edgecolor="black", linewidth=0.6)
    left.axhline(0, color="black", linewidth=0.6)
    left.set(title="cosine similarity", xlabel="key, by falling cosine", xticks=places)
    for w, length, line in zip(weights, lengths, ("o-", "s--", "^:")):
        right.plot(places, w[query][order], line, color=BLUE, label=f"query × {length}",
                   markerfacecolor="white")
    right.set(title="attention weight", xlabel="key, by falling cosine", xticks=places, ylim=(0, 1))
    right.legend()
    return figure


@plt.rc_context(STYLE)
def influence_figure(both_sides, left_only, place):
    """Change of each output after an exchange of the token at index `place`."""
    figure, ax = _panels(4.6, 2.1)
    places = np.arange(1, len(both_sides) + 1)
    ax.bar(places - 0.2, both_sides, 0.38, color=GREY, edgecolor="black", linewidth=0.6,
           label="encoder: sees both sides")
    ax.bar(places + 0.2, left_only, 0.38, color="white", edgecolor=BLUE, linewidth=0.8,
           hatch="////", label="decoder: sees what came before")
    ax.axvline(place + 1, color="black", linestyle=":", linewidth=0.8, zorder=0)
    ax.set(xlabel=f"output at token (token {place + 1} was exchanged)", ylabel="change",
           xticks=places, ylim=(0, 1.35 * max(both_sides.max(), left_only.max())))
    ax.legend(loc="upper left", ncols=2)
    return figure


@plt.rc_context(STYLE)
def mask_figure(matrices, words):
    """Attention matrices [T, T] by title; what the mask forbids is crossed out."""
    figure, axes = _panels(5.6, 2.7, len(matrices), sharey=True)
    for ax, (title, weights) in zip(axes, matrices.items()):
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        for y, x in (weights == 0).nonzero().tolist():
            ax.plot(x, y, "x", color="#808080", markersize=5)
        ticks = range(len(words))
        ax.set(title=title, xlabel="looked at", xticks=ticks, yticks=ticks, yticklabels=words)
        ax.set_xticklabels(words, rotation=45, ha="right", rotation_mode="anchor")
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel("looks")
    return figure


@plt.rc_context(STYLE)
def clipping_figure(norms):
    """Gradient norm at each step for some gains, before and after clipping."""
    figure, ax = _panels(5.2, 2.5)
    for (gain, (before, after)), colour in zip(norms.items(), (BLUE, "black", RED)):
        steps = np.arange(1, len(before) + 1)
        ax.semilogy(steps, before, color=colour, linewidth=2.4, alpha=0.4)
        ax.semilogy(steps, after, color=colour, linestyle="--")
        ax.annotate(f"gain {gain}", (1, before[0]), (-4, 0), textcoords="offset points",
                    ha="right", va="center", color=colour)
    ax.plot([], [], color="grey", linewidth=2.4, alpha=0.4, label="unclipped")
    ax.plot([], [], color="grey", linestyle="--", label="clipped")
    ax.legend(loc="upper right")
    ax.set(xlabel="step (the loss stands after the last)", ylabel="gradient norm",
           xlim=(-0.16 * len(before), len(before) + 2))
    return figure


@plt.rc_context(STYLE)
def embedding_figure(readers, corpus):
    """Histograms of the readers' embeddings, negative bars hatched, with the outermost words."""
    figure, axes = _panels(5.8, 2.3, len(readers), sharey=True)
    for ax, (name, (model, caveat)) in zip(axes, readers.items()):
        values = embedded_words(model)
        reach = np.abs(values).max()
        bars = ax.hist(values, np.linspace(-reach, reach, 41), edgecolor="black", linewidth=0.4)[2]
        for bar in bars:
            below = bar.get_x() < -1e-9
            bar.set(facecolor="white" if below else GREY, hatch="/////" if below else "")
        ax.set(title=f"{name}{', untrained' if caveat else ''}", xlabel="value of a word")
        for words, x, side in zip(extremes(values, corpus), (0.02, 0.98), ("left", "right")):
            ax.text(x, 0.97, "\n".join(words), ha=side, va="top", style="italic", parse_math=False,
                    transform=ax.transAxes)
    axes[0].set_ylabel("words")
    return figure


@plt.rc_context(STYLE)
def gate_figure(found):
    """Sums of the two weights in the LSTM, and where those of the GRU all lie."""
    figure, ax = _panels(4.6, 2.1)
    sums = (found["LSTM"].keep + found["LSTM"].take).flatten().numpy()
    ax.hist(sums, np.linspace(0, 2, 81), color=GREY, edgecolor="black", linewidth=0.4,
            weights=np.full(len(sums), 1 / len(sums)))
    ax.axvline(1, color=BLUE, linestyle="--")
    ax.text(0.98, 0.95, "GRU: all at 1", color=BLUE, ha="right", va="top", rotation=90,
            transform=ax.get_xaxis_transform())
    ax.set(xlabel="forget gate + input gate of the LSTM", ylabel="share of sums", xlim=(0, 2))
    return figure
