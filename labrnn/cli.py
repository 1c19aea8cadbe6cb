"""The console script `labrnn`."""

import os
import sys
from pathlib import Path

import click

from labrnn.errors import LabError


class LabCommand(click.Group):
    """Faults of the input end with exit code 2 and their message, an interrupt with 130."""

    def main(self, *args, **kwargs):
        try:
            return super().main(*args, standalone_mode=False, **kwargs)
        except LabError as error:
            click.echo(f"labrnn: {error}", err=True)
            sys.exit(2)
        except click.ClickException as error:
            error.show()
            sys.exit(2)
        except (KeyboardInterrupt, click.Abort):
            click.echo("\nstopped; what is finished is kept, the same command goes on from here",
                       err=True)
            sys.exit(130)


@click.group(cls=LabCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labrnn")
def main():
    """A lab on LSTM and GRU for the sentiment of film reviews."""


data_option = click.option("--data", metavar="PATH", help="Reviews: a file or folder.")
jobs_option = click.option("--jobs", type=click.IntRange(1), metavar="N",
                           help="Trainings at once [default: the number of cores].")


@main.command()
@click.argument("params", nargs=-1, required=True, metavar="PARAMS...")
@data_option
@jobs_option
@click.option("--device", default="", help="cpu, cuda or mps [default: the best at hand].")
def train(params, data, jobs, device):
    """Train the trials that params files ask for and that are not stored.

    \b
    Example:
      labrnn train params/quick/*.yaml --jobs 2
    """
    from labrnn.batch import read_params

    choose(data)
    sys.exit(1 if train_parts([read_params(path) for path in params], jobs, device) else 0)


def train_parts(parts, jobs=None, device=""):
    """Train what is missing of some parts; returns the failures' messages, each told already."""
    from labrnn.progress import describe, display_for_terminal
    from labrnn.running import run_trials

    by_source, failures = {}, []
    for part in (part for part in parts if part.trains):
        by_source.setdefault((part.data, part.fingerprint, part.store), []).extend(part.trials())
    for (source, fingerprint, store), trials in by_source.items():
        outcome = run_trials(trials, source, fingerprint, open_store(store), jobs or 0, device,
                             display=display_for_terminal())
        failures += [f"{describe(c)}: {message}" for c, message in outcome.failures.items()]
        click.echo(f"{len(outcome.trials)} trials stored, {len(outcome.failures)} failed")
    for message in failures:
        click.echo(f"failed: {message}", err=True)
    return failures


@main.command()
@click.argument("params", nargs=-1, required=True, metavar="PARAMS...")
@data_option
@jobs_option
@click.option("--author", default="labrnn", show_default=True, help="Printed on the reports.")
@click.option("--out", metavar="FOLDER", help="[default: reports/<folder of the params file>]")
def report(params, data, jobs, author, out):
    """Execute notebooks and render PDF reports; what did not change is skipped.

    \b
    Example:
      labrnn report params/quick/*.yaml --author "Ada Lovelace"
    """
    from labrnn.batch import plan, read_params, run_all, write_ups
    from labrnn.running import cores

    choose(data)
    failures = train_parts([p for p in map(read_params, params) if p.train], jobs)
    due = plan(params, out, author)
    failures += run_all(due, jobs or cores(), tell=click.echo)
    write_ups(due, tell=click.echo)
    sys.exit(1 if failures else 0)


def choose(data):
    """Make --data the strongest choice, for this process and those it starts."""
    if data:
        os.environ["LABRNN_DATA"] = str(Path(data).resolve())


def open_store(path):
    """The store of a params file, or the usual one."""
    from labrnn.store import Store, default_store

    return Store(path, default_store().shelves) if path else default_store()
