"""Create or update .venv: an editable labrnn, and the packages that pylock.toml lists.

Arguments are extras: `test`, `cluster`. The script needs only Python 3.10 or newer. Debian's Python
has neither pip nor ensurepip, so it uses the pip wheel beside this file. That pip reads the user's
settings (PIP_INDEX_URL, PIP_FIND_LINKS, proxies, pip.conf), except those that change the
installation folder.

On Linux PyTorch has two builds: that of the package index needs gigabytes of CUDA libraries, and
PyTorch's own index has one for the CPU. Without an NVIDIA device the script installs the CPU build
if it can be downloaded. LABRNN_TORCH=cpu or cuda overrides the choice.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - checked here for all
    sys.exit(
        f"labrnn needs Python 3.10 or newer, and {sys.executable} is {sys.version.split()[0]}. "
        "If there is a newer one, name it: make PYTHON=python3.12 ..."
    )

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PIP = next(ROOT.glob("tools/pip-*.whl"))
LOCK, WHEELS = ROOT / "pylock.toml", ROOT / "wheels"  # the folder of the wheels in pylock.toml
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
STAMP = VENV / "labrnn-setup.txt"


# Options, which override the user's variables and pip.conf: no target, root of the file system.
PLACE = ["--no-user", "--target", "", "--root", VENV.anchor, "--prefix", str(VENV)]
# Prints the requirements that pylock.toml selects for this Python and that are not installed.
MISSING = """
import sys
sys.path.insert(0, sys.argv[1])
from importlib.metadata import PackageNotFoundError, version
from pip._internal.utils.compat import tomllib
from pip._vendor.packaging.pylock import Pylock

def there(name):
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None

with open(sys.argv[2], "rb") as file:
    lock = Pylock.from_dict(tomllib.load(file))
for package, wheel in lock.select(extras=sys.argv[3:]):
    if there(package.name) != str(package.version):
        print(f"{package.name}=={package.version} --hash=sha256:{wheel.hashes['sha256']}")
"""


def environment() -> dict[str, str]:
    """Return the user's variables, without those that select another Python or its packages."""
    others = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "PIP_PYTHON")
    return {name: value for name, value in os.environ.items() if name not in others}


def wanted() -> tuple[str, str]:
    """Return the two parts of a stamp: place and Python version; digest of what is installed."""
    sources = [ROOT / "pyproject.toml", LOCK, PIP]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} in {VENV}\n", digest


def missing(*extras: str) -> list[str]:
    """Return the lines of a requirements file, with hashes, for the packages to install."""
    command = [PYTHON, "-s", "-c", MISSING, PIP, LOCK, *extras]
    return subprocess.check_output(command, env=environment(), text=True).splitlines()


def install(pip: list, extras: list[str]) -> None:
    """Download the missing wheels to `wheels/`, then install them and labrnn."""
    WHEELS.mkdir(exist_ok=True)
    requirements, download = WHEELS / "requirements.txt", [*pip, "download", "--no-input"]
    download += ["--no-deps", "--only-binary", ":all:", "--dest", WHEELS]
    torch = next((line for line in missing("torch") if line.startswith("torch==")), "")
    if torch and wants_cpu_build():
        build = f"{torch.split()[0]}+cpu"
        print(f"No NVIDIA device: {build}, the build for the CPU, is looked for.", flush=True)
        cpu = [*download, "--retries", "1", "--timeout", "20", "--extra-index-url"]
        cpu += [CPU_BUILDS, build]
        done = subprocess.run(cpu, env=environment())
        if done.returncode and os.environ.get("LABRNN_TORCH") == "cpu":
            raise subprocess.CalledProcessError(done.returncode, cpu)
        if done.returncode:
            lost = f"{CPU_BUILDS} is not reached: PyTorch comes with its CUDA libraries."
            print(lost, flush=True)
        else:
            torch = ""
    if torch:
        extras = [*extras, "torch"]
    requirements.write_text("\n".join(missing(*extras)) + "\n")
    locked = ["--require-hashes", "--requirement", requirements]
    subprocess.run([*download, *locked], check=True, env=environment())

    command = [*pip, "install", "--no-input", "--no-warn-script-location", "--no-deps", *PLACE]
    lock = f"{LOCK}[{','.join(extras)}]" if extras else LOCK
    locked = ["--no-index", "--requirement", lock]
    subprocess.run([*command, *locked], check=True, env=environment())
    rest = [*WHEELS.glob("torch-*+cpu-*.whl"), PIP, "--editable", ROOT]
    subprocess.run([*command, *rest], check=True, env=environment())
    size = sum(path.stat().st_size for path in WHEELS.glob("*.whl"))
    print(f"Downloaded {size / 1e6:.0f} MB.")
    shutil.rmtree(WHEELS)


def wants_cpu_build() -> bool:
    """Whether to use PyTorch's index; outside Linux the usual build is for the CPU."""
    wish = os.environ.get("LABRNN_TORCH", "")
    nvidia = Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")
    return sys.platform == "linux" and (wish == "cpu" or not (wish == "cuda" or nvidia))


def main() -> None:
    place, digest = wanted()
    found = STAMP.read_text() if STAMP.exists() else None
    extras = sorted({*sys.argv[1:], *re.findall(r"^extra (\w+)$", found or "", re.M)})
    finished = place + digest + "".join(f"\nextra {name}" for name in extras)
    if PYTHON.exists() and found == finished:
        return
    print(f"Setting up {VENV}: some minutes the first time.", flush=True)
    # Clear what an interrupted set-up left, and an environment that was moved. One without a stamp
    # belongs to the user: add to it, never clear it.
    stale = found is not None and not (PYTHON.exists() and found.startswith(place))
    users_own = found is None and PYTHON.exists()
    if stale or not PYTHON.exists():
        venv.create(VENV, clear=stale, symlinks=os.name != "nt")
    if not users_own:
        STAMP.write_text("unfinished\n")
    pip = [PYTHON, "-s", PIP / "pip"]
    try:
        install(pip, extras)
    except (subprocess.CalledProcessError, KeyboardInterrupt) as fault:
        if found and not stale and not isinstance(fault, KeyboardInterrupt):
            STAMP.write_text(found)  # e.g. no network: pip has changed nothing
        sys.exit("Set-up did not finish, see above. To continue, run the same command again.")
    for check in (["show", "--quiet", "labrnn"], ["check"]):
        done = subprocess.run([*pip, *check], env=environment(), capture_output=True, text=True)
        if done.returncode:
            named = sorted(name for name in os.environ if name.startswith(("PIP_", "PYTHON")))
            sys.exit(
                f"Set-up did not finish: {(done.stdout + done.stderr).strip()[:2000]}\n"
                f"A setting of pip keeps packages away ({', '.join(named) or 'no PIP_ variable'}; "
                "`pip config list` shows pip.conf). Remove it and run the same command again."
            )
    STAMP.write_text(finished)


if __name__ == "__main__":
    main()
