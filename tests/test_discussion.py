"""The sentences follow the trials: change a result and the text that tells it changes."""

import re
from types import SimpleNamespace

import pytest
from made import results

from labrnn.lab import Results
from labrnn.parts import (
    Bidirectional,
    Compound,
    Depth,
    EmbeddingSize,
    Gru,
    GruOptimizers,
    Lstm,
    LstmOptimizers,
    Setting,
    Width,
)
from labrnn.results import discussion
from labrnn.results.comparison import (
    Comparison,
    against,
    by_validation,
    equal,
    results_table,
    successful,
    trend,
)
from labrnn.results.prose import by_verdict, names, number, room
from labrnn.results.statistics import Estimate

SEEDS = [1, 2, 3]
FULL = {"train_reviews": 0, "max_tokens": 256, "batch_size": 96}


def optimizers(adagrad=0.82, adam=0.87, rmsprop=0.87, sgd=0.5, part=LstmOptimizers, **fields):
    accuracies = {"Adagrad": adagrad, "Adam": adam, "RMSprop": rmsprop, "SGD": sgd}
    return results(part(**FULL | fields), accuracies)


def widths(*accuracies, seeds=SEEDS, values=(20, 100, 200)):
    part = Width(widths=list(values), seeds=seeds, **FULL)
    return results(part, {s.name: a for s, a in zip(part.settings(), accuracies, strict=True)})


# Within noise, or a difference


def test_settings_that_differ_in_their_seeds_only_are_within_noise():
    text = discussion.width(widths(0.87, 0.87, 0.87))
    assert "20 and 200 units are within noise of 100 units" in text
    assert not re.search("better|worse", text)


def test_a_real_difference_is_named():
    text = discussion.width(widths(0.80, 0.87, 0.92))
    assert re.search(r"20 units are worse than 100 units, by [67]\.\d points", text)
    assert re.search(r"200 units are better than 100 units, by [45]\.\d points", text)
    assert "within noise" not in text


def test_one_seed_tells_models_apart_and_not_settings():
    text = discussion.width(widths(0.80, 0.87, 0.87, seeds=[5]))
    assert "With this seed 20 units end below 100 units" in text
    assert "tells models apart and leaves the settings undecided" in text
    assert not re.search("better|worse", text)


def test_what_the_correction_takes_back_is_not_called_noise():
    seen = Comparison(
        Setting("20 units", None), Setting("100 units", None), estimate(-0.02, -0.01), 0.14
    )
    assert seen.verdict == "not clear"
    text = by_verdict([seen])
    assert text == (
        "20 units differ from 100 units by −2.0 points (−3.0 to −1.0, p = 0.140); corrected for the "
        "number of comparisons that is not clear."
    )
    assert room([seen]) == ""
    quiet = Comparison(seen.first, seen.second, estimate(-0.005, 0.005), 1.0)
    alone = Comparison(seen.first, seen.second, estimate(0.0, 0.001, seeds=1), 1.0)
    assert "no room for a whole point" not in room([quiet, alone])
    wide = Comparison(seen.first, seen.second, estimate(-0.1, 0.4), 1.0)
    assert room([wide]) == "One interval reaches 60 points: it says next to nothing."


def estimate(mean, high, seeds=3):
    return Estimate(mean, 2 * mean - high, high, seeds, 4000, 0.01)


def test_a_small_difference_needs_all_seeds():
    """1.5 points: three seeds see it, where one seed leaves the settings undecided."""
    assert "worse than" in discussion.width(widths(0.85, 0.87, 0.87))
    assert "undecided" in discussion.width(widths(0.84, 0.87, 0.87, seeds=[5]))


def test_noise_is_not_called_equality():
    """On few reviews the interval is wide, and the text says what it leaves room for."""
    part = Width(widths=[20, 100], seeds=SEEDS, **FULL)
    text = discussion.width(results(part, {"20 units": 0.87, "100 units": 0.87}, reviews=300))
    assert "Within noise is not equal" in text
    many = results(part, {"20 units": 0.87, "100 units": 0.87}, reviews=40_000)
    assert "no room for a whole point" in discussion.width(many)
    assert equal(against(many, many["100 units"])) is True


# Lab 1 f and h


@pytest.mark.parametrize(("part", "cell"), [(Lstm, "LSTM"), (Gru, "GRU")])
def test_a_loss_that_stays_at_ln_2(part, cell):
    text = discussion.sgd(results(part(**FULL), {cell: 0.5}))
    assert text.startswith("No. The training loss is 0.6930 after the first epoch")
    assert "**Confirmed** here: the one training stayed at chance: 0.5" in text
    assert "An explanation, not a finding" in text


def test_a_loss_that_falls():
    text = discussion.sgd(results(Lstm(**FULL), {"LSTM": 0.8}))
    assert text.startswith("Yes. It falls in every epoch, from 0.600 to 0.120")
    assert "**Not confirmed**" in text
    assert "An explanation" not in text


def test_seeds_that_do_not_agree():
    text = discussion.sgd(results(Lstm(seeds=SEEDS, **FULL), {"LSTM": [0.5, 0.8, 0.5]}))
    assert "**Undecided** here: two of three trainings" in text
    assert "Of LSTM, one of three seeds left chance" in text


# Lab 2 a and b


def test_the_best_optimiser_is_the_one_with_the_best_results():
    text = discussion.optimizers(optimizers(adam=0.90, seeds=SEEDS))
    assert "put Adam first" in text
    assert "So Adam is the best of those that were run" in text
    assert "**Not confirmed**" in text
    text = discussion.optimizers(optimizers(rmsprop=0.90, seeds=SEEDS))
    assert "So RMSprop is the best" in text
    assert "**Confirmed**" in text


def test_optimisers_that_cannot_be_told_apart():
    text = discussion.optimizers(optimizers(seeds=SEEDS))
    assert re.search("which is best is open between (Adam and RMSprop|RMSprop and Adam)", text)
    assert "**Undecided**" in text


def test_what_did_not_train_is_named():
    assert "SGD did not train" in discussion.optimizers(optimizers())
    assert "SGD did not train" not in discussion.optimizers(optimizers(sgd=0.8))
    assert "Adagrad hardly trained" in discussion.optimizers(optimizers(adagrad=0.53))
    memory = discussion.optimizers(optimizers(adagrad=0.65))
    assert re.search(r"Adagrad had 80 % of the training reviews right .* accuracy of 0\.6", memory)


def test_the_pace_is_that_of_the_trials():
    text = discussion.optimizers(optimizers())
    assert "in epoch 1 by Adam and RMSprop and not at all by Adagrad and SGD" in text
    slow = results(LstmOptimizers(**FULL), {"Adam": 0.87, "RMSprop": 0.87}, learns_by=4)
    assert "reached in epoch 4 by Adam and RMSprop" in discussion.optimizers(slow)


def cells(gru, lstm, **fields):
    part = GruOptimizers(**FULL | fields)
    return results(part, lambda config: gru if config.cell == "gru" else lstm)


def test_a_cell_that_trains_where_the_other_does_not_is_told():
    def accuracy(config):
        return 0.5 if config.optim == "sgd" and config.cell == "lstm" else 0.87

    text = discussion.cells(results(GruOptimizers(seeds=SEEDS, **FULL), accuracy))
    assert re.search(r"the GRU is better under SGD \(\+3[67]\.\d points", text)


def test_a_training_that_went_badly_is_told():
    found = results(Bidirectional(seeds=SEEDS, **FULL), lambda config: 0.87)
    bad = found.settings[1]
    for trial in found.trials(bad).values():
        trial.history[-1]["train_accuracy"] = 0.75
    text = discussion.bidirectional(found)
    assert "The one-layer LSTM both ways had 75 % of the training reviews right" in text
    assert text.count("the training went badly") == 1
    for trial in found.trials(found.settings[2]).values():
        trial.history[-1]["train_accuracy"] = 0.7
    text = discussion.bidirectional(found)
    assert "LSTM both ways and the small LSTM both ways had 75 and 70 % of the training" in text
    assert text.count("these trainings went badly") == 1
    some = results(Bidirectional(seeds=SEEDS, **FULL), {s.name: 0.87 for s in found.settings})
    lucky = results(Bidirectional(seeds=SEEDS, **FULL), {bad.name: [0.5, 0.87, 0.87]})
    some.outcome.trials |= lucky.outcome.trials
    text = discussion.bidirectional(some)
    assert "Of the one-layer LSTM both ways, two of three seeds left chance" in text
    assert "the training went badly" not in text


def test_the_cells_are_compared():
    assert "the GRU is better under Adagrad" in discussion.cells(cells(0.90, 0.85, seeds=SEEDS))
    assert "the GRU is worse under Adagrad" in discussion.cells(cells(0.85, 0.90, seeds=SEEDS))
    text = discussion.cells(cells(0.87, 0.87, seeds=SEEDS))
    assert re.search("within noise of each other under Adagrad \\(.*\\), Adam \\(.* and SGD", text)
    assert "four blocks" not in text
    assert "in the ratio 0.75, three blocks of weights against four" in text


def test_the_faster_cell_is_the_one_that_is_there_first():
    assert "**Confirmed**" in discussion.cells(cells(0.87, 0.82, seeds=SEEDS))
    assert "**Not confirmed**" in discussion.cells(cells(0.82, 0.87, seeds=SEEDS))
    assert "**Undecided**" in discussion.cells(cells(0.87, 0.87, seeds=SEEDS))
    one = discussion.cells(cells(0.87, 0.82))
    assert "**Undecided**" in one
    assert "Adagrad 1 against never" in one


# Lab 2 c to e


def depths(*accuracies, seeds=SEEDS, **options):
    part = Depth(seeds=seeds, **FULL)
    return results(
        part, {s.name: a for s, a in zip(part.settings(), accuracies, strict=True)}, **options
    )


def test_depth():
    text = discussion.depth(depths(0.87, 0.87, 0.5, 0.5, seeds=[1, 2, 3, 4, 5], reviews=40_000))
    assert "Three and four layers did not train" in text
    assert "two layers equal one. **Confirmed** here: 2 layers − 1 layer" in text
    assert "three layers hardly train and four do not. **Confirmed** here" in text
    text = discussion.depth(depths(0.87, 0.87, 0.87, 0.5))
    assert "**Not confirmed** here: test accuracy 3 layers 0.8" in text
    text = discussion.depth(depths(0.87, 0.5, 0.5, 0.5, seeds=[5]))
    assert "two layers equal one. **Undecided** here: 2 layers − 1 layer −3" in text


def test_a_seed_that_fails_is_told():
    text = discussion.depth(depths(0.87, [0.87, 0.5, 0.87], 0.5, 0.5))
    assert "Of two layers, two of three seeds left chance" in text


def test_width():
    text = discussion.width(widths(0.87, 0.58, values=(100, 319)))
    assert "**Confirmed** here: test accuracy 319 units 0.5" in text
    assert "**Not confirmed** here: test accuracy 319 units 0.8" in discussion.width(
        widths(0.87, 0.87, values=(100, 319))
    )
    assert "319 units were not run" in discussion.width(widths(0.87, 0.87, 0.87))


def embeddings(*accuracies):
    part = EmbeddingSize(sizes=[1, 4, 16, 64], seeds=SEEDS, **FULL)
    return results(
        part, {s.name: a for s, a in zip(part.settings(), accuracies, strict=True)}, reviews=20_000
    )


def test_embedding():
    level = discussion.embedding(embeddings(0.87, 0.87, 0.87, 0.87))
    assert "A slope of 0 would fit as well" in level
    assert "**Undecided**" in level  # 2 to 256 dimensions are not all there
    rising = discussion.embedding(embeddings(0.80, 0.83, 0.86, 0.89))
    assert "That slope is more than chance" in rising
    assert re.search(r"doubling the embedding goes with \+1\.\d\d points", rising)


def test_a_base_that_did_not_train_is_no_measure():
    text = discussion.width(widths(0.87, 0.5, 0.87))
    assert "100 units, the lab's own value, stayed at chance" in text


# Lab 2 f and g


def grid(accuracy_of, **fields):
    return results(Compound(**FULL | fields), accuracy_of)


def compound_text(found):
    return discussion.compound(found, studies(found))


def studies(found):
    return {n: Results(part, found.outcome) for n, part in found.part.studies().items()}


def test_compound_counts_what_did_not_train():
    found = grid(lambda c: 0.5 if c.n_layers == 4 else 0.86)
    text = compound_text(found)
    assert "twelve stayed at chance: twelve of twelve with four layers" in text
    assert "the 36 others" in text


def test_compound_chooses_on_validation():
    found = grid(
        lambda c: 0.90 if (c.hidden_dim, c.embedding_dim, c.n_layers) == (20, 16, 2) else 0.84
    )
    text = compound_text(found)
    assert "The validation reviews choose E16 H20 L2" in text
    assert "which is the highest there as well" in text
    assert "more in the list than luck" in text


def test_compound_of_equal_settings_is_luck():
    text = compound_text(grid(lambda c: 0.86))
    assert "the best of 48 equal ones looks about" in text
    assert "are not clearly different from it" in text


def _compound_is_better(config):
    return 0.82 if config.hidden_dim == 100 or config.embedding_dim == 1 else 0.90


def test_compound_against_single_dimensions():
    ahead = compound_text(grid(_compound_is_better))
    level = compound_text(grid(lambda c: 0.86))
    assert "points: all clearly above 0." in ahead
    assert "points: all not clearly different." in level


def both(gain=0.0, readout=0.0, seeds=SEEDS):
    def accuracy(config):
        if not config.bidirectional:
            return 0.86
        return 0.86 + gain - (readout if config.readout == "last_step" else 0)

    return results(Bidirectional(seeds=seeds, **FULL), accuracy)


def test_bidirectional():
    text = discussion.bidirectional(both(gain=0.04))
    assert re.search(
        "The two-layer LSTM both ways, .* are better than their one-way partners", text
    )
    assert "**Not confirmed**" in text
    assert "is better than" not in discussion.bidirectional(both())


def test_readouts():
    text = discussion.bidirectional(both(readout=0.06))
    assert re.search(r"by \+[567]\.\d to \+[567]\.\d points, a clear gain for the two-layer", text)
    assert "a clear loss for the two-layer" in discussion.bidirectional(both(readout=-0.06))
    assert "none of it clear" in discussion.bidirectional(both())
    alone = SimpleNamespace(
        first=None, clear=False, difference=SimpleNamespace(mean=0.001, seeds=1)
    )
    assert "by +0.1 points, which is not clear. That is in one" in discussion._readouts([alone])


def test_settings_with_one_seed_among_others_are_told_apart():
    def small_has_all(config):
        return 0.86 if config.hidden_dim == 20 or config.seed == SEEDS[0] else None

    text = discussion.bidirectional(results(Bidirectional(seeds=SEEDS, **FULL), small_has_all))
    assert "one to three seeds each" in text
    assert "where n is 1 for the latter only" in text
    assert "in four pairs of settings, three of them with one seed, that differ" in text


def test_seconds_come_from_trials_that_name_their_clock():
    found = widths(0.87, 0.87, 0.87)
    assert "An epoch takes 2.0 s with 20 units, 2.0 s with 200 units." in discussion.width(found)
    for trial in found.trials(found["200 units"]).values():
        del trial.environment["clock"]
    assert "epoch takes" not in discussion.width(found)
    assert list(results_table(found)["s/epoch"]) == ["2.0", "2.0", "–"]


# What every text says of its footing


def test_quick_is_called_reduced():
    assert "reduced setting, 500 training reviews" in discussion.width(
        results(Width(train_reviews=500), {"100 units": 0.8, "10 units": 0.8})
    )
    assert "reduced" not in discussion.width(widths(0.87, 0.87, 0.87))


def test_what_is_missing_is_named():
    text = discussion.width(widths(0.87, 0.87, None))
    assert "200 units were not run" in text
    few = compound_text(grid(lambda c: 0.86 if c.n_layers == 1 else None))
    assert "36 of 48 settings were not run" in few
    assert "None of this part's settings was run" in discussion.width(widths(None, None, None))


def test_seeds_and_reviews_are_told():
    text = discussion.width(widths(0.87, 0.87, 0.87))
    assert re.search("three settings.*three seeds each.*4,000", text, re.IGNORECASE)
    assert "corrected by Holm's method for two comparisons" in text
    assert "McNemar" in discussion.width(widths(0.87, 0.87, 0.87, seeds=[5]))


@pytest.mark.parametrize(
    "name",
    ["sgd", "optimizers", "cells", "depth", "width", "embedding", "compound", "bidirectional"],
)
def test_nothing_run_is_no_accident(name):
    parts = {
        "sgd": Lstm,
        "optimizers": LstmOptimizers,
        "cells": GruOptimizers,
        "depth": Depth,
        "width": Width,
        "embedding": EmbeddingSize,
        "compound": Compound,
        "bidirectional": Bidirectional,
    }
    empty = results(parts[name](**FULL), {})
    more = [studies(empty)] if name == "compound" else []
    assert "not" in getattr(discussion, name)(empty, *more)


# What the texts are made of


def test_settings_in_words():
    found = depths(0.87, 0.87, 0.5, 0.5)
    assert names(found.settings) == "one, two, three and four layers"
    assert names(found.settings[:1]) == "one layer"
    assert names(optimizers().settings[:2]) == "Adagrad and Adam"
    assert names(both().settings[:1]) == "the two-layer LSTM both ways"
    assert [number(n) for n in (0, 12, 13, 1000)] == ["no", "twelve", "13", "1,000"]


def test_the_reference_is_not_chosen_on_the_test_reviews():
    found = optimizers(adam=0.87, rmsprop=0.87)
    trial = found.trial(found["Adam"])
    trial.predictions["best"] = 0.9  # right on every positive review: one half
    assert by_validation(found)[0].name in ("Adam", "RMSprop")
    trial.history[2]["valid_accuracy"] = 0.95
    assert by_validation(found)[0].name == "Adam"


def test_trained_takes_loss_and_accuracy():
    found = widths(0.87, 0.87, 0.5)
    assert [s.name for s in successful(found)] == ["20 units", "100 units"]
    for trial in found.trials(found["20 units"]).values():
        trial.predictions["best"] = 0.9
    assert [s.name for s in successful(found)] == ["100 units"]


def test_a_line_needs_three_sizes():
    size = lambda setting: setting.config.hidden_dim  # noqa: E731
    two, three = widths(0.87, 0.87, None), widths(0.87, 0.87, 0.87)
    assert trend(two, two.settings, size) is None
    assert trend(three, three.settings, size).seeds == 9


def test_tables_show_what_was_not_run():
    found = widths(0.87, 0.87, None)
    table = results_table(found, against(found, found["100 units"]))
    assert list(table.setting) == ["20 units", "100 units", "200 units (not run)"]
    assert list(table["Δ points"])[1:] == ["–", "–"]
    assert table.n.tolist() == ["3", "3", "–"]
    assert re.fullmatch(r"0\.8\d\d \[0\.8\d\d, 0\.8\d\d\]", table["test accuracy"][0])
