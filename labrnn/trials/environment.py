"""What a result was made with: versions, device, commit."""

import os
import platform
import subprocess
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("labrnn", "torch", "numba", "numpy", "scikit-learn", "pandas")


def environment(device, seconds, precision="float32"):
    """The record that is kept beside a trial.

    Args:
        device: the `torch.device` that trained.
        seconds: time of the epochs, validation included.
        precision: of the training's matrix products.
    """
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "device": device_name(device),
        "products": products(device, precision),
        "deterministic": device.type == "cpu" or deterministic(),
        "clock": "processor" if device.type == "cpu" else "wall",  # of the history's train_seconds
        "seconds": round(seconds, 3),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def products(device, precision):
    """The backend and the precision of the recurrent layers' matrix products."""
    backend = "PyTorch"
    if device.type == "cpu":
        with suppress(ImportError):  # no Numba
            from labrnn.network.products import chosen

            backend = chosen(precision)
    return f"{backend}, {precision}"


def deterministic():
    """Whether PyTorch is set to use only algorithms that give the same bits each time."""
    import torch

    return torch.are_deterministic_algorithms_enabled()


def versions():
    """Versions of the packages that decide the figures."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@lru_cache
def commit():
    """The project's own commit, with `+` where tracked files differ from it.

    Empty without git, and where the project lies inside another repository.
    """
    root = Path(__file__).resolve().parents[2]
    # A caller's GIT_DIR and GIT_WORK_TREE name another repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words):
        command = ["git", "-C", str(root), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return ""
        changed = git("diff", "--name-only", "HEAD")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def device_name(device):
    """The processor's or the card's name."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        for line in _lines("/proc/cpuinfo"):
            if line.startswith("model name"):
                return f"cpu: {line.split(':', 1)[1].strip()}"
    return f"{device.type}: {platform.processor() or platform.machine()}"


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
