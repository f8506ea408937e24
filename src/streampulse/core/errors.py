"""Exceptions that commands print as one line, and the one-line form of any other error."""


class OperatorError(Exception):
    """A fault that a person can correct.

    The text is one sentence that names the cause, followed by the command or the change that fixes it. Commands print
    it without a traceback and exit with 1.
    """


class IncompleteError(OperatorError):
    """Everything that was asked for is done and checked, except parts that need something from outside.

    The text names the missing part, the reason, and the command to run once it is available. Commands exit with 3.

    :param done: the closing words about the part that is done.
    """

    def __init__(self, text: str, done: str) -> None:
        super().__init__(text)
        self.done = done


class UsageError(OperatorError):
    """The command line is wrong. Commands exit with 2."""


class SettingsError(Exception):
    """A setting is missing or malformed; the text names each variable, the fault, and the file that sets it."""


def one_line(error: BaseException) -> str:
    """Return an error's text on one line, or the name of its class when it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
