"""The estimate of the time left, on recorded epoch times instead of a clock."""

import csv
import heapq
from pathlib import Path

import pytest

from labrnn.config import TrialConfig
from labrnn.trials.plan import Estimate, cost

# Processor seconds of each epoch of the full lab on two machines, in the order of training.
RECORDED = Path(__file__).parent / "data" / "epoch_seconds.csv"
WRONG = 1.5


def recorded(machine):
    """Yield (configuration, seconds of each epoch) of the trainings on a machine.

    Trainings of more than a quarter of an hour are skipped: one would dominate a run.
    """
    with RECORDED.open(encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if row.pop("machine") == machine:
                seconds = [float(value) for value in row.pop("epoch_seconds").split()]
                row["bidirectional"] = row["bidirectional"] == "True"
                if sum(seconds) < 900:
                    yield TrialConfig(**row, seed=number), seconds


class Run:
    """Simulate a run: jobs take one training after another; reports follow their trainings.

    Attributes:
        now: seconds since its start.
        estimates: (time, estimated seconds left) at each epoch.
    """

    def __init__(self, trainings, jobs, speed, reports=0, report_seconds=4.0):
        self.now, self.estimates = 0.0, []
        estimate = Estimate(jobs, lambda: self.now)
        for config, _ in trainings:
            estimate.add(config, cost(config) / speed)
        for number in range(reports):
            estimate.add(number, report_seconds / 2)  # half of the time that they take
        waiting = list(trainings)
        for number in range(reports):  # each after the trainings of its part
            place = (number + 1) * len(trainings) // reports + number
            waiting.insert(place, (number, [report_seconds]))
        waiting.reverse()
        events = [(0.0, job, None, []) for job in range(jobs)]
        while events:
            self.now, job, what, left = heapq.heappop(events)
            if what is not None:
                whole = cost(what) / speed if isinstance(what, TrialConfig) else 0.0
                share = len(left) / what.epochs if left else 0.0
                estimate.reduce(what, whole * share)
                self.estimates.append((self.now, estimate.seconds()))
            if not left and waiting:
                what, left = waiting.pop()
            if left:
                heapq.heappush(events, (self.now + left[0], job, what, left[1:]))

    def worst(self):
        """Return the largest error factor of the estimates between 10 % and 90 % of the run."""
        found = [(t, left) for t, left in self.estimates if 0.1 < t / self.now < 0.9]
        assert len(found) > 20
        return max(max(left / (self.now - t), (self.now - t) / left) for t, left in found)


@pytest.mark.parametrize("machine", ["AMD", "Intel"])
@pytest.mark.parametrize("longest_first", [True, False])
@pytest.mark.parametrize("slower", [0.5, 1, 3])
@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_time_left_is_accurate_within_a_factor_of_1_5(machine, longest_first, slower, jobs):
    """The machine takes half or three times the time of the stored trials."""
    trainings = [(c, [t * slower for t in seconds]) for c, seconds in recorded(machine)]
    if longest_first:
        trainings.sort(key=lambda one: -cost(one[0]))
    assert Run(trainings, jobs, speed=1.0).worst() < WRONG


@pytest.mark.parametrize("machine", ["AMD", "Intel"])
def test_time_left_includes_reports(machine):
    """As in `make report`, where reports take twice as long as expected."""
    trainings = list(recorded(machine))
    whole = sum(sum(seconds) for _, seconds in trainings)
    run = Run(trainings, 2, speed=1.0, reports=20, report_seconds=whole / 200)
    assert run.worst() < WRONG


def test_time_left_without_work_is_zero():
    estimate = Estimate(2, lambda: 0.0)
    assert estimate.seconds() == 0
    estimate.add("a", 10)
    assert estimate.seconds() == 10  # one piece of work occupies one job
    estimate.add("b", 10)
    assert estimate.seconds() == 10
    estimate.reduce("other")
    estimate.reduce("a")
    estimate.reduce("b")
    assert estimate.seconds() == 0


def test_idle_jobs_do_not_reduce_the_estimate():
    now = [0.0]
    estimate = Estimate(4, lambda: now[0])
    estimate.add("alone", 100)
    now[0] = 50.0
    estimate.reduce("alone", 50)
    assert estimate.seconds() == pytest.approx(50)
