"""The one exception that means: what the user gave is wrong, and this is how to fix it."""


class InputError(Exception):
    """Bad input. Its text is one line that names the file (and the row) and the remedy.

    The command line prints that line without a traceback and exits with code 2.
    """
