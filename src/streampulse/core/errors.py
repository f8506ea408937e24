"""The exceptions that stand for a mistake of the person at the keyboard, or a state only they can mend."""


class OperatorError(Exception):
    """Something a person can put right.

    The text is one sentence that names the cause, followed by the command or the change that fixes it. Commands print
    it without a traceback and exit with 1.
    """


class IncompleteError(OperatorError):
    """All that was asked for was done and checked, except what could not be had from outside.

    The text names what, why, and the command for when it can be had. Commands exit with 3.

    :param done: the closing words of what was done.
    """

    def __init__(self, text: str, done: str) -> None:
        super().__init__(text)
        self.done = done


class UsageError(OperatorError):
    """A command line that makes no sense. Commands exit with 2."""
