"""The one exception that stands for a mistake of the person at the keyboard, or a state only they can mend."""


class OperatorError(Exception):
    """Something a person can put right.

    The text is one sentence that names the cause, followed by the command or the change that fixes it. Commands print
    it without a traceback and exit with 1.
    """
