"""Watch the disk operations of a process through `os`.

A process is killed at its n-th operation, or its operations are recorded and replayed as after a
power cut. A power cut keeps what was synced. Everything else may be lost: the data of a file since
its last `fsync`, and the names in a folder since the `fsync` of the folder (Pillai et al. 2014,
Mohan et al. 2018).
"""

import builtins
import io
import os
import random
import signal
import traceback
from contextlib import contextmanager
from pathlib import Path

CHANGING = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "fsync", "write", "truncate")
REAL = {name: getattr(os, name) for name in (*CHANGING, "open", "close")}
OPEN = open
CREATES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@contextmanager
def watched(before=None, after=None):
    """Call `before(name, args)` and `after(name, args, result)` around each disk operation."""

    def guarded(name):
        def call(*args, **kwargs):
            counts = name not in ("open", "close") or (name == "open" and args[1] & CREATES)
            if before and counts:
                before(name, args)
            result = REAL[name](*args, **kwargs)
            if after:
                after(name, args, result)
            return result

        return call

    def opened(path, mode="r", *args, **kwargs):
        if before and set(mode) & set("wax+"):
            before("open", (path,))
        return OPEN(path, mode, *args, **kwargs)

    try:
        for name in REAL:
            setattr(os, name, guarded(name))
        builtins.open = io.open = opened
        yield
    finally:
        for name, function in REAL.items():
            setattr(os, name, function)
        builtins.open = io.open = OPEN


def operations(work):
    """Names of the operations of some work, in order."""
    names = []
    with watched(lambda name, args: names.append(name)):
        work(lambda note: None)
    return names


def started(n, work):
    """Do some work in a child process that is killed with SIGKILL before its n-th operation.

    A write is killed halfway: the first half of its data is on the disk.

    Returns:
        (process ID of the child, pipe from which its notes can be read)
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    left = n

    def count(name, args):
        nonlocal left
        left -= 1
        if not left:
            if name == "write":
                REAL["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        with watched(count):
            work(lambda note: REAL["write"](writer, f"{note}\n".encode()))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child, status):
    """Return whether a child was killed; assert that it succeeded otherwise."""
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), (child, code)
    return code != 0


def killed_at(n, work):
    """Like `started`, but return whether it was killed and what it had noted."""
    child, reader = started(n, work)
    with open(reader) as noted:
        notes = noted.read().splitlines()
    return ended(*os.waitpid(child, 0)), notes


class Recording:
    """Operations of some work under a folder that is empty at the start.

    Attributes:
        log: tuples: `create`, `mkdir`, `rename`, `remove` of names in folders; `write`, `truncate`
            of files; `sync` of either; `note` of what the work noted. Files and folders are
            numbers; the root is 0.
    """

    def __init__(self, root, work):
        self.root, self.log = Path(root), []
        self.nodes, self.open, self.count = {self.root: 0}, {}, 0
        with watched(after=self._record):
            work(lambda note: self.log.append(("note", note)))

    def _new(self, path):
        self.count += 1
        self.nodes[path] = self.count
        return self.nodes[path.parent], path.name, self.count

    def _record(self, name, args, result):
        if name in ("write", "fsync", "close"):
            node = self.open.get(args[0])
            if node is None:
                return
            if name == "write":
                self.log.append(("write", node, bytes(args[1])[:result]))
            elif name == "fsync":
                self.log.append(("sync", node))
            else:
                del self.open[args[0]]
            return
        path = Path(args[0])
        if not path.is_relative_to(self.root):
            return
        if name == "open":
            if path not in self.nodes:
                self.log.append(("create", *self._new(path)))
            elif args[1] & os.O_TRUNC:
                self.log.append(("truncate", self.nodes[path]))
            self.open[result] = self.nodes[path]
        elif name == "mkdir":
            self.log.append(("mkdir", *self._new(path)))
        elif name in ("unlink", "remove", "rmdir"):
            node = self.nodes.pop(path)
            self.log.append(("remove", self.nodes[path.parent], path.name, node))
        else:
            assert name in ("rename", "replace"), name
            target = Path(args[1])
            moved = {p: n for p, n in self.nodes.items() if p.is_relative_to(path)}
            self.nodes = {p: n for p, n in self.nodes.items() if not p.is_relative_to(target)}
            self.nodes = {p: n for p, n in self.nodes.items() if p not in moved}
            self.nodes |= {target / p.relative_to(path): n for p, n in moved.items()}
            ends = [(self.nodes[p.parent], p.name) for p in (path, target)]
            self.log.append(("rename", *ends[0], *ends[1], moved[path]))

    def cut(self, n, folder, luck):
        """Write what may be on the disk if the power is cut after n operations.

        Args:
            folder: an empty folder.
            luck: called for everything that was not synced. Above 0.5 it survives; for the data
                of a file, the value is the share of bytes that survives.

        Returns:
            What the work had noted.
        """
        log = self.log[:n]
        synced = {}
        for i, (kind, node, *_) in enumerate(log):
            if kind == "sync":
                synced[node] = i
        folders, files = {0: {}}, {}
        for i, (kind, *rest) in enumerate(log):
            if kind in ("write", "truncate"):
                content = files.get(rest[0], b"")
                if synced.get(rest[0], -1) > i:
                    files[rest[0]] = content + rest[1] if kind == "write" else b""
                elif kind == "write":
                    files[rest[0]] = content + rest[1][: round(len(rest[1]) * luck())]
                elif luck() > 0.5:
                    files[rest[0]] = b""
            elif kind in ("create", "mkdir", "rename", "remove"):
                place = rest[2] if kind == "rename" else rest[0]
                if synced.get(place, -1) < i and luck() < 0.5:
                    if kind == "mkdir":
                        folders[rest[2]] = {}  # its name is missing, or appears only after a rename
                    continue
                if kind == "remove":
                    folders[rest[0]].pop(rest[1], None)
                elif kind == "rename":
                    if folders[rest[0]].get(rest[1]) == rest[4]:
                        del folders[rest[0]][rest[1]]
                    folders[rest[2]][rest[3]] = rest[4]
                else:
                    folders[rest[0]][rest[1]] = rest[2]
                    if kind == "mkdir":
                        folders[rest[2]] = {}

        def write_out(node, path):
            for name, inner in folders[node].items():
                if inner in folders:
                    (path / name).mkdir()
                    write_out(inner, path / name)
                else:
                    (path / name).write_bytes(files.get(inner, b""))

        write_out(0, folder)
        return [rest[0] for kind, *rest in log if kind == "note"]


def survival_cases(seed, some):
    """Yield cases in which nothing unsynced survives, all of it, or random parts."""
    yield lambda: 0.0
    yield lambda: 1.0
    for n in range(some):
        yield random.Random(f"{seed} {n}").random
