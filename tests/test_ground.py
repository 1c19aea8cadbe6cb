"""Foundations of the project: set-up, pinned versions, clean sources."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from importlib.metadata import metadata, packages_distributions, requires
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field
from tree import lock

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = ["linux-x86_64", "linux-aarch64", "darwin-arm64", "win32-AMD64"]


def run(*command, **kwargs):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **kwargs)


def sources():
    """Yield every file that git would track, without using git."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name != ".git" and not any((here / name).match(pattern) for pattern in ignored)
        ]
        yield from (
            here / name for name in files if name != ".git"
        )  # `.git` is a file in a worktree


def system(python, name):
    """Return the arguments of `Pylock.select` for a Python version on a system."""
    platform, machine = name.split("-")
    values = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": platform,
        "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[platform],
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": machine,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    places = {
        "linux": [f"manylinux_2_{n}_{machine}" for n in range(28, 4, -1)]
        + [f"manylinux{year}_{machine}" for year in (2014, 2010, 1)],
        "darwin": list(mac_platforms((14, 0), machine)),
        "win32": ["win_amd64"],
    }[platform]
    version = tuple(map(int, python.split(".")))
    tags = [*cpython_tags(version, platforms=places)]
    tags += compatible_tags(version, f"cp{version[0]}{version[1]}", places)
    return {"environment": values, "tags": tags}


def pins(python="3.11", name="linux-x86_64", extras=("test", "cluster", "torch")):
    """Return canonical name -> exact version in pylock.toml for a Python version and system."""
    selected = lock().select(**system(python, name), extras=extras)
    return {package.name: f"=={package.version}" for package, _ in selected}


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


def test_sources_contain_no_machine_specific_paths():
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
    ("python", "name"),
    list(product(["3.10", "3.11", "3.12", "3.13", "3.14"], SYSTEMS)),
)
def test_the_lock_has_a_wheel_of_every_dependency(python, name):
    """`select` raises if a package has no wheel for the system."""
    wanted = {}
    for line in (Requirement(line) for line in requires("labrnn")):
        wanted[canonicalize_name(line.name)] = line.specifier
    pinned = pins(python, name)
    assert set(wanted) <= set(pinned), set(wanted) - set(pinned)
    assert all(wanted[each].contains(pinned[each].removeprefix("==")) for each in wanted)
    plain = pins(python, name, extras=())
    assert {"torch", "pytest", "dask"} & set(plain) == set()
    assert plain.items() < pinned.items()


def test_lock_contains_no_url_and_hashes_every_wheel():
    text = (ROOT / "pylock.toml").read_text()
    assert "://" not in text
    for package in lock().packages:
        for wheel in package.wheels:
            assert wheel.path == f"wheels/{wheel.filename}"
            assert re.fullmatch("[0-9a-f]{64}", wheel.hashes["sha256"])
            assert wheel.size > 0


def test_environment_yml_matches_the_tested_versions():
    text = (ROOT / "environment.yml").read_text()
    lines = [line for line in text.splitlines() if "- " in line and not line.endswith("pip:")]
    assert all(re.search(r" # \w", line) for line in lines)
    pip = yaml.safe_load(text)["dependencies"][-1]["pip"]
    assert pip[-1] == "--editable ."
    wanted = (Requirement(line) for line in requires("labrnn"))
    names = {r.name for r in wanted if not r.marker or r.marker.evaluate({"extra": "test"})}
    tested = pins()
    assert sorted(pip[:-1]) == sorted(f"{name}{tested[canonicalize_name(name)]}" for name in names)


def imported(path):
    """Yield the top-level names of a module's third-party imports."""
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
            distributions = {
                canonicalize_name(home) for home in homes.get(name, [name])
            }  # an extra may be missing
            assert distributions & declared, f"{path} imports {name}"


# Set-up, with a fake pip that only records its calls


PIP = """
import os, sys, sysconfig
verb, options = sys.argv[1], sys.argv[2:]
assert "PYTHONPATH" not in os.environ
if verb == "check":
    sys.exit(os.environ.get("PIP_CHECK"))
if verb == "show":
    there = os.path.exists(sysconfig.get_path("purelib") + "/labrnn-1.dist-info")
    sys.exit(None if there else "Package(s) not found: labrnn")
if verb == "download":
    asked = options[-1]
    with open(os.path.join(sys.prefix, "downloads"), "a") as file:
        file.write((open(asked).read() if asked.endswith(".txt") else asked) + chr(10))
    if "+cpu" in asked and "PIP_NO_CPU" not in os.environ:
        place = options[options.index("--dest") + 1]
        name = asked.replace("==", "-") + "-py3-none-any.whl"
        open(os.path.join(place, name), "wb").write(b"0" * 3_000_000)
    sys.exit("+cpu" in asked and os.environ.get("PIP_NO_CPU"))
assert verb == "install" and "--no-deps" in options
assert options[options.index("--prefix") + 1] == sys.prefix and "--no-user" in options
with open(os.path.join(sys.prefix, "installs"), "a") as file:
    file.write(" ".join(options) + chr(10))
if "--editable" not in options:
    assert "--no-index" in options
    sys.exit(0)
open(os.path.join(sys.prefix, "calls"), "a").write(".")
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
    for name in ("tools/bootstrap.py", "pyproject.toml", "pylock.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    with (
        zipfile.ZipFile(next(ROOT.glob("tools/pip-*.whl"))) as real,
        zipfile.ZipFile(folder / "tools/pip-0.whl", "w") as wheel,
    ):
        for name in real.namelist():
            wheel.writestr(name, PIP if name == "pip/__main__.py" else real.read(name))
    return folder


def set_up(folder, *extras, fails="0", **variables):
    """Run set-up; return exit code, output and the number of pip runs since .venv was made."""
    environment = os.environ | {"PIP_FAILS": fails, "LABRNN_TORCH": "cpu"} | variables
    result = run(sys.executable, folder / "tools/bootstrap.py", *extras, env=environment)
    return result.returncode, result.stdout + result.stderr, (folder / ".venv/calls").stat().st_size


def test_set_up_is_done_once(project):
    assert set_up(project)[::2] == (0, 1)
    assert set_up(project) == (0, "", 1)
    assert not (project / "wheels").exists()


def test_extras_are_added_and_kept(project):
    assert "--requirement " + f"{project}/pylock.toml\n" in installed(project, set_up(project))
    assert "pylock.toml[test]" in installed(project, set_up(project, "test"))
    assert "pylock.toml[cluster,test]" in installed(project, set_up(project, "cluster"))
    assert set_up(project, "test") == (0, "", 3)
    assert set_up(project) == (0, "", 3)


def installed(project, done):
    """Return the options of the last installation from the lock."""
    assert done[0] == 0, done[1]
    return (project / ".venv/installs").read_text().splitlines(keepends=True)[-2]


@pytest.mark.skipif(sys.platform != "linux", reason="one build elsewhere")
def test_torch_without_a_gpu(project):
    """The CPU build is installed without CUDA libraries; the download size is printed."""
    code, said, _ = set_up(project)
    asked = (project / ".venv/downloads").read_text()
    assert code == 0
    assert f"torch{pins()['torch']}+cpu, the build for the CPU" in said
    assert "Downloaded 3 MB." in said
    assert "nvidia" not in asked
    names = {line.partition("==")[0] for line in asked.split("\n")[1:] if line}
    assert all("--hash=sha256:" in line for line in asked.split("\n")[1:] if line)
    assert names == {package.name for package, _ in lock().select()}


@pytest.mark.skipif(sys.platform != "linux", reason="one build elsewhere")
@pytest.mark.parametrize(
    ("requested", "no_cpu", "code", "says"),
    [
        ("cuda", None, 0, ""),
        ("cpu", "1", 1, "Set-up did not finish"),
        ("", "1", 0, "is not reached: PyTorch comes with its CUDA libraries"),
    ],
)
def test_torch_build_follows_request_and_availability(project, requested, no_cpu, code, says):
    variables = {"PIP_NO_CPU": no_cpu} if no_cpu else {}
    if not requested and Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA device")
    (project / ".venv").mkdir()
    (project / ".venv/calls").touch()
    done, said, _ = set_up(project, LABRNN_TORCH=requested, **variables)
    assert (done, says in said) == (code, True)
    asked = (project / ".venv/downloads").read_text()
    assert ("+cpu" in asked) == (requested != "cuda")
    assert ("nvidia-nccl" in asked) == (code == 0)


@pytest.mark.parametrize(
    ("variables", "says"),
    [({"PIP_NOTHING": "1"}, "not found: labrnn"), ({"PIP_CHECK": "numba needs numpy"}, "numpy")],
    ids=["without labrnn", "without a dependency"],
)
def test_incomplete_set_up_is_not_finished(project, variables, says):
    code, said, _ = set_up(project, **variables)
    assert code == 1
    assert says in said
    assert ", ".join(variables) in said
    assert set_up(project)[::2] == (0, 1)  # started over


WHEEL = {
    "small/__init__.py": "",
    "small-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1\n",
    "small-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "small-1.dist-info/RECORD": "",
}


@pytest.mark.parametrize("name", ["user", "target", "prefix", "root", "variable"])
def test_pip_settings_do_not_change_the_target(project, tmp_path, name):
    """Use the project's own pip and options with a wheel of one module."""
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


def test_changed_lock_repeats_the_set_up(project):
    set_up(project)
    with (project / "pylock.toml").open("a") as file:
        file.write("# newer\n")
    assert set_up(project)[::2] == (0, 2)


def test_unfinished_set_up_starts_over(project):
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


def test_failed_update_keeps_the_environment(project):
    set_up(project)
    with (project / "pylock.toml").open("a") as file:
        file.write("# newer\n")
    assert set_up(project, fails="1")[::2] == (1, 2)
    assert set_up(project)[::2] == (0, 3)


# Files read by other services


def test_the_workflow_runs_the_ci():
    """It uses the oldest and newest Python of the lock and uploads the PDFs."""
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    found = yaml.safe_load(text)
    assert set(found[True]) == {"push", "pull_request"}  # YAML reads `on` as a boolean
    job = found["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.14"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[0] == "bash .ci/run"
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in commands[1:]:
        program, target = command.split()
        assert (program, target in targets) == ("make", True), command
    steps = (ROOT / ".ci/run").read_text()
    made = re.findall(r"^make (.*)", steps, re.M)
    assert made == ['setup EXTRAS="test cluster"', "coverage", "others"]
    assert {"coverage", "others"} <= {*targets}
    kept = [step["with"]["path"] for step in job["steps"] if "upload" in step.get("uses", "")]
    assert [list(ROOT.glob(path)) != [] for path in kept] == [True]


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    family: str | None = Field(None, alias="family-names")
    given: str | None = Field(None, alias="given-names")
    name: str | None = None


class Citation(BaseModel):
    """Requirements of the Citation File Format 1.2.0 on the fields in use."""

    model_config = ConfigDict(extra="forbid")
    version_of_format: Literal["1.2.0"] = Field(alias="cff-version")
    title: str
    message: str
    type: Literal["software", "dataset"]
    authors: list[Person] = Field(min_length=1)
    version: str
    license: str
    abstract: str
    keywords: list[str]
    references: list[dict]


def test_the_citation_file_is_valid_and_names_this_version():
    # PyYAML reads 1.2.0 and 0.1.0 as text
    found = Citation(**yaml.safe_load((ROOT / "CITATION.cff").read_text()))
    ours = metadata("labrnn")
    assert (found.version, found.license) == (ours["Version"], ours["License-Expression"])
    for reference in found.references:
        assert {"type", "title", "authors"} <= set(reference)
        assert [Person(**author) for author in reference["authors"]]


def test_dev_container_matches_the_readme():
    found = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert found["postCreateCommand"] == "make setup EXTRAS=test"
    python = re.search(r"python:(3\.\d+)$", found["image"])[1]
    assert pins(python)
    interpreter = found["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == ".venv/bin/python"


def test_changelog_begins_with_unreleased():
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"


def test_contributing_page_names_existing_things():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\bmake (\w+)", page):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target
    (test,) = re.findall(r"pytest (tests/\S+) -k (\w+)", page)
    assert re.search(rf"def test_\w*{test[1]}", (ROOT / test[0]).read_text())


# Start-up and storage


def test_start_up_imports_neither_torch_nor_sklearn():
    command = (
        "import sys, labrnn.lab, labrnn.reports.batch; print({'torch', 'sklearn'} & {*sys.modules})"
    )
    assert run(sys.executable, "-c", command).stdout == "set()\n"


def test_git_does_not_convert_stored_trials():
    """Converted line endings would make them look damaged."""
    asked = run("git", "check-attr", "text", "reports/full/trials.csv")
    if asked.returncode:
        pytest.skip("no git, or no repository")
    assert asked.stdout.endswith("text: unset\n")
