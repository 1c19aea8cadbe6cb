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
    from labrnn.progress import display_for_terminal
    from labrnn.running import run_trials

    choose(data)
    by_source = {}
    for path in params:
        part = read_params(path)
        by_source.setdefault((part.data, part.fingerprint, part.store), []).extend(part.trials())
    failed = False
    for (source, fingerprint, store), trials in by_source.items():
        outcome = run_trials(trials, source, fingerprint, open_store(store), jobs or 0, device,
                             display=display_for_terminal())
        for config, message in outcome.failures.items():
            click.echo(f"failed: {config.cell} {config.difference()} seed {config.seed}: {message}")
        click.echo(f"{len(outcome.trials)} trials stored, {len(outcome.failures)} failed")
        failed = failed or bool(outcome.failures)
    sys.exit(1 if failed else 0)


def choose(data):
    """Make --data the strongest choice, for this process and those it starts."""
    if data:
        os.environ["LABRNN_DATA"] = str(Path(data).resolve())


def open_store(path):
    """The store of a params file, or the usual one."""
    from labrnn.store import Store, default_store

    return Store(path, default_store().shelves) if path else default_store()
