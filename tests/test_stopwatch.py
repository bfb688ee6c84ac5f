"""The stopwatch: whole processes, with what they start, and those that do not end well."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from validation.benchmark.stopwatch import CommandError, _tree_memory, time_commands

MEMORY = 200 << 20


def python(code):
    return [sys.executable, "-c", code]


def test_commands_are_added_up_and_the_largest_memory_is_kept(tmp_path):
    hungry = f"held = bytearray({MEMORY}); import time; time.sleep(1)"  # long enough to be looked at
    run = time_commands([python("pass"), python(hungry), python("pass")], cwd=tmp_path)
    parts = [time_commands([command], cwd=tmp_path) for command in (python("pass"), python(hungry))]
    assert run.processor == run.user + run.system > 0
    assert run.wall > 0
    assert parts[0].peak < MEMORY <= parts[1].peak
    assert MEMORY <= run.peak < 2 * MEMORY


def test_what_a_command_starts_counts_too(tmp_path):
    child = f"held = bytearray({MEMORY}); import time; time.sleep(2)"
    parent = f"import subprocess, sys; held = bytearray({MEMORY}); subprocess.run([sys.executable, '-c', {child!r}])"
    run = time_commands([python(parent)], cwd=tmp_path)
    assert run.peak >= 2 * MEMORY


def test_processor_time_of_children_counts_too(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    assert time_commands([python(parent)], cwd=tmp_path).processor >= 0.5


def test_commands_run_where_they_are_told(tmp_path):
    time_commands([python("open('here', 'w')")], cwd=tmp_path)
    assert (tmp_path / "here").exists()


def test_a_command_that_fails_says_how(tmp_path):
    with pytest.raises(CommandError, match=r"(?s)ended with status 3: what went wrong"):
        time_commands([python("import sys; print('what went wrong'); sys.exit(3)")], cwd=tmp_path)
    with pytest.raises(CommandError, match="ended with status -9: it printed nothing"):
        time_commands([python("import os; os.kill(os.getpid(), 9)")], cwd=tmp_path)


@pytest.mark.whole
def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    code = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('pid').write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    with pytest.raises(CommandError, match=r"took more than 5 s"):
        time_commands([python(code)], cwd=tmp_path, timeout=5)
    assert not _runs(int((tmp_path / "pid").read_text()))


def test_an_interrupt_ends_the_command(tmp_path, monkeypatch):
    started = []
    real = subprocess.Popen

    def popen(*arguments, **options):
        started.append(real(*arguments, **options))
        return started[-1]

    def interrupted(pid, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        time_commands([python("import time; time.sleep(600)")], cwd=tmp_path)
    assert not _runs(started[0].pid)


def test_the_memory_of_what_has_ended_is_nothing():
    process = subprocess.Popen(python("pass"))
    process.wait()
    assert _tree_memory(process.pid) == 0
    assert _tree_memory(os.getpid()) > 0


def _runs(pid):
    for _ in range(100):  # what was killed may stand in the table of processes for a moment
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.05)
    return True
