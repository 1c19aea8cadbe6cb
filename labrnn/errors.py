"""The exception whose messages address the user."""


class LabError(Exception):
    """Raised for invalid data, parameters or paths.

    The message says where the problem is, what was found, and what to do. The command line prints
    it without a traceback and exits with code 2. Control characters in file names and values are
    replaced, so a message cannot control a terminal.
    """

    def __init__(self, message):
        super().__init__(printable(str(message)))


def printable(text):
    """Replace control characters by U+FFFD; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
