"""Files that are complete or missing, whatever stops the process or the machine that writes them.

Every write ends on the disk: the content is synced before a rename makes it visible, and the folder
is synced after it. All of it goes through `os`, so that tests can stop it at each operation.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 1 << 26  # of a text that the lab reads back; its own stay below a hundredth of it


def read_file(path, most=MOST_BYTES):
    """Read a regular file.

    Raises:
        OSError: it is a pipe, a device or a folder, which could block or never end; it is larger
            than `most` bytes; or it cannot be read.
    """
    _regular(os.stat(path), path, most)  # first: to open a device can have effects
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
    """The size of a file that may be read."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return status.st_size


def write_file(path, content):
    """Write bytes to a file and sync it; its folder is not synced yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder):
    """Sync the names in a folder: after a power cut they are as they are now."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be passed through and not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without this
            raise
    finally:
        os.close(descriptor)


def make_folder(path):
    """Make a folder, its missing parents too, and sync its entry.

    The entry is synced also if the folder exists: its maker may have ended before.
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
    """Rename a file or folder, whose content is synced, to its place, and sync the rename."""
    os.replace(aside, path)
    sync_folder(Path(path).parent)


def replace_file(path, content):
    """Write bytes aside and rename them to `path`; an existing file stays until then."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        write_file(aside, content)
        publish(aside, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside)


def publish_folder(files, aside, path):
    """Write a folder's files aside and rename it to `path`, which does not exist yet.

    Args:
        files: name -> bytes, written in this order.
        aside: an empty folder on the same file system.
    """
    for name, content in files.items():
        write_file(aside / name, content)
    sync_folder(aside)
    publish(aside, path)
