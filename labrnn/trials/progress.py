"""Show the progress of training on a terminal, in a pipe, or in a notebook."""

import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from labrnn.config import DEFAULTS, PRINTED
from labrnn.errors import printable
from labrnn.trials.plan import Estimate, cost

START_SECONDS = 1.0  # a run's time before its first and after its last epoch
# Formats of fields; other fields are shown by name.
WORDS = {
    "optim": "{}",
    "n_layers": "{} layers",
    "hidden_dim": "{} units",
    "embedding_dim": "embedding {}",
    "bidirectional": "bidirectional",
    "train_reviews": "{:,} reviews",
    "max_tokens": "{} tokens",
    "dropout_rate": "dropout {}",
    "lr": "learning rate {}",
    "epochs": "{} epochs",
}


def describe(config, usual=None):
    """Describe a trial: cell, fields that differ from `usual` (the defaults if None), seed."""
    usual = DEFAULTS if usual is None else usual
    words = [config.cell.upper()]
    for name, value in config.model_dump(exclude={"cell", "seed"}).items():
        if value != usual[name]:
            # Fields without a format, and a switch that is off here.
            plain = name not in WORDS or (isinstance(value, bool) and not value)
            value = PRINTED.get(value, value)
            shown = f"{name.replace('_', ' ')} {value}" if plain else WORDS[name].format(value)
            words.append(shown.removesuffix("s") if value == 1 else shown)
    return ", ".join([*words, f"seed {config.seed}"])


def usual_fields(configs):
    """Return the most frequent value of each field."""
    rows = [config.model_dump() for config in configs]
    return {name: Counter(row[name] for row in rows).most_common(1)[0][0] for name in rows[0]}


class Display:
    """Count trials and estimate the remaining time; write a line per event to stream and log.

    Args:
        stream: text stream for the lines; standard error if None.
        estimate: the `Estimate` of a command that also does other work.
    """

    def __init__(self, stream=None, estimate=None):
        self.stream, self.estimate = stream or sys.stderr, estimate

    def begin(self, plan, log, jobs, pace):
        """Start to show the runs of a `Plan`; `jobs` run at once, `pace` is from `plan.speed`."""
        self.log, self.running, self.done, self.failed = log, {}, 0, 0
        self.count, self.pace = len(plan.missing), pace
        self.usual = usual_fields(plan.missing)
        self.estimate = self.estimate or Estimate(jobs)
        for config, work in plan.missing.items():
            self.estimate.add(config, START_SECONDS + work / pace)
        self.show(f"{len(plan.trials)} trials stored, {self.count} to train; {log.name}")

    def event(self, config, event):
        """Show an event of a trial, see `job.run_job` and `running`."""
        kind, name = event["event"], describe(config, self.usual)
        self.running.pop(config, None)
        if kind == "started":
            self.running[config] = f"{name}: started"
        elif kind == "epoch":
            left = cost(config) / self.pace * (1 - event["epoch"] / config.epochs)
            self.estimate.reduce(config, left)
            self.running[config] = (
                f"{name}: epoch {event['epoch']} of {config.epochs}, loss {event['train_loss']:.3f},"
                f" validation {event['valid_accuracy']:.1%}, {event['seconds']:.1f} s"
            )
            self.show(self.running[config], brief=False)
        elif kind in ("done", "failed"):
            self.estimate.reduce(config)
            self.done, self.failed = self.done + (kind == "done"), self.failed + (kind != "done")
            end = "stored" if kind == "done" else f"FAILED: {event['message']}"
            self.show(f"{name}: {end}; {self.summary()}", event.get("trace", ""), kind != "done")
        elif kind == "busy":
            self.show(f"{name}: another process is training it")
        elif kind == "died":
            self.show(f"{name}: {event['message']}; it resumes from its last epoch")

    def summary(self):
        """Return the number of finished trials and the estimated time to the end."""
        text = f"{self.done} of {self.count} trained"
        if self.failed:
            text += f", {self.failed} failed"
        left = self.estimate.seconds()
        return f"{text}, about {clock(left)} left" if left else text

    def show(self, text, more="", brief=True):
        """Write a line to log and display; live displays omit lines that are not `brief`."""
        text = printable(text)
        with suppress(OSError):  # a full disk must not stop the training
            self.log.write(f"{datetime.now():%H:%M:%S} {text}\n{more}")
        self.line(text, brief)

    def line(self, text, brief=True):
        with suppress(OSError):  # the reader has closed the stream
            print(text, file=self.stream, flush=True)

    def end(self):
        """End the display, also after an error."""


class TerminalDisplay(Display):
    """A display for a terminal: running trials and a summary, live below the other lines."""

    def begin(self, plan, log, jobs, pace):
        self.live = Live(console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
        super().begin(plan, log, jobs, pace)
        self.live.start()

    def event(self, config, event):
        super().event(config, event)
        self.live.update(Text("\n".join([*self.running.values(), self.summary()])))

    def line(self, text, brief=True):
        if brief:
            self.live.console.print(text, markup=False, highlight=False)

    def end(self):
        self.live.update(Text(self.summary()))
        self.live.stop()


class NotebookDisplay(Display):
    """A display for a notebook: one line below the cell, replaced at each event."""

    def begin(self, plan, log, jobs, pace):
        from IPython.display import Markdown, display

        self.handle = display(Markdown(""), display_id=True)
        super().begin(plan, log, jobs, pace)

    def line(self, text, brief=True):
        from IPython.display import Markdown

        if self.handle:  # None outside a notebook
            self.handle.update(Markdown(text and f"*{text.replace('_', chr(92) + '_')}*"))

    def end(self):
        self.line("")


def display_for_terminal(estimate=None):
    """Return a display with live lines on a terminal, else with plain lines."""
    return (TerminalDisplay if sys.stderr.isatty() else Display)(estimate=estimate)


def clock(seconds):
    """Format seconds as `1 h 05 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
