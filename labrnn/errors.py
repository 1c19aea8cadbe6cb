"""The one exception that a user of the lab is meant to read."""


class LabError(Exception):
    """A fault in what the user supplied: data, parameters, paths.

    The message is complete in itself: where it is, what was found, what to do. The command line
    prints it without a traceback and ends with exit code 2. It steers no terminal: names of files
    and values in it are escaped.
    """

    def __init__(self, message):
        super().__init__(printable(str(message)))


def printable(text):
    """Replace what a terminal would obey; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
