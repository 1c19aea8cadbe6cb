"""How a run of trials is shown while it lasts: on a terminal, in a pipe, in a notebook."""

import re
import sys
import time
from contextlib import suppress
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from labrnn.trials.running import cost


def describe(config):
    """A trial in a line: cell, difference from the defaults, seed."""
    return f"{config.cell.upper()} {config.difference() or 'defaults'} seed {config.seed}"


class Display:
    """Counts trials and estimates the end; writes a plain line an event, here and to the log.

    The estimate is the time so far over the share of the work done, by the trials' costs.
    """

    def __init__(self, stream=None):
        self.stream = stream or sys.stderr

    def begin(self, plan, log):
        """Told once, with the `Plan` of a run and its open log file."""
        self.log, self.began = log, time.monotonic()
        self.left, self.work = dict(plan.missing), sum(plan.missing.values())
        self.running, self.done, self.failed = {}, 0, 0
        self.tell(f"{len(plan.trials)} trials stored, {len(plan.missing)} to train; {log.name}")

    def event(self, config, event):
        """Told of all that happens to a trial, see `worker.carry_out` and `running`."""
        kind = event["event"]
        if kind in ("started", "epoch"):
            self.running[config] = event if kind == "epoch" else None
        else:
            self.running.pop(config, None)
        if kind == "epoch":
            self.left[config] = cost(config) * (1 - event["epoch"] / config.epochs)
            self.tell(
                f"{describe(config)}: epoch {event['epoch']}/{config.epochs}, "
                f"loss {event['train_loss']:.3f}, validation {event['valid_accuracy']:.4f}, "
                f"{event['seconds']:.1f} s"
            )
        elif kind in ("done", "failed"):
            self.left[config] = 0.0
            self.done, self.failed = self.done + (kind == "done"), self.failed + (kind != "done")
            verdict = "stored" if kind == "done" else f"FAILED: {event['message']}"
            self.tell(f"{describe(config)}: {verdict}; {self.summary()}", event.get("trace", ""))
        elif kind == "busy":
            self.tell(f"{describe(config)}: another process is training it")
        elif kind == "died":
            self.tell(f"{describe(config)}: {event['message']}; it goes on from its last epoch")

    def summary(self):
        """Trials done and the estimated time to the end."""
        text = f"{self.done} of {len(self.left)} trained"
        if self.failed:
            text += f", {self.failed} failed"
        left = sum(self.left.values())
        if 0 < left < self.work:
            spent = time.monotonic() - self.began
            text += f", about {clock(spent * left / (self.work - left))} left"
        return text

    def tell(self, text, more=""):
        with suppress(OSError):  # a full disk must not stop what needs none
            self.log.write(f"{datetime.now():%H:%M:%S} {text}\n{more}")
        self.line(text)

    def line(self, text):
        print(text, file=self.stream, flush=True)

    def end(self):
        """Told once, however the run ended."""


class TerminalDisplay(Display):
    """A live table on a terminal: what is running, and the summary."""

    def begin(self, plan, log):
        self.live = Live(console=Console(stderr=True), refresh_per_second=4)
        super().begin(plan, log)
        self.live.start()

    def event(self, config, event):
        super().event(config, event)
        self.live.update(self.table())

    def table(self):
        table = Table("trial", "epoch", "train loss", "validation", title=self.summary())
        for config, last in self.running.items():
            row = (
                [
                    f"{last['epoch']}/{config.epochs}",
                    f"{last['train_loss']:.3f}",
                    f"{last['valid_accuracy']:.4f}",
                ]
                if last
                else [f"0/{config.epochs}", "", ""]
            )
            table.add_row(describe(config), *row)
        return table

    def line(self, text):
        if not re.search(": epoch|: stored", text):
            self.live.console.print(text, markup=False, highlight=False)

    def end(self):
        self.live.update(self.summary())
        self.live.stop()


class NotebookDisplay(Display):
    """One line under the cell, replaced at each event; nothing remains of it in a report."""

    def begin(self, plan, log):
        from IPython.display import Markdown, display

        self.handle = display(Markdown(""), display_id=True)
        super().begin(plan, log)

    def line(self, text):
        from IPython.display import Markdown

        self.handle.update(Markdown(text and f"*{text.replace('_', chr(92) + '_')}*"))

    def end(self):
        self.line("")


def display_for_terminal():
    """The live table on a terminal, plain lines elsewhere."""
    return TerminalDisplay() if sys.stderr.isatty() else Display()


def clock(seconds):
    """Seconds as `1 h 05 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
