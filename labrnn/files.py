"""Files that are whole or not there, whatever stops the process that writes them."""

import os


def write_file(path, content):
    """Write bytes to a file and see them on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path, content):
    """Write bytes aside and rename them to `path`; what was there stays until then."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        write_file(aside, content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
