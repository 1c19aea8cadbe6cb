"""The provenance of a run: versions, device, commit."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("labrnn", "torch", "numba", "numpy", "scikit-learn", "pandas")
CPU_FACTS = Path("/proc/cpuinfo")


def environment(device, seconds, precision="float32"):
    """Return the provenance of a trial as a dict of plain values.

    Args:
        device: the `torch.device` of the training run.
        seconds: time of all epochs, with validation.
        precision: precision of the matrix products.
    """
    import torch

    from labrnn.network.products import chosen

    on_cpu = device.type == "cpu"
    products = chosen(precision) if on_cpu else "PyTorch"
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "device": device_name(device),
        "products": f"{products}, {precision}",
        "deterministic": on_cpu or torch.are_deterministic_algorithms_enabled(),
        "clock": "processor" if on_cpu else "wall",  # of the history's train_seconds
        "seconds": round(seconds, 3),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def versions():
    """Return the installed versions of the packages that affect the figures."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@lru_cache
def commit():
    """Return the project's commit, with `+` if tracked files differ from it.

    It is empty without git, or if the project is inside another repository.
    """
    root = Path(__file__).resolve().parents[2]
    # The caller's GIT_DIR and GIT_WORK_TREE may name another repository.
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
    """Return the name of the processor or GPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    names = []
    if device.type == "cpu":
        with suppress(OSError):  # Linux only, and not on ARM
            names = re.findall(r"^model name\s*: (.+)", CPU_FACTS.read_text(), re.M)
    return f"{device.type}: {(names or [platform.processor() or platform.machine()])[0]}"
