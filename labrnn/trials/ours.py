"""Recognise the files that labrnn writes to a store, by name and kind; links are not followed."""

import os
import re
import stat
from contextlib import suppress

from labrnn.trials.trial import HEX, TEXTS, WEIGHTS

# Files of a run's state after an epoch, by attribute of `TrainingState`.
TENSORS = {name: f"{name}.safetensors" for name in ("last", "best", "optimizer")}

MARK = "labrnn-store"  # a file that marks a folder as a store
NAMES = re.compile(f"(([a-z]+-)?{HEX})")  # the names of locks, see `Store.claim`
_ASIDE = r"[.]\d+[.]writing"  # temporary files of `replace_file`
KEPT = re.compile(f"([a-z]+-{HEX}[.]json)({_ASIDE})?")
_FILES = re.compile(f"({'|'.join([*TEXTS, WEIGHTS, *TENSORS.values(), 'DONE'])})({_ASIDE})?")
_STATES = re.compile(r"(epoch-)?\d+([.]writing)?|done[.]writing")
_DATA_FOLDERS = re.compile(f"{HEX}|[.]locks|[.]partial")


def data_folders(root):
    """Return the folders of a store that are named by a fingerprint."""
    return [p for p in inside(root) if is_folder(p) and re.fullmatch(HEX, p.name)]


def foreign_path(root):
    """Return a path in a folder that labrnn did not write, or None."""
    data = data_folders(root)
    for path in inside(root):
        if path.name not in (MARK, ".logs") and path not in data:
            return path
    for path in (path for folder in data for path in inside(folder)):
        if not (KEPT if is_file(path) else _DATA_FOLDERS).fullmatch(path.name):
            return path
    return None


def is_file(path):
    """Whether the path is a regular file; False for a link."""
    return _kind(path) == stat.S_IFREG


def is_folder(path):
    return _kind(path) == stat.S_IFDIR


def _kind(path):
    with suppress(OSError):
        return stat.S_IFMT(os.lstat(path).st_mode)
    return None


def inside(folder):
    """Return the sorted paths in a folder; empty if it is a link or cannot be listed."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))] if is_folder(folder) else []
    except OSError:
        return []


def _known(path):
    """Whether name and kind fit a file in the folder of a trial or of a run's state."""
    return bool(
        (is_file(path) and _FILES.fullmatch(path.name))
        or (is_folder(path) and _STATES.fullmatch(path.name))
    )


def ours(folder):
    """Whether a folder can be listed and contains only files that labrnn writes."""
    try:
        found = [folder / name for name in os.listdir(folder)] if is_folder(folder) else [folder]
    except OSError:
        return False
    return all(_known(path) and (is_file(path) or ours(path)) for path in found)


def discard(path):
    """Remove a file, or a folder and the files that labrnn wrote; other files stay."""
    if is_file(path):
        os.unlink(path)
    for inner in filter(_known, inside(path)):
        discard(inner)
    with suppress(OSError):
        os.rmdir(path)
