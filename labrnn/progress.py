"""How a run of trials is shown while it lasts: on a terminal, in a pipe, in a notebook."""

import sys
import time

from rich.console import Console
from rich.live import Live
from rich.table import Table

from labrnn.running import cost


def describe(config):
    """A trial in a line: cell, difference from the defaults, seed."""
    return f"{config.cell.upper()} {config.difference() or 'defaults'} seed {config.seed}"


class Display:
    """Counts trials and estimates the end; writes a plain line an event.

    A trial's share of the work is its cost; the estimate is the time so far over the share done.
    """

    def __init__(self, stream=None):
        self.stream = stream or sys.stderr

    def begin(self, missing, stored):
        self.began, self.total, self.stored = time.monotonic(), len(missing), len(stored)
        self.work = {config: cost(config) for config in missing}
        self.share = dict.fromkeys(missing, 0.0)
        self.running, self.done, self.failed = {}, 0, 0
        self.line(f"{self.stored} trials stored, {self.total} to train")

    def event(self, config, event):
        kind = event["event"]
        if kind == "started":
            self.running[config] = None
        elif kind == "epoch":
            self.running[config] = event
            self.share[config] = event["epoch"] / config.epochs
            self.line(f"{describe(config)}: epoch {event['epoch']}/{config.epochs}, "
                      f"loss {event['train_loss']:.3f}, validation {event['valid_accuracy']:.4f}, "
                      f"{event['seconds']:.1f} s")
        else:
            self.running.pop(config, None)
            self.share[config] = 1.0
            self.done, self.failed = self.done + (kind == "done"), self.failed + (kind != "done")
            verdict = "stored" if kind == "done" else f"FAILED: {event['message']}"
            self.line(f"{describe(config)}: {verdict}; {self.summary()}")

    def summary(self):
        """Trials done and the estimated time to the end."""
        finished = sum(self.work[c] * share for c, share in self.share.items())
        left = sum(self.work.values()) - finished
        spent = time.monotonic() - self.began
        end = f", about {clock(spent * left / finished)} left" if finished and left else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total} trained{failed}{end}"

    def line(self, text):
        print(text, file=self.stream, flush=True)

    def end(self):
        pass


class TerminalDisplay(Display):
    """A live table on a terminal: what is running, and the summary."""

    def begin(self, missing, stored):
        self.live = Live(console=Console(stderr=True), refresh_per_second=4)
        super().begin(missing, stored)
        self.live.start()

    def event(self, config, event):
        super().event(config, event)
        self.live.update(self.table())

    def table(self):
        table = Table("trial", "epoch", "train loss", "validation", title=self.summary())
        for config, last in self.running.items():
            row = [f"{last['epoch']}/{config.epochs}", f"{last['train_loss']:.3f}",
                   f"{last['valid_accuracy']:.4f}"] if last else [f"0/{config.epochs}", "", ""]
            table.add_row(describe(config), *row)
        return table

    def line(self, text):
        if "FAILED" in text or "to train" in text:
            self.live.console.print(text, markup=False)

    def end(self):
        self.live.update(self.summary())
        self.live.stop()


class NotebookDisplay(Display):
    """One line under the cell, replaced at each event; nothing remains of it in a report."""

    def begin(self, missing, stored):
        from IPython.display import Markdown, display

        self.handle = display(Markdown(""), display_id=True)
        super().begin(missing, stored)

    def line(self, text):
        from IPython.display import Markdown

        self.handle.update(Markdown(f"*{text.replace('_', chr(92) + '_')}*"))

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
