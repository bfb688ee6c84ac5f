"""The command line, run in this process."""

import pytest

from convert.cli import main


def run(capfd, *arguments):
    """Return the exit status, and what was said on standard output and on standard error."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    said = capfd.readouterr()
    return end.value.code, said.out, said.err
