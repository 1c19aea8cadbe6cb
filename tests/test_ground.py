"""What the project stands on: set-up, pinned versions, clean sources."""

import ast
import os
import re
import runpy
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions, requires
from itertools import product
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def run(*command, **kwargs):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **kwargs)


def sources():
    """Every file that git would keep, found without git."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name != ".git" and not any((here / name).match(pattern) for pattern in ignored)
        ]
        yield from (here / name for name in files if name != ".git")  # a file in a worktree


def pins(python="3.11", system="linux"):
    """Canonical name -> exact version, as constraints.txt says for that Python and system."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "os_name": "nt" if system == "win32" else "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
    }
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if not line.startswith("#")]
    held = [r for r in wanted if r.marker is None or r.marker.evaluate(environment)]
    found = {canonicalize_name(r.name): str(r.specifier) for r in held}
    assert len(found) == len(held)
    return found


# Sources


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(arguments):
    result = run(sys.executable, "-m", "ruff", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_notebooks_are_stripped():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    result = run(sys.executable, "-m", "nbstripout", "--verify", *notebooks)
    assert result.returncode == 0, result.stdout + result.stderr


def test_sources_name_no_machine():
    bad = re.compile(
        r"(?<![\w.~])/(?:root|work|home)/\w|\b(?:pypi|pythonhosted|npmjs)\.(?:org|com)"
    )
    found = []
    for path in sources():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{n}: {line}" for n, line in enumerate(lines, 1) if bad.search(line)]
    assert not found, "\n".join(found)


# Versions


@pytest.mark.parametrize(
    ("python", "system"),
    list(product(["3.10", "3.11", "3.12", "3.13", "3.14"], ["linux", "darwin", "win32"])),
)
def test_every_dependency_is_pinned(python, system):
    names = {canonicalize_name(Requirement(line).name) for line in requires("labrnn")}
    pinned = pins(python, system)
    assert names <= set(pinned), names - set(pinned)
    assert all(re.fullmatch(r"==[\w.]+", version) for version in pinned.values())


def test_environment_yml_equals_the_tested_versions():
    text = (ROOT / "environment.yml").read_text()
    lines = [line for line in text.splitlines() if "- " in line and not line.endswith("pip:")]
    assert all(re.search(r" # \w", line) for line in lines)
    pip = yaml.safe_load(text)["dependencies"][-1]["pip"]
    assert [pip[0], pip[-1]] == ["--constraint constraints.txt", "--editable ."]
    wanted = (Requirement(line) for line in requires("labrnn"))
    names = {r.name for r in wanted if not r.marker or r.marker.evaluate({"extra": "test"})}
    tested = pins()
    assert sorted(pip[1:-1]) == sorted(f"{name}{tested[canonicalize_name(name)]}" for name in names)


def imported(path):
    """Top-level names of what a module imports from outside the standard library and labrnn."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        else:
            names = []
        yield from {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"labrnn"}


def test_every_import_is_declared():
    declared = {canonicalize_name(Requirement(line).name) for line in requires("labrnn")}
    homes = packages_distributions()
    for path in (ROOT / "labrnn").rglob("*.py"):
        for name in imported(path):
            its_homes = {
                canonicalize_name(home) for home in homes.get(name, [name])
            }  # an extra may not be there
            assert its_homes & declared, f"{path} imports {name}"


# Set-up, with a pip that only writes down that it was called


PIP = """
import os, sys, sysconfig
if sys.argv[1] == "check":
    sys.exit(os.environ.get("PIP_CHECK"))
open(os.path.join(sys.prefix, "calls"), "a").write(".")
options = sys.argv[2:]
place = options[options.index("--prefix") + 1]
assert place == sys.prefix and "--no-user" in options and "PYTHONPATH" not in os.environ
if "PIP_NOTHING" not in os.environ:
    os.makedirs(sysconfig.get_path("purelib") + "/labrnn-1.dist-info", exist_ok=True)
    with open(sysconfig.get_path("purelib") + "/labrnn-1.dist-info/METADATA", "w") as file:
        file.write("Name: labrnn\\nVersion: 1\\n")
sys.exit(int(os.environ.get("PIP_FAILS", "0")))
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "a project"
    (folder / "tools").mkdir(parents=True)
    for name in ("tools/bootstrap.py", "pyproject.toml", "constraints.txt"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    with zipfile.ZipFile(folder / "tools/pip-0.whl", "w") as wheel:
        wheel.writestr(
            "pip/__main__.py",
            PIP,
        )
    return folder


def set_up(folder, fails="0", **variables):
    """Exit code, what was printed, and how often pip has run since .venv was made."""
    environment = os.environ | {"PIP_FAILS": fails} | variables
    result = run(sys.executable, folder / "tools/bootstrap.py", env=environment)
    return result.returncode, result.stdout + result.stderr, (folder / ".venv/calls").stat().st_size


def test_set_up_is_done_once(project):
    assert set_up(project)[::2] == (0, 1)
    assert set_up(project) == (0, "", 1)


@pytest.mark.parametrize(
    ("variables", "says"),
    [({"PIP_NOTHING": "1"}, "labrnn is not in"), ({"PIP_CHECK": "numba needs numpy"}, "numpy")],
    ids=["without labrnn", "without what it needs"],
)
def test_set_up_that_left_something_out_is_not_finished(project, variables, says):
    code, said, _ = set_up(project, **variables)
    assert code == 1
    assert says in said
    assert ", ".join(variables) in said
    assert set_up(project)[::2] == (0, 1)  # begun again


WHEEL = {
    "small/__init__.py": "",
    "small-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1\n",
    "small-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "small-1.dist-info/RECORD": "",
}


@pytest.mark.parametrize("name", ["user", "target", "prefix", "root", "variable"])
def test_pip_installs_into_the_environment_whatever_its_settings_are(project, tmp_path, name):
    """The project's own pip and options, with a wheel of one module."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    with zipfile.ZipFile(tmp_path / "small-1-py3-none-any.whl", "w") as wheel:
        for path, content in WHEEL.items():
            wheel.writestr(path, content)
    place = "true" if name == "user" else tmp_path / "elsewhere"
    line = "" if name == "variable" else f"[install]\n{name} = {place}\n"
    (tmp_path / "pip.conf").write_text(line)
    settings = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PYTHONUSERBASE": str(tmp_path)}
    if name == "variable":
        settings["PIP_TARGET"] = str(place)
    python, pip = project / ".venv/bin/python", next(ROOT.glob("tools/pip-*.whl")) / "pip"
    options = runpy.run_path(str(project / "tools/bootstrap.py"))["PLACE"]
    words = ["--no-index", *options, tmp_path / "small-1-py3-none-any.whl"]
    done = run(python, "-s", pip, "install", *words, env=os.environ | settings)
    assert done.returncode == 0, done.stderr
    found = run(python, "-I", "-c", "import small; print(small.__file__)").stdout
    assert found.startswith(str(project / ".venv")), done.stdout
    assert not (tmp_path / "elsewhere").exists()


def test_set_up_follows_new_versions(project):
    set_up(project)
    with (project / "constraints.txt").open("a") as file:
        file.write("# newer\n")
    assert set_up(project)[::2] == (0, 2)


def test_unfinished_set_up_begins_afresh(project):
    code, said, _ = set_up(project, fails="1")
    assert code == 1
    assert "did not finish" in said
    (project / ".venv/half-written").touch()
    assert set_up(project)[::2] == (0, 1)
    assert not (project / ".venv/half-written").exists()


def test_moved_project_is_set_up_again(project):
    set_up(project)
    moved = project.rename(project.parent / "elsewhere")
    assert set_up(moved)[::2] == (0, 1)


def test_environment_of_the_user_is_kept(project):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    (project / ".venv/mine").touch()
    assert set_up(project, fails="1")[::2] == (1, 1)
    assert set_up(project)[::2] == (0, 2)
    assert (project / ".venv/mine").exists()


def test_failed_update_keeps_what_was_there(project):
    set_up(project)
    (project / "constraints.txt").write_text("# newer\n")
    assert set_up(project, fails="1")[::2] == (1, 2)
    assert set_up(project)[::2] == (0, 3)


# Start-up and storage


def test_a_command_starts_without_what_it_may_not_need():
    command = "import sys, labrnn.lab, labrnn.reports.batch; print('sklearn' in sys.modules)"
    assert run(sys.executable, "-c", command).stdout == "False\n"


def test_git_leaves_stored_trials_as_they_are():
    """With other line ends they would read as damaged."""
    asked = run("git", "check-attr", "text", "reports/full/trials.csv")
    if asked.returncode:
        pytest.skip("no git, or no repository")
    assert asked.stdout.endswith("text: unset\n")
