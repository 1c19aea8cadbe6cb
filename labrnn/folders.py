"""Folders that the user means, and folders that libraries need."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from labrnn.errors import LabError

# A kernel's sockets are files; the system's limit is 108 bytes on Linux, 104 on macOS.
LONGEST_TMPDIR = 104 - len("/labrnn-12345678/kernel-1234567890ab.json-ipc-5")
# Variables by which libraries find a folder of their own, and the default below the user's home.
CACHES = {
    "XDG_CACHE_HOME": ".cache",
    "IPYTHONDIR": ".ipython",
    "MPLCONFIGDIR": ".config/matplotlib",
    "JUPYTER_RUNTIME_DIR": ".local/share/jupyter/runtime",
}


def absolute(path):
    """Return the absolute path that a user means; `~` is the home.

    A relative path starts in the caller's folder. For a notebook that is where Jupyter was started:
    its kernel runs in the notebook's folder.

    Raises:
        LabError: a kernel cannot find the folder in which Jupyter was started.
        RuntimeError, ValueError: no such home; a NUL.
    """
    path = Path(path).expanduser()
    if "\0" in str(path):
        raise ValueError("it holds a NUL")
    if path.is_absolute():
        return path
    jupyter = os.environ.get("JPY_PARENT_PID", "")
    if not jupyter:
        return path.absolute()
    try:
        return Path(os.readlink(f"/proc/{int(jupyter)}/cwd"), path)
    except (OSError, ValueError):
        raise LabError(
            f"{path}: a relative path, but the folder of Jupyter's start is not known; write an "
            "absolute path (LABRNN_DATA, LABRNN_STORE, LABRNN_CACHE, or the parameter)"
        ) from None


def choose_tmpdir():
    """Replace a TMPDIR that is missing, cannot be written or is too long for sockets.

    Raises:
        LabError: there is no folder for temporary files.
    """
    try:
        candidates = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    except FileNotFoundError:
        candidates = []
    fit = [f for f in candidates if _short(f) and _writable(f)]
    if not fit:
        raise LabError(
            f"TMPDIR={os.environ.get('TMPDIR', '')}: no folder for temporary files, in UTF-8 and of at most "
            f"{LONGEST_TMPDIR} bytes; set TMPDIR to a short path that you can write"
        )
    os.environ["TMPDIR"] = tempfile.tempdir = fit[0]


def _short(folder):
    """Whether sockets fit into a folder; its name is written into files as UTF-8."""
    try:
        return len(folder.encode()) <= LONGEST_TMPDIR
    except UnicodeEncodeError:
        return False


def provide_caches():
    """Give libraries a temporary folder for their caches where the user's home cannot be written.

    Numba would raise an error, Jupyter would not start a kernel.
    """
    home = os.path.expanduser("~")
    missing = {
        name: default
        for name, default in CACHES.items()
        if not _writable(os.environ.get(name) or os.path.join(home, default))
    }
    if missing:
        own = tempfile.mkdtemp(prefix="home-of-labrnn-")
        atexit.register(_remove, own, os.getpid())
        os.environ.update({name: os.path.join(own, default) for name, default in missing.items()})


def _remove(folder, owner):
    if os.getpid() == owner:  # not a fork of it
        shutil.rmtree(folder, ignore_errors=True)


def _writable(folder):
    """Whether files can be made in a folder, or in the first that exists above it."""
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
