"""The one exception that a user of the lab is meant to read."""


class LabError(Exception):
    """A fault in what the user supplied: data, parameters, paths.

    The message is complete in itself: where it is, what was found, how to cure it. The command
    line prints it without a traceback and ends with exit code 2.
    """
