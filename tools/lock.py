"""Write pylock.toml (PEP 751), with the hashes of every package, from uv's resolution: `make lock`.

Versions in the existing lock are kept and new packages added; `make lock UPGRADE=--upgrade` updates
all. URLs are left out, so that any index or mirror can be used: the path of a wheel is in
`wheels/`, to which `make setup` downloads it. PyTorch and its CUDA libraries have their own extra,
`torch`.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "pylock.toml"
UV = Path(sys.executable).with_name("uv")
EXTRAS = ("test", "cluster")
FIELD = re.compile(r'^(name|version|marker) = "(.*)"$', re.M)
WHEEL = re.compile(r'\{ url = "[^"]*/([^/"]+\.whl)", upload-time = \S+, (size = .*? \} \})')
# CPython 3.10 to 3.14 (not free-threaded) on glibc, macOS and 64-bit Windows.
TAG = re.compile(r"-(cp3\d+-abi3|cp31[0-4]-cp31[0-4]|(?:py2\.)?py3-none|cp31[0-4]-none)-(.+)\.whl$")
SYSTEM = re.compile(r"any|manylinux.*_(x86_64|aarch64)|macosx.*|win_amd64")
ONLY_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
IN_EXTRAS = re.compile(r"(?:\((.*)\) and )?(?:\('\w+' in extras.*\)|'\w+' in extras)")


def compiled(path, *options):
    """Let uv write the packages that pyproject.toml needs to a file, and return its text."""
    command = [UV, "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"]
    command += ["--no-annotate", "--no-header", *options, "--output-file", path]
    subprocess.run([*command, ROOT / "pyproject.toml"], check=True, stdout=subprocess.DEVNULL)
    return path.read_text()


def requirement(package):
    """Return the requirement line for a package's text in the lock."""
    values = dict(FIELD.findall(package))
    marker = values.get("marker", "")
    if ours := IN_EXTRAS.fullmatch(marker):
        marker = ours[1] or ""
    return f"{values['name']}=={values['version']}" + (f" ; {marker}" if marker else "")


def locked(package, extras):
    """Return a package's text in the lock, from uv's text and the extras that need it."""
    values = dict(FIELD.findall(package))
    if ONLY_TORCH.fullmatch(values["name"]):
        extras = ["torch"]
    if extras:
        wanted = " or ".join(f"'{extra}' in extras" for extra in extras)
        wanted = f"({wanted})" if len(extras) > 1 else wanted
        marker = values.get("marker")
        values["marker"] = f"({marker}) and {wanted}" if marker else wanted
    wheels = [(name, rest) for name, rest in WHEEL.findall(package) if fits(name)]
    if not wheels:
        sys.exit(f"{values['name']}: no wheel for any system that the lab supports")
    lines = [f'{name} = "{value}"' for name, value in values.items()]
    lines += [
        "wheels = [",
        *(f'    {{ path = "wheels/{name}", {rest},' for name, rest in wheels),
        "]",
    ]
    return "\n".join(["[[packages]]", *lines, ""])


def fits(wheel):
    """Whether a wheel is for a supported system."""
    tag = TAG.search(wheel)
    return tag and any(SYSTEM.fullmatch(system) for system in tag[2].split("."))


def main():
    old = LOCK.read_text().split("[[packages]]\n")[1:] if LOCK.exists() else []
    with tempfile.TemporaryDirectory() as name:
        versions, folder = Path(name, "versions.txt"), Path(name)
        versions.write_text("\n".join(map(requirement, old)))
        compiled(versions, "--all-extras", *sys.argv[1:])
        same = ["--constraint", versions]
        needs = {
            extra: compiled(folder / f"{extra}.txt", *same, *(["--extra", extra] if extra else []))
            for extra in ("", *EXTRAS)
        }
        text = compiled(folder / "pylock.toml", *same, "--all-extras", "--format", "pylock.toml")
    names = {extra: set(re.findall(r"^[\w.-]+", text, re.M)) for extra, text in needs.items()}
    head, *packages = text.split("[[packages]]\n")
    found = []
    for package in packages:
        name = FIELD.search(package)[2]
        extras = [] if name in names[""] else [e for e in EXTRAS if name in names[e]]
        found.append(locked(package, extras))
    declared = ", ".join(f'"{extra}"' for extra in (*EXTRAS, "torch"))
    head = f"# Written by `make lock`.\n{head.rstrip()}\nextras = [{declared}]\n\n"
    LOCK.write_text(head + "\n".join(found))


if __name__ == "__main__":
    main()
