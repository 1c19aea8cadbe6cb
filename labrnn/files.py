"""Atomic file writes: after a crash or a power cut a file is either complete or missing.

The content is synced to disk before a rename makes it visible, and the folder is synced after the
rename. All operations go through `os`, so tests can interrupt a write at each of them.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 1 << 26  # limit for text files; those of labrnn are below a hundredth of it


def read_file(path, most=MOST_BYTES):
    """Read a regular file of at most `most` bytes.

    Raises:
        OSError: the path is a pipe, device or folder, which could block or never end; the file is
            larger than `most` bytes; or it cannot be read.
    """
    _regular(os.stat(path), path, most)  # before opening: opening a device can have side effects
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        left, parts = _regular(os.fstat(descriptor), path, most), []
        while left and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _regular(status, path, most):
    """Return the size of a file in bytes; see `read_file` for errors."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return status.st_size


def write_file(path, content):
    """Write bytes to a file and sync it, but not its folder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder):
    """Sync a folder, so that its entries survive a power cut."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder with search but without read permission
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)


def make_folder(path):
    """Make a folder and its missing parents, and sync their entries.

    The entry of an existing folder is synced too: the process that made it may have died before.

    Raises:
        NotADirectoryError: the path exists and is not a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        make_folder(path.parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
    sync_folder(path.parent)


def publish(aside, path):
    """Rename a synced file or folder to `path`, and sync the rename."""
    os.replace(aside, path)
    sync_folder(Path(path).parent)


def replace_file(path, content):
    """Replace a file atomically: write the bytes to a temporary name, then rename it to `path`."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        write_file(aside, content)
        publish(aside, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside)


def publish_folder(files, aside, path):
    """Write files to the folder `aside`, then rename it to `path`.

    Args:
        files: name -> bytes, written in this order.
        aside: an empty folder on the same file system.
        path: the final path, which must not exist.
    """
    for name, content in files.items():
        write_file(aside / name, content)
    sync_folder(aside)
    publish(aside, path)
