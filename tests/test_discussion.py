"""Discussions follow the runs: the text of every branch of the templates."""

import re
from dataclasses import replace

import pytest
from fake_results import results

from labrnn.parts import (
    Bidirectional,
    Compound,
    Depth,
    EmbeddingSize,
    Gru,
    GruOptimizers,
    Lstm,
    LstmOptimizers,
    Pair,
    Setting,
    Width,
)
from labrnn.results import comparison, discussion, prose
from labrnn.results.comparison import Comparison, compare
from labrnn.results.prose import comparisons, points
from labrnn.results.statistics import Estimate
from labrnn.results.table import Results, Runs
from labrnn.results.tables import cells_table, ranking, ranking_by_ratio, rates_table, results_table

SEEDS = [1, 2, 3, 4, 5]
FULL = {"train_reviews": 0, "max_tokens": 256, "batch_size": 96}


def optimizers(adagrad=0.82, adam=0.87, rmsprop=0.87, sgd=0.5, part=LstmOptimizers, **fields):
    accuracies = {"Adagrad": adagrad, "Adam": adam, "RMSprop": rmsprop, "SGD": sgd}
    return results(part(**FULL | {"seeds": SEEDS} | fields), accuracies)


def widths(*accuracies, seeds=SEEDS, values=(20, 100, 200), **options):
    part = Width(widths=list(values), seeds=seeds, **FULL)
    named = {s.name: a for s, a in zip(part.settings(), accuracies, strict=True)}
    return results(part, named, **options)


# How a comparison is reported


def compared(name, mean, error, p=None, many=False, n=10, equivalent=1.0):
    d = Estimate(mean, error, 50, n, 10_000)
    sides = Setting(name, None, many), Setting("1 layer", None)
    p = d.p if p is None else p
    return Comparison(*sides, difference=d, p=p, p_equivalent=equivalent)


def test_sentence_for_each_outcome_of_a_comparison():
    assert comparisons([compared("2 layers", -0.05, 0.01, many=True)]) == (
        "2 layers are significantly less accurate than 1 layer (−5.0 points [−7.0, −3.0], p < 0.001)."
    )
    assert comparisons([compared("Adam", 0.03, 0.01)]) == (
        "Adam is significantly more accurate than 1 layer (+3.0 points [1.0, 5.0], p = 0.004)."
    )
    assert comparisons([compared("Adam", 0.001, 0.002, equivalent=0.001)]) == (
        "Adam is equivalent to 1 layer (+0.1 points [−0.3, 0.5]) within 1 point."
    )
    assert comparisons([compared("Adam", 0.003, 0.006)]) == (
        "Adam does not differ significantly from 1 layer (+0.3 points [−0.9, 1.5], p = 0.62); "
        "the smallest detectable difference is 1.7 points."
    )
    assert comparisons([compared("Adam", 0.004, 0.001, equivalent=0.001)]) == (
        "Adam is significantly more accurate than 1 layer (+0.4 points [0.2, 0.6], p < 0.001), "
        "though by less than 1 point."
    )
    assert comparisons([compared("Adam", -0.1, float("nan"), p=float("nan"))]) == (
        "Adam is not tested against 1 layer (−10.0 points): the less accurate side is a single run."
    )


def test_comparisons_are_grouped_by_outcome():
    two = [compared("Adam", -0.05, 0.01), compared("SGD", -0.09, 0.01)]
    assert comparisons(two).startswith("Adam (−5.0 points [−7.0, −3.0], p < 0.001) and SGD (−9.0 ")
    assert "are significantly less accurate than 1 layer." in comparisons(two)
    many = [compared(f"{k} units", 0.001 * k, 0.01 + 0.001 * k) for k in range(2, 8)]
    assert comparisons(many, "100 units") == (
        "2 units, 3 units, 4 units, 5 units, 6 units and 7 units (+0.2 to +0.7 points) do not differ "
        "significantly from 100 units; the smallest detectable differences are 3.4 to 4.9 points."
    )
    mixed = comparisons([*two, *many])
    assert mixed.index("less accurate") < mixed.index("not differ significantly")
    assert comparisons([]) == ""


def test_comparisons_without_figures_and_with_one_setting_first():
    three = [compared("Adam", 0.003, 0.006), *(compared(f"{k} layers", 0.05, 0.01) for k in (2, 3))]
    assert comparisons(three, figures=False) == (
        "2 layers and 3 layers are significantly more accurate than 1 layer. Adam does not differ "
        "significantly from 1 layer; the smallest detectable difference is 1.7 points."
    )
    turned = [replace(c, first=c.second, second=c.first) for c in three[1:]]
    assert comparisons(turned, one="the baseline") == (
        "The baseline is significantly more accurate than 2 layers (+5.0 points [3.0, 7.0], p < 0.001) "
        "and 3 layers (+5.0 points [3.0, 7.0], p < 0.001)."
    )


def test_number_formats_follow_the_language_guide():
    assert [points(x) for x in (0.009, -0.009, 0.0, -0.0001)] == ["+0.9", "−0.9", "0.0", "0.0"]
    written = [prose.p_value(p) for p in (0.0001, 0.0042, 0.03, 0.5, 0.999)]
    assert written == ["p < 0.001", "p = 0.004", "p = 0.03", "p = 0.50", "p > 0.99"]
    assert prose.interval(Estimate(0.0001, 0.0004, 50, 3, 100)) == "[−0.1, 0.1]"
    assert prose.interval(Estimate(0.0, 0.0001, 50, 3, 100)) == "[0.0, 0.0]"
    assert prose.interval(Estimate(0.78, 0.04, 50, 3, 100)) == "[70.0, 86.0]"
    wide = Estimate(0.78, 0.06, 50, 3, 100)  # 12 points to either side are uninformative
    assert prose.interval(wide) == ""
    assert prose.accuracy(wide) == "78.0 % (n = 3)"
    assert prose.difference(wide, 0.2) == "+78.0 points, p = 0.20"
    assert [prose.number(n) for n in (0, 12, 13, 1000)] == ["no", "twelve", "13", "1,000"]
    assert prose.listing(["a"]) == "a"
    assert prose.listing("abc") == "a, b and c"
    assert prose.listing(["a, b", "c", "d"]) == "a, b; c and d"
    assert prose.capital("*NB-SVM*") == "*NB-SVM*"
    assert prose.capital("*majority*") == "*Majority*"


# Lab 1 f and h


@pytest.mark.parametrize(("part", "cell"), [(Lstm, "LSTM"), (Gru, "GRU")])
@pytest.mark.parametrize("seeds", [[5], SEEDS])
def test_sgd_loss_stays_at_ln_2(part, cell, seeds):
    text = discussion.sgd(results(part(seeds=seeds, **FULL), {cell: 0.5}))
    mean = "its mean" if len(seeds) > 1 else "it"
    assert text.startswith(
        f"The training loss of the {cell} hardly changes under SGD: {mean} is 0.6930 after the first"
    )
    runs = "0 of 5 runs trained" if len(seeds) > 1 else "the single run failed"
    assert f"Within five epochs, {runs}" in text
    assert ("**confirmed**" if len(seeds) > 1 else "**inconclusive**") in text
    assert "**Why does it not train?**" in text
    assert text.count("We did not test this explanation.") == 1


@pytest.mark.parametrize(
    ("level", "says"),
    [
        (
            0.8,
            "Significantly more runs train with a learning rate of 1 than with the lab's settings "
            "(Fisher's exact test with Holm's correction, p = 0.008), so",
        ),
        (0.5, "None of these changes lets significantly more runs train (Fisher's exact test with"),
    ],
)
def test_changes_that_let_sgd_train_are_tested(level, says):
    accuracies = {"LSTM": 0.5, "a learning rate of 1": level, "a forget bias of 1": 0.5}
    found = results(Lstm(seeds=SEEDS, rates=[0.1, 1.0], **FULL), accuracies)
    text = discussion.sgd(found)
    assert says in text
    assert (
        "5 of 5 runs trained with a learning rate of 1 (95 % CI [48 %, 100 %]); their test" in text
    ) == (level == 0.8)
    assert "0 of 5 runs trained with a forget bias of 1 (95 %" in text
    assert ("so few runs cannot exclude an effect" in text) == (level == 0.8)
    assert "a learning rate of 0.1" not in text  # it was not run
    assert [s.name for s in Gru(rates=[1.0]).probes()] == ["a learning rate of 1"]


def test_sgd_loss_falls():
    text = discussion.sgd(results(Lstm(seeds=SEEDS, **FULL), {"LSTM": 0.8}))
    assert text.startswith(
        "The training loss of the LSTM falls steadily under SGD, from 0.600 to 0.120."
    )
    assert "**refuted** (LSTM: 5 of 5 runs trained; more than half: p = 0.03)" in text
    assert "Why does it not train" not in text


def test_sgd_seeds_disagree():
    text = discussion.sgd(results(Lstm(seeds=SEEDS, **FULL), {"LSTM": [0.5, 0.8, 0.5, 0.8, 0.5]}))
    assert text.startswith(
        "The training loss of the LSTM does not fall steadily under SGD: its mean"
    )
    assert "2 of 5 runs trained (95 % CI [5 %, 85 %]), with a test accuracy of 80.0 %" in text
    assert "**inconclusive**" in text


# Lab 2 a and b


def test_optimisers_are_compared_with_the_best_on_validation():
    text = discussion.optimizers(optimizers(adam=0.90))
    assert text.startswith(
        "Adam has the highest validation accuracy of the optimisers of the LSTM, and a test accuracy of 9"
    )
    assert re.search(
        r"Adagrad \(−[78].*\) and RMSprop \(−\d.*\) are significantly less accurate", text
    )
    assert (
        "0 of 5 runs trained with SGD (95 % CI [0 %, 52 %]): the training loss stayed at ln 2"
        in text
    )
    assert (
        "RMSprop is at least as good as the other optimisers of the LSTM is **refuted** (RMSprop − Adam: −"
        in text
    )


def test_equivalent_optimisers_are_reported():
    text = discussion.optimizers(optimizers(seeds=list(range(10))))
    assert re.search(
        r"(Adam|RMSprop) is equivalent to (RMSprop|Adam) \(.*\) within 1 point\.", text
    )


def test_untrained_settings_are_reported():
    assert " 0 of 5 " not in discussion.optimizers(optimizers(sgd=0.8))
    weak = optimizers(adagrad=0.55)
    assert (
        "0 of 5 runs trained with Adagrad (95 % CI [0 %, 52 %]): the training loss fell, but no"
        in (discussion.optimizers(weak))
    )
    nothing = optimizers(0.5, 0.5, 0.5, 0.5)
    text = discussion.optimizers(nothing)
    assert text.startswith("0 of 5 runs trained with Adagrad")
    assert "; 0 of 5 runs trained with SGD (95 % CI [0 %, 52 %]): the training loss stayed" in text
    single = discussion.optimizers(optimizers(0.5, 0.5, 0.5, 0.5, seeds=[5]))
    assert single.startswith("The single runs of Adagrad, Adam, RMSprop and SGD failed: the")


def test_learning_rates_are_chosen_on_validation():
    part = LstmOptimizers(seeds=SEEDS, rates=[0.001, 0.01], lr=0.001, **FULL)
    best = {("adam", 0.01): 0.90, ("rmsprop", 0.001): 0.87}

    found = results(part, lambda c: best.get((c.optim, c.lr), 0.5 if c.optim == "sgd" else 0.85))
    text = discussion.optimizers(found)
    assert "chosen on validation from 0.001 and 0.01, Adam at 0.01 reaches" in text
    assert "RMSprop at 0.001" in text
    lines = rates_table(found, [s for g in part.groups().values() for s in g])
    assert lines["chosen"].tolist() == ["", "yes", "yes", ""]
    assert len(found.rows(part.groups()["Adam"][0])) == 5  # it has the learning rate of the part
    assert len(part.seeds_of(part.groups()["Adam"][1])) == 3
    assert "chosen on validation" not in discussion.optimizers(optimizers())


def cells(gru, lstm, **fields):
    part = GruOptimizers(**FULL | {"seeds": SEEDS} | fields)
    return results(part, lambda c: gru if c.cell == "gru" else lstm)


def test_the_cells_are_compared():
    better = discussion.cells(cells(0.90, 0.85))
    assert "The GRU with Adagrad, the GRU with Adam" in better
    assert "and the GRU with SGD are significantly more accurate than the LSTM with the" in better
    assert "less accurate than the LSTM" in discussion.cells(cells(0.85, 0.90))
    assert "three blocks of weights instead of four" in better
    assert "an epoch of the GRU takes 1.00 times as much processor time as" in better
    assert "cannot be compared" in discussion.cells(results(GruOptimizers(**FULL), {}))
    table = cells_table(cells(0.90, 0.85), compare(cells(0.90, 0.85)))
    assert table["optimiser"].tolist() == ["Adagrad", "Adam", "RMSprop", "SGD"]
    assert set(table["result"]) == {"higher"}


# Lab 2 c to e


def test_depth():
    part = Depth(seeds=list(range(10)), **FULL)
    accuracies = {"1 layer": 0.87, "2 layers": [0.87] * 8 + [0.5] * 2, "3 layers": 0.5}
    text = discussion.depth(results(part, accuracies, reviews=10_000))
    assert text.startswith("With 1 layer, the test accuracy is 8")
    assert "8 of 10 runs trained with 2 layers (95 % CI [44 %, 97 %])." in text
    assert "0 of 10 runs trained with 3 layers (95 % CI [0 %, 31 %]): the training loss" in text
    assert "4 layers were not run" in text


def test_width_with_single_runs():
    text = discussion.width(widths(0.80, 0.87, 0.87, seeds=[5]))
    assert "are not tested against 100 units: the less accurate side is a single run" in text
    assert not re.search("significantly|equivalent|CI", text)


def test_width_with_several_runs():
    text = discussion.width(widths(0.80, 0.87, 0.92))
    assert "20 units are significantly less accurate than 100 units." in text
    assert "200 units are significantly more accurate than 100 units." in text
    assert "319" not in text


def test_untrained_reference_is_not_compared():
    text = discussion.width(widths(0.87, 0.5, 0.87))
    assert text.startswith("0 of 5 runs trained with 100 units")
    assert "accurate than 100 units" not in text


def test_embedding():
    part = EmbeddingSize(sizes=[1, 4, 16, 64], seeds=SEEDS, **FULL)
    text = discussion.embedding(results(part, {s.name: 0.87 for s in part.settings()}))
    assert text.startswith("With 1 dimension, the test accuracy is")
    assert "concludes" not in text  # not all sizes of the lab were run


def test_widely_spread_runs_are_reported():
    found = widths([0.86, 0.87, 0.76, 0.88, 0.78], 0.87, 0.87)
    assert (
        "The runs of 20 units differ much more than those of other settings, so their interval uses"
        in (discussion.width(found))
    )
    assert "much more than" not in discussion.width(widths(0.87, 0.87, 0.87))


# Lab 2 f and g


def grid(accuracy_of, **fields):
    return results(Compound(**FULL | {"seeds": SEEDS[:3]} | fields), accuracy_of, reviews=2000)


def test_compound_answers_its_three_questions():
    def fails(c):
        return c.n_layers == 4 and c.embedding_dim > 1 and c.hidden_dim > 10

    text = discussion.compound(grid(lambda c: 0.5 if fails(c) else 0.86))
    assert "Of the 48 combinations that we ran, 39 trained." in text
    assert "6 of 6 with 10 units and 9 of 18 with more units trained in every run; we did" in text
    assert "beats changing depth, width or embedding alone. The selected" in text
    assert (
        "differ from the selected one?** 38 other settings of the grid trained. 38 do not" in text
    )
    assert "E32 H20 L1 needs more than 100.0 % for a higher ratio than E8 H10 L1" in text
    assert "**Which is best for its size?** The Pareto front" in text


def test_single_runs_of_a_grid_are_not_compared():
    text = discussion.compound(grid(lambda c: 0.86 - 0.0001 * c.n_layers, seeds=[5]))
    assert "other settings of the grid trained. " in text
    assert "not differ significantly from E" not in text.partition("**Which settings")[2]
    assert re.search(
        r"[\w-]+ settings are not tested, since the less accurate side has a single run\.", text
    )


def test_compound_is_better_or_worse():
    def alone(c):
        return c.hidden_dim == 100 or c.embedding_dim == 1

    better = discussion.compound(grid(lambda c: 0.80 if alone(c) else 0.90))
    assert better.startswith("Compound scaling is significantly better than changing depth,")
    worse = discussion.compound(grid(lambda c: 0.90 if alone(c) else 0.80))
    assert worse.startswith("Compound scaling does not beat changing depth, width")


def test_compound_with_one_setting_run():
    found = grid(
        lambda c: 0.86 if (c.n_layers, c.hidden_dim, c.embedding_dim) == (1, 10, 8) else None
    )
    text = discussion.compound(found)
    assert "47 of 48 settings were not run." in text


def test_compound_with_two_settings_has_one_detectable_difference():
    run = [(1, 10, 8), (1, 20, 8)]
    found = grid(lambda c: 0.86 if (c.n_layers, c.hidden_dim, c.embedding_dim) in run else None)
    which = discussion.compound(found).partition("**Which settings")[2]
    assert re.search(r"The smallest detectable difference is [\d.]+ points\.", which)


def test_compound_names_settings_whose_runs_differ_too_much_for_a_comparison():
    def accuracies(c):
        differs = (c.n_layers, c.hidden_dim, c.embedding_dim) == (2, 20, 8)
        return [0.70, 0.88, 0.80] if differs else 0.86

    which = discussion.compound(grid(accuracies)).partition("**Which settings")[2]
    said = r"differences are [\d.]+ to [\d.]+ points, and more than 10 points for E8 H20 L2\."
    assert re.search(said, which)


def test_ranking_marks_the_pareto_front():
    found = grid(lambda c: 0.90 if c.hidden_dim == 10 else 0.86)
    table = ranking(found, found.able(), compare(found))
    assert len(table) == 48
    accuracies = [float(cell.split()[0]) for cell in table["test accuracy, %"]]
    assert accuracies == sorted(accuracies, reverse=True)
    sizes = table["parameters"].str.replace(",", "").astype(int)
    front = table[table["Pareto"] == "yes"]
    assert sizes[front.index].is_monotonic_decreasing
    assert sizes.min() in set(sizes[front.index])


def test_the_second_ranking_is_by_accuracy_per_parameter():
    found = grid(lambda c: 0.90 if c.hidden_dim == 10 else 0.86)
    table = ranking_by_ratio(found, found.able())
    ratios = [
        float(accuracy.split()[0]) / int(size.replace(",", "")) * 1000
        for accuracy, size in zip(table["test accuracy, %"], table["parameters"], strict=True)
    ]
    assert ratios == sorted(ratios, reverse=True)
    printed = table["% per 1,000 parameters"].astype(float)
    assert printed.tolist() == pytest.approx(ratios, rel=0.01)
    assert table["parameters"].tolist() != ranking(found, found.able())["parameters"].tolist()


def both(gain=0.0, readout=0.0, seeds=SEEDS):
    def accuracy(c):
        if not c.bidirectional:
            return 0.86
        return 0.86 + gain - (readout if c.readout == "last_step" else 0)

    return results(Bidirectional(seeds=seeds, **FULL), accuracy)


def test_bidirectional():
    text = discussion.bidirectional(both(gain=0.04))
    assert re.search(
        r"^The bidirectional two-layer LSTM, .* are significantly more accurate than", text
    )
    assert "more accurate than the unidirectional model with the same settings." in text
    assert "**refuted**" in text
    text = discussion.bidirectional(both())
    assert (
        " are equivalent to the unidirectional model with the same settings within 1 point." in text
    )
    assert "significantly more accurate" not in text
    text = discussion.bidirectional(both(readout=0.06))
    assert "more accurate than the same model read at the last time step." in text


# Notes


def test_quick_setting_is_called_reduced():
    part = Width(train_reviews=500, widths=[10, 100])
    assert "reduced setting: 500 training reviews" in discussion.width(
        results(part, {"100 units": 0.8, "10 units": 0.8})
    )
    assert "reduced" not in discussion.width(widths(0.87, 0.87, 0.87))


def test_missing_settings_are_named():
    assert "200 units were not run" in discussion.width(widths(0.87, 0.87, None))
    assert "None of this part's settings was run" in discussion.width(widths(None, None, None))


def test_text_without_any_run():
    nothing = "None of this part's settings was run, so there is nothing to discuss yet."
    for part in (Lstm, LstmOptimizers, Depth, Compound, Bidirectional):
        name = {Lstm: "sgd", LstmOptimizers: "optimizers"}.get(part, part.__name__.lower())
        assert getattr(discussion, name)(results(part(**FULL), {})) == nothing


def test_texts_contain_no_meaningless_numbers():
    """No part prints -0.0, p = 1.000, NaN or double spaces."""
    texts = [
        discussion.optimizers(optimizers()),
        discussion.cells(cells(0.87, 0.87)),
        discussion.width(widths(0.87, 0.87, 0.87)),
        discussion.width(widths(0.80, 0.87, None, seeds=[5])),
        discussion.bidirectional(both()),
        discussion.compound(grid(lambda c: 0.86)),
    ]
    for text in texts:
        assert not re.search(r"[-−]0\.0\b(?!\d)|p = 1|nan|None|\binf\b|  |\(\)| ,| \.", text), text


# Comparisons


def test_reference_is_chosen_on_validation_not_test_accuracy():
    found = optimizers(adam=0.872, rmsprop=0.87)
    adam = found["Adam"]
    trials = list(found.runs.trials.values())
    for trial in trials:
        trial.history[2]["valid_accuracy"] = 0.9 if trial.config.optim == "rmsprop" else 0.85
    again = Results(found.part, Runs(trials))
    assert again.by_validation()[0].name == "RMSprop"
    assert {c.second.name for c in compare(again)} == {"RMSprop"}
    assert again.accuracy(adam).mean > again.accuracy(again["RMSprop"]).mean - 0.01


def test_p_values_of_a_part_are_corrected_together():
    found = widths(0.865, 0.87, 0.875)
    alone = [found.difference(c.first, c.second).p for c in compare(found)]
    together = [c.p for c in compare(found)]
    assert sorted(together)[0] == pytest.approx(2 * min(alone))
    assert [c.first.name for c in compare(found)] == ["20 units", "200 units"]
    pairs = [(Pair(s, found["100 units"])) for s in found.settings[:1]]
    single = comparison.tested(found, pairs)
    assert single[0].p == pytest.approx(alone[0])


def test_tables_show_missing_and_untrained_settings():
    found = widths(0.87, [0.87, 0.5, 0.87, 0.5, 0.87], None)
    table = results_table(found, compare(found))
    assert table["setting"].tolist() == ["20 units", "100 units", "200 units"]
    assert table["parameters"].tolist()[2] == "not run"
    assert table["trained"].tolist() == ["5 of 5", "3 of 5", "–"]
    assert table["Δ points"].tolist()[1:] == ["–", "–"]
    assert re.fullmatch(r"8\d\.\d \[8\d\.\d, 8\d\.\d\]", table["test accuracy, %"][0])
    assert list(results_table(found)["s/epoch"]) == ["2", "2", "–"]


def test_seconds_come_only_from_runs_with_a_known_clock():
    found = widths(0.87, 0.87, 0.87)
    assert list(results_table(found)["s/epoch"]) == ["2", "2", "2"]
    for trial in found.runs.trials.values():
        if trial.config.hidden_dim == 200:
            del trial.environment["clock"]
    found = Results(found.part, Runs(found.runs.trials.values()))
    assert list(results_table(found)["s/epoch"]) == ["2", "2", "–"]


@pytest.mark.parametrize(
    ("accuracies", "without", "says"),
    [
        ({"1 layer": [0.87], "2 layers": [0.86]}, 2, "printed: single runs do not show"),
        (
            {"1 layer": 0.87, "2 layers": 0.86, "3 layers": [0.70, 0.75, 0.886]},
            1,
            "For 3 layers we print the range of the runs instead of a mean: ",
        ),
        ({"1 layer": 0.87, "2 layers": 0.86}, 0, ""),
    ],
)
def test_text_explains_missing_intervals(accuracies, without, says):
    found = results(Depth(depths=[1, 2, 3], seeds=list(range(5))), accuracies)
    text = discussion.training(found)
    assert says in text
    assert (text.count("interval is printed") + text.count("we print the range")) == bool(says)
    assert sum(not found.accuracy(s).known for s in found.able()) == without


# The share of runs that train, and what could have been detected


def test_falling_share_of_trained_runs_is_reported():
    shares = {1: [0.87] * 10, 2: [0.87] * 8 + [0.5] * 2, 3: [0.5] * 10}
    part = Depth(depths=[1, 2, 3], seeds=list(range(10)), **FULL)
    found = results(part, {s.name: shares[s.config.n_layers] for s in part.settings()})
    said = "The share of runs that train falls with the number of layers (permutation test"
    assert said in discussion.depth(found)
    even = results(part, {s.name: 0.87 for s in part.settings()})
    assert said not in discussion.depth(even)


def test_undetectable_differences_are_reported():
    part = Depth(depths=[1, 2, 3], seeds=list(range(3)), **FULL)
    one, two, three = (s.name for s in part.settings())
    wide = [0.70, 0.88, 0.80]
    text = discussion.depth(results(part, {one: 0.86, two: 0.865, three: wide}, spread=0.006))
    assert re.search(r"smallest detectable difference is [\d.]+ points, and more than 10", text)
