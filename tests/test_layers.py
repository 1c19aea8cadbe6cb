"""The layers of docs/structure.md: allowed imports, including those inside functions."""

import ast
import re
from graphlib import CycleError, TopologicalSorter

import pytest

from labrnn.trials.store import PROJECT

# From the lowest. A module belongs to the longest matching name. Modules of one name may import
# each other; different names of one layer may not.
LAYERS = [
    ["errors", "files", "network.registry"],
    ["folders"],
    ["config"],
    ["reviews", "published"],
    ["network"],
    ["parts"],
    ["trials"],
    ["trials.store"],
    ["trials.plan", "trials.cleaning"],
    ["trials.job"],
    ["trials.pool", "trials.cluster", "trials.progress"],
    ["trials.running"],
    ["results"],
    ["lab"],
    ["reports"],
    ["reports.kernel"],
    ["reports.report"],
    ["reports.preload"],
    ["reports.batch"],
    ["cli"],
]
PLACES = {name: place for place, names in enumerate(LAYERS) for name in names}


def name_of(module):
    """Return the name in LAYERS to which a module belongs."""
    words = module.split(".")
    return next(n for k in range(len(words), 0, -1) if (n := ".".join(words[:k])) in PLACES)


def imports(package):
    """Return module -> modules of the package that it imports anywhere in its code."""
    files = {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in package.rglob("*.py")
        if path.stem != "__init__"
    }
    found = {}
    for module, path in files.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        inside = {name.removeprefix("labrnn.") for name in names if name.startswith("labrnn.")}
        found[module] = inside & files.keys()
    return found


def faults(package):
    """Yield a sentence for each upward import, and for an import cycle."""
    found = imports(package)
    for module, used in sorted(found.items()):
        mine = name_of(module)
        for other in sorted(used):
            theirs = name_of(other)
            if PLACES[theirs] > PLACES[mine] or (PLACES[theirs] == PLACES[mine] and theirs != mine):
                yield f"{module} imports {other}"
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        yield "circle: " + ", ".join(error.args[1])


def test_imports_point_downwards_without_cycles():
    assert list(faults(PROJECT / "labrnn")) == []
    assert {name_of(module) for module in imports(PROJECT / "labrnn")} <= PLACES.keys()


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (
            {"config": "def f():\n    from labrnn.parts import x", "parts": ""},
            "config imports parts",
        ),
        ({"trials/pool": "import labrnn.trials.cluster", "trials/cluster": ""}, "pool imports"),
        ({"lab": "from labrnn import cli", "cli": ""}, "lab imports cli"),
        (
            {
                "reviews/a": "from labrnn.reviews.b import x",
                "reviews/b": "def f():\n    from labrnn.reviews import a",
            },
            "circle: reviews",
        ),
    ],
)
def test_violations_are_detected(tmp_path, files, fault):
    for name, text in files.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (found,) = faults(tmp_path)
    assert fault in found


def test_the_page_names_every_module():
    page = (PROJECT / "docs/structure.md").read_text("utf-8")
    modules = {path.stem for path in (PROJECT / "labrnn").rglob("*.py")} - {"__init__"}
    assert modules <= {*re.findall(r"`(\w+)`", page)}
