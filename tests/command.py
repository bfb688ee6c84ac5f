"""The command line, run in this process."""

import pytest

from convert.cli import main


def status_of(*arguments):
    """Return the exit status; what was said is left to the caller."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return end.value.code or 0


def run(capfd, *arguments):
    """Return the exit status, and what was said on standard output and on standard error."""
    status = status_of(*arguments)
    said = capfd.readouterr()
    return status, said.out, said.err
