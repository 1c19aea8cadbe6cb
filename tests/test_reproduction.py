"""Published runs compared with ours: gaps, prediction intervals, meaning of agreement."""

import re
from dataclasses import replace

import numpy as np
import pytest
from fake_results import run

from labrnn.parts import Reproduction
from labrnn.published import VOCABULARY_SIZE, published
from labrnn.results import reproduction
from labrnn.results.figures import agreement
from labrnn.results.table import Results, Runs

REVIEWS = 2000


def results(seeds=(5, 6, 7), accuracies=None, spread=0.0, shift=0.0, **changes):
    """Return results in which every published run was repeated with its published accuracy."""
    part = Reproduction(seeds=list(seeds), train_reviews=0, max_tokens=256, batch_size=96, lr=0.001)
    known = published().test_acc.tolist() if accuracies is None else accuracies
    found = {}
    for setting, accuracy in zip(part.settings(), known, strict=True):
        accuracy = changes.get(setting.name.removeprefix("lab figure ").replace(" ", "_"), accuracy)
        for k, seed in enumerate(seeds):
            given = accuracy[k] if isinstance(accuracy, list) else accuracy
            if given is None:
                continue
            given += (spread * (k - 1) + shift) * (given > 0.7)
            for readout in ("last_step", "final_state"):
                config = setting.config.replace(seed=seed, readout=readout)
                found[config] = run(config, given, reviews=REVIEWS)
    return Results(part, Runs(found.values()))


def line(found, figure):
    rows = reproduction.compare(found)
    return next(row for row in rows if row.published.figure == figure)


@pytest.fixture(scope="module")
def same():
    return results()


def test_every_run_has_its_published_size(same):
    rows = reproduction.compare(same)
    assert len(rows) == 79
    assert [row.parameters for row in rows] == published().num_params.tolist()
    assert len({row.setting.config for row in rows}) == 78  # 10b is a run of the grid
    names = [
        row.setting.name for row in rows if row.setting.config == line(same, "10b").setting.config
    ]
    assert names == ["E32 H20 L1", "lab figure 10b"]


def test_rows_are_in_the_order_of_the_lab_figures(same):
    shown = reproduction.table(reproduction.compare(same))["lab figure"].tolist()
    assert shown[:6] == ["1", "2", "3a", "3b", "3c", "4a"]
    assert shown[25:32] == ["9a", "9b", "10a", "10b", "11a", "11b", ""]
    assert set(shown[31:]) == {""}  # the grid


def test_published_results_agree_with_themselves(same):
    rows = reproduction.compare(same)
    shown = [row for row in rows if row.compared]
    failed = (published().test_acc < 0.65).sum()
    assert len(shown) == 79 - failed
    assert all(row.agrees for row in shown)
    distinct = len({row.setting.config for row in shown})
    assert distinct == len(shown) - 1
    text = reproduction.summary(rows, same)
    assert "We repeated all 79 published runs." in text
    assert f"In {len(shown)} of them training succeeded in both studies" in text
    agreeing = (
        f"The published value lies in our 95 % prediction interval in {distinct} of {distinct}"
    )
    assert f"{agreeing} comparisons." in text
    assert "rest on a single run" not in text
    assert "that we did not repeat" not in text
    assert "correlate with r = 1.00" in text
    assert "figure 10b shows the run E32 H20 L1 of the grid again" in text
    assert len(reproduction.table(rows)) == 79


def test_summary_explains_what_agreement_means():
    """A constant guess would agree as often as runs that do not correlate."""
    random = np.random.default_rng(0)
    known = published().test_acc.to_numpy()
    ours = np.where(known > 0.65, 0.868 + 0.003 * random.normal(size=79), known)
    found = results(accuracies=ours.tolist(), spread=0.008)
    text = reproduction.summary(reproduction.compare(found), found)
    assert "**How much does this agreement mean?** Accuracies hardly differ among" in text
    guess = (
        r"This agreement says little: had we predicted 8[\d.]+ % for every run, with intervals of"
    )
    assert re.search(
        guess + r" the same widths around it, \d+ published values would lie in them\.", text
    )
    assert re.search(r"a single comparison detects differences of [\d.]+ to [\d.]+ points", text)
    assert "does not reject the hypothesis that all differences are due to chance" in text
    apart = reproduction.summary(reproduction.compare(results(shift=0.04)), results(shift=0.04))
    assert (
        "A joint test rejects the hypothesis that all differences are due to chance (F test, p < 0.001)"
        in apart
    )
    after = (
        "On average over these, our test accuracy after the last epoch differs from the published "
        "one by +3.9"
    )
    assert f"{after} points" in apart
    assert "]: a significant difference. The" in apart
    assert "]: the two are equivalent within 1 point. The" in text


def test_single_runs_are_counted_separately():
    """Their intervals are so wide that they agree with almost anything."""
    accuracies = published().test_acc.tolist()
    accuracies = [[a, a, a] if k % 2 else [a, None, None] for k, a in enumerate(accuracies)]
    accuracies[5] = [0.8, 0.8, 0.8]
    found = results(accuracies=accuracies, spread=0.004)
    rows = reproduction.distinct(reproduction.compare(found))
    single = [row for row in rows if row.runs.count == 1]
    others = [row for row in rows if row.runs.count > 1]
    text = reproduction.summary(reproduction.compare(found), found)
    assert f"In {len(single)} comparisons we have a single run, and the interval (± " in text
    agreeing = sum(row.agrees for row in others)
    assert agreeing < len(others)
    alone = sum(row.agrees for row in single)
    which = "All" if alone == len(single) else alone
    assert f"values. {which} of these intervals contain the published value." in text
    assert f"With several runs, {agreeing} of {len(others)} intervals contain it." in text


def test_constant_guess_is_optimal(same):
    shown = [row for row in reproduction.compare(same) if row.compared]
    found = reproduction.agreement_means(shown, same.at("last"))
    known = np.array([row.published.test_acc for row in shown])
    half_widths = np.array([row.gap.half_width for row in shown])
    counts = [(abs(c - known) <= half_widths).sum() for c in np.arange(0.8, 0.92, 0.0005)]
    assert found["guessed"] == max(counts)


def test_differing_run_is_named():
    found = results(**{"3c": 0.80}, spread=0.003)
    rows = reproduction.compare(found)
    [other] = [row for row in rows if row.compared and not row.agrees]
    assert other.setting.name == "lab figure 3c"
    assert "The interval excludes 0 for lab figure 3c (−7.1 points)." in reproduction.summary(
        rows, found
    )


def test_different_number_of_runs_is_shown_in_its_cell(same):
    row = line(same, "10a")
    [cell] = reproduction.table([row])["best epoch, %"]
    assert "n =" not in cell
    more = replace(row, best=replace(row.best, n=9))
    [cell] = reproduction.table([more])["best epoch, %"]
    assert cell.endswith("] (n = 9)")


def test_a_run_without_a_useful_interval_is_named():
    found = results(**{"11b": [0.68, 0.88, 0.86]}, spread=0.003)
    rows = reproduction.compare(found)
    row = line(found, "11b")
    assert row.both
    assert not row.compared
    text = reproduction.summary(rows, found)
    assert "one is left out, because the prediction interval would extend more than 10" in text
    assert "The run with a wide interval is lab figure 11b (" in text


def test_untrained_runs_are_not_compared():
    found = results(**{"3c": 0.5, "5c": [0.87, 0.5, 0.87]})
    assert not line(found, "3c").compared
    assert not line(found, "5c").compared  # the published run did not train
    table = reproduction.table(reproduction.compare(found)).set_index("lab figure")
    assert table.loc["3c", "trained"] == "0 of 3"
    assert table.loc["3c", "Δ points"] == "–"
    assert table.loc["5c", "trained"] == "2 of 3"
    assert "it failed in one or in both" in reproduction.summary(reproduction.compare(found), found)


def test_missing_runs_are_counted_and_omitted_from_the_table():
    found = results(**{"3c": None})
    rows = reproduction.compare(found)
    table, text = reproduction.table(rows), reproduction.summary(rows, found)
    assert len(table) == 78
    assert "3c" not in set(table["lab figure"])
    assert "We repeated 78 of the 79 published runs." in text
    assert "leaves out the one run that we did not repeat." in text
    nothing = results(accuracies=[None] * 79)
    assert set(reproduction.table(reproduction.compare(nothing))["trained"]) == {"not run"}
    assert "None of the published runs was repeated" in reproduction.summary(
        reproduction.compare(nothing), nothing
    )


def test_prediction_interval_is_for_a_single_run():
    """It is wider than that of our mean: it includes another seed and other reviews."""
    found = results(spread=0.01)
    row, accuracy = line(found, "3c"), found.at("last").accuracy(line(found, "3c").setting)
    over_seeds = found.at("last").spread(row.setting)
    at_least = accuracy.error**2 + over_seeds.variance
    share = accuracy.mean
    sample = (share * (1 - share) - over_seeds.within) / 10_000
    assert row.gap.error**2 == pytest.approx(at_least + sample)


def test_published_accuracy_is_a_batch_mean_of_the_last_epoch(same):
    trials = list(same.runs.trials.values())
    setting = line(same, "3c").setting
    for trial in trials:
        if trial.config.replace(seed=5) == setting.config:
            trial.metrics["last"] = trial.metrics["last"] | {"accuracy_batch_mean": 0.75}
    again = Results(same.part, Runs(trials))
    assert line(again, "3c").gap.mean == pytest.approx(0.75 - 0.870)


def test_reduced_setting_is_named():
    part = Reproduction(train_reviews=500)
    config = part.settings()[3].config
    found = Results(part, Runs([run(config.replace(seed=s), 0.8, reviews=500) for s in (5, 6)]))
    text = reproduction.summary(reproduction.compare(found), found)
    assert "This is a reduced setting with 500 training reviews" in text
    assert "How much does this agreement mean" not in text  # not printed for a single row


def test_different_vocabulary_size_is_explained(same):
    text = reproduction.summary(reproduction.compare(same), same)
    assert "Our vocabulary has 5,000 words" in text
    assert f"{VOCABULARY_SIZE:,}" in text


def test_figure_draws_only_comparable_runs():
    rows = reproduction.compare(results(**{"3c": 0.80}, spread=0.003))
    axes = agreement(rows).axes[0]
    shown = sum(row.compared for row in rows)
    assert [len(c.lines[0].get_xdata()) for c in axes.containers] == [shown - 1, 1]
