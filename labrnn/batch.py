"""From params files to reports: execute the notebooks, render them, skip what did not change."""

from pathlib import Path

from labrnn.config import read_yaml, validated
from labrnn.errors import LabError
from labrnn.parts import PARTS


def read_params(path):
    """The part that a params file configures, validated; the file is named after its part.

    Raises:
        LabError: no such part, or a parameter is unknown or bad.
    """
    path = Path(path)
    if path.stem not in PARTS:
        raise LabError(f"{path}: no part is called {path.stem!r}; known: {', '.join(PARTS)}")
    return validated(PARTS[path.stem], read_yaml(path), path)
