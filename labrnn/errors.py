"""The exception whose messages are for the users of the lab."""


class LabError(Exception):
    """A fault in what the user supplied: data, parameters, paths.

    The message is complete: where it is, what was found, what to do. The command line prints it
    without a traceback and ends with exit code 2. File names and values in it are escaped, so that
    they cannot control a terminal.
    """

    def __init__(self, message):
        super().__init__(printable(str(message)))


def printable(text):
    """Replace control characters; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
