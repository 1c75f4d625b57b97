"""The base of errors that explain themselves, so that the command line shows no traceback."""


class ExpectedError(RuntimeError):
    """A run cannot begin or go on, for a reason that the message tells and the user can mend."""
