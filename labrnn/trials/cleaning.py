"""`labrnn trials gc`: find and remove leftovers of interrupted writes, and damaged trials."""

import os
import re
from contextlib import suppress

from labrnn.errors import LabError
from labrnn.trials.kept import KINDS, unpack
from labrnn.trials.ours import (
    KEPT,
    MARK,
    NAMES,
    data_folders,
    discard,
    foreign_path,
    inside,
    is_file,
    is_folder,
    ours,
)
from labrnn.trials.store import epoch_of, locked
from labrnn.trials.trial import HEX, Trial, UnreadableError


def stale(store, unfinished=False, damaged=False):
    """Find leftovers of interrupted writes that no process holds; change nothing.

    Args:
        store: a `Store`; only its root is searched.
        unfinished: also find the checkpoints of unfinished runs, from which they could resume.
        damaged: also find damaged or incomplete trials, and damaged derived data.

    Returns:
        dict of path -> (fingerprint, name), by which `Store.claim` locks it. Every path contains
        only files that labrnn wrote.

    Raises:
        LabError: the root is not marked as a store, and contains other files.
    """
    if not is_file(store.root / MARK) and (found := foreign_path(store.root)):
        raise LabError(
            f"{store.root}: is not marked as a run store and contains {found.name}, which labrnn "
            "did not write; nothing is removed. Name a store; if this is one, make an empty "
            f"file {MARK} in it"
        )
    found = {}
    for data in data_folders(store.root):
        locks = inside(data / ".locks")
        there = [*locks, *inside(data), *inside(data / ".partial")]
        for name in sorted({m[1] for path in there if (m := NAMES.match(path.name))}):
            if (path := data / ".locks" / f"{name}.lock") in locks:
                empty = is_file(path) and path.stat().st_size == 0
                if not (empty and (lock := locked(path))):
                    continue
                lock.release()
                found[path] = data.name, name
            for path in _leftovers(data, name, unfinished, damaged):
                found[path] = data.name, name
    return found


def _leftovers(data, name, unfinished, damaged):
    kind, dash, _ = name.partition("-")
    if dash:
        for path in sorted(filter(is_file, data.glob(f"{name}.json*"))):
            if kind in KINDS and KEPT.fullmatch(path.name):
                with suppress(UnreadableError):
                    if path.name.endswith(".writing") or (damaged and unpack(path)[1]):
                        yield path
        return
    trial, partial = Trial(data / name), data / ".partial" / name
    with suppress(LabError):  # unreadable, or of another version: leave it
        if is_folder(partial.parent) and ours(partial):  # False for a link to a folder
            begun = inside(partial)
            if any(map(epoch_of, begun)) and not (unfinished or trial.finished):
                yield from (path for path in begun if path.name.endswith(".writing"))
            else:
                yield partial
        if ours(trial.folder):
            yield from (p for p in inside(trial.folder) if p.name.endswith(".writing"))
            if damaged and trial.damage():
                yield trial.folder


def not_removable(store):
    """Return the folders of damaged trials that `stale` skips since they contain other files."""
    left = []
    for folder in (p for data in data_folders(store.root) for p in inside(data)):
        trial = Trial(folder)
        if is_folder(folder) and not ours(folder) and is_file(folder / "DONE"):
            with suppress(LabError):
                if re.fullmatch(HEX, folder.name) and trial.digests and trial.damage():
                    left.append(folder)
    return left


def remove(store, agreed, unfinished=False, damaged=False):
    """Remove the paths that `stale` found with the same options, if they are still stale.

    Args:
        agreed: the result of `stale`, or a part of it.

    Returns:
        list of the removed paths.
    """
    for fingerprint, name in dict.fromkeys(agreed.values()):
        with store.claim(fingerprint, name) as mine:  # releasing the claim removes its lock
            left = _leftovers(store.root / fingerprint, name, unfinished, damaged) if mine else ()
            for path in list(left):
                if path in agreed:
                    with suppress(OSError):
                        discard(path)
    return [path for path in agreed if not os.path.lexists(path)]
