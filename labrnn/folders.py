"""Paths that users give, and folders that libraries need."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from labrnn.errors import LabError

PROJECT = Path(__file__).resolve().parents[1]

# A kernel's sockets are files, whose paths may have 108 bytes on Linux and 104 on macOS.
LONGEST_TMPDIR = 104 - len("/labrnn-12345678/kernel-1234567890ab.json-ipc-5")
# Variables that name a folder of a library, and its default below the user's home.
CACHES = {
    "XDG_CACHE_HOME": ".cache",
    "IPYTHONDIR": ".ipython",
    "MPLCONFIGDIR": ".config/matplotlib",
    "JUPYTER_RUNTIME_DIR": ".local/share/jupyter/runtime",
}


def absolute(path):
    """Return a user's path as an absolute path; `~` is the home.

    A relative path starts in the caller's folder. In a notebook it starts where Jupyter was
    started, since the kernel runs in the notebook's folder.

    Raises:
        LabError: a kernel cannot find the folder in which Jupyter was started.
        RuntimeError: the home of `~user` does not exist.
        ValueError: the path contains a NUL.
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
            f"{path}: a relative path, and the folder where Jupyter started is unknown; write an "
            "absolute path (LABRNN_DATA, LABRNN_STORE, LABRNN_CACHE, or the parameter)"
        ) from None


def report_folder(params, out=""):
    """Return the folder for the report of a params file: `out`, else one named after its own."""
    return Path(out) if out else PROJECT / "reports" / Path(params).resolve().parent.name


def record_of(folder, name):
    """Return the path of the record that a report was made, see `labrnn.reports.report`."""
    return Path(folder) / ".done" / f"{name}.json"


def choose_tmpdir():
    """Replace a TMPDIR that is missing, not writable or too long for sockets.

    Raises:
        LabError: no folder for temporary files is usable.
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
    """Whether a folder's name is short enough for sockets, and can be encoded as UTF-8."""
    try:
        return len(folder.encode()) <= LONGEST_TMPDIR
    except UnicodeEncodeError:
        return False


def provide_caches():
    """Give libraries a temporary folder for their caches if the user's home is not writable.

    Otherwise Numba raises an error and Jupyter does not start a kernel.
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
    if os.getpid() == owner:  # not in a forked process
        shutil.rmtree(folder, ignore_errors=True)


def _writable(folder):
    """Whether a folder is writable, or if it is missing, its nearest existing parent."""
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
