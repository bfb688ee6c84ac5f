"""What goes wrong in words that a user can act on.

Every error meant for a user is a `MixerError`; its text says what was found, what was expected and what to do next.
The command line prints it without a traceback and turns it into an exit status.
"""


class MixerError(Exception):
    """A failure that the user can understand and act on (exit status 1)."""

    exit_status = 1


class UsageError(MixerError):
    """A command, option or input that cannot be worked with as given (exit status 2)."""

    exit_status = 2


class DifferentError(MixerError):
    """Nothing failed, but what was compared is not the same (exit status 3)."""

    exit_status = 3
