"""Make .venv, or bring it up to date: labrnn, editable, with the versions in constraints.txt.

Needs Python 3.10+ and nothing else: Debian's own Python has neither pip nor ensurepip, so the pip
that does the work lies beside this file. That pip reads the user's settings (PIP_INDEX_URL,
PIP_FIND_LINKS, proxies, pip.conf), except for those that name another place to install to.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - this file is the one that has to say so
    sys.exit(
        f"labrnn needs Python 3.10 or newer, and {sys.executable} is {sys.version.split()[0]}. "
        "If there is a newer one, name it: make PYTHON=python3.12 ..."
    )

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PIP = next(ROOT.glob("tools/pip-*.whl"))
STAMP = VENV / "labrnn-setup.txt"


# Options beat the user's variables and pip.conf; no target, and the root of the file system.
PLACE = ["--no-user", "--target", "", "--root", VENV.anchor, "--prefix", str(VENV)]
# A line for each fault; pip's own check then looks at what the packages need of each other.
CHECK = """
import importlib.metadata, sys
try:
    importlib.metadata.version("labrnn")
except importlib.metadata.PackageNotFoundError:
    sys.exit("labrnn is not in " + sys.prefix)
"""


def environment() -> dict[str, str]:
    """The user's variables, without those by which another Python or its packages would serve."""
    others = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "PIP_PYTHON")
    return {name: value for name, value in os.environ.items() if name not in others}


def wanted() -> tuple[str, str]:
    """What the stamp of a finished set-up says: where and for which Python, and what is in it."""
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt", PIP]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} in {VENV}\n", digest


def main() -> None:
    place, digest = wanted()
    found = STAMP.read_text() if STAMP.exists() else None
    if PYTHON.exists() and found == place + digest:
        return
    print(f"Setting up {VENV}: some minutes the first time.", flush=True)
    # What an interrupted set-up left is not to be trusted, and a moved environment still points to
    # its old place. An environment without a stamp is the user's own: add to it, never empty it.
    stale = found is not None and not (PYTHON.exists() and found.startswith(place))
    users_own = found is None and PYTHON.exists()
    if stale or not PYTHON.exists():
        venv.create(VENV, clear=stale, symlinks=os.name != "nt")
    if not users_own:
        STAMP.write_text("unfinished\n")
    pip = [PYTHON, "-s", PIP / "pip"]
    command = [*pip, "install", "--no-input", "--no-warn-script-location", *PLACE]
    command += ["--constraint", ROOT / "constraints.txt", PIP, "--editable", f"{ROOT}[test]"]
    try:
        subprocess.run(command, check=True, env=environment())
    except (subprocess.CalledProcessError, KeyboardInterrupt) as fault:
        if found and not stale and not isinstance(fault, KeyboardInterrupt):
            STAMP.write_text(found)  # no network, say: pip left what was there as it was
        sys.exit("Set-up did not finish, see above. To go on, run the same command again.")
    for check in ([PYTHON, "-I", "-c", CHECK], [*pip, "check"]):
        done = subprocess.run(check, env=environment(), capture_output=True, text=True)
        if done.returncode:
            named = sorted(name for name in os.environ if name.startswith(("PIP_", "PYTHON")))
            sys.exit(
                f"Set-up did not finish: {(done.stdout + done.stderr).strip()[:2000]}\n"
                f"A setting of pip keeps packages away ({', '.join(named) or 'no PIP_ variable'}; "
                "`pip config list` shows pip.conf). Remove it and run the same command again."
            )
    STAMP.write_text(place + digest)


if __name__ == "__main__":
    main()
