"""Temporary files and folders: nothing is cut short, nothing needed is removed, nothing stays."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.storage import temporary
from models.storage.temporary import sweep, sweep_files, temporary_file, temporary_folder

ROOT = Path(temporary.__file__).parents[2]

BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
from convert.pipeline import process
from models.storage import temporary
from models.storage.temporary import temporary_folder, uninterrupted

def say(word):
    print(word, flush=True)

def send():
    os.kill(os.getpid(), signal.SIGTERM)

def send_and_await(count):
    send()
    while len(process._arrived) < count:
        time.sleep(0.01)

here = Path(sys.argv[1])
process._end_on_signals("")
"""


def run(program, folder):
    command = [sys.executable, "-c", BEGIN + program, folder]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_after_a_signal_the_main_thread_stands_still_once_the_outermost_block_is_done(tmp_path):
    done = run(
        """
gone_on = threading.Event()
with temporary_folder(here, ".made-", rescue=lambda _: gone_on.wait(0.5)):
    with uninterrupted():
        with uninterrupted():
            send()
        say("moved")
    gone_on.set()
    say("went on")
""",
        tmp_path,
    )
    assert (done.stdout, done.returncode) == ("moved\n", 143), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_signal_does_not_cut_the_block_of_the_main_thread(tmp_path):
    done = run(
        """
process._AGAIN = 0
with uninterrupted():
    send()
    send()
    say("moved")
time.sleep(60)
""",
        tmp_path,
    )
    assert (done.stdout, done.returncode) == ("moved\n", 143), done.stderr


def test_another_signal_does_not_cut_the_block_of_another_thread(tmp_path):
    done = run(
        """
process._AGAIN = 0

def move():
    with uninterrupted():
        send_and_await(1)
        send_and_await(2)
        say("moved")

threading.Thread(target=move, daemon=True).start()
time.sleep(60)
""",
        tmp_path,
    )
    assert (done.stdout, done.returncode) == ("moved\n", 143), done.stderr


def test_another_signal_ends_at_once_where_nothing_is_put_in_place(tmp_path):
    done = run(
        """
process._AGAIN = 0
with temporary_folder(here, ".made-", rescue=lambda _: time.sleep(60)):
    threading.Thread(target=lambda: (send_and_await(1), send()), daemon=True).start()
    time.sleep(60)
""",
        tmp_path,
    )
    assert done.returncode == 143, done.stderr
    assert len(list(tmp_path.iterdir())) == 1  # for the next run


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_a_signal_as_a_block_begins_or_ends_never_stops_the_thread_with_the_lock_in_its_hands(tmp_path, moment):
    done = run(
        f"""
class Lock:
    def __init__(self):
        self.real = threading.RLock()

    def acquire(self, *arguments, **options):
        got = self.real.acquire(*arguments, **options)
        say(f"to remove: {{got}}")
        return got

    def __enter__(self):
        self.real.acquire()
        if {moment!r} == "begin":
            send()

    def __exit__(self, *_):
        if {moment!r} == "end":
            send()
        self.real.release()

temporary._moving, temporary._PATIENCE = Lock(), 1.0
with uninterrupted():
    say("moved")
time.sleep(60)
""",
        tmp_path,
    )
    assert (done.stdout, done.returncode) == ("moved\nto remove: True\n", 143), done.stderr


def test_what_holds_something_to_rescue_is_left_to_the_next_run_while_a_thread_puts_something_in_place(tmp_path):
    done = run(
        """
temporary._PATIENCE = 0.05
begun = threading.Event()

def move():
    with uninterrupted():
        begun.set()
        time.sleep(60)

def rescue(folder):
    say(f"rescued from {folder.name[:7]}")

made = temporary_folder(here, ".made-", rescue=rescue)
plain = temporary_folder(here, ".work-")
made.__enter__(), plain.__enter__()
threading.Thread(target=move, daemon=True).start()
begun.wait()
temporary.remove_all()
say([path.name[:6] for path in here.iterdir()])
os._exit(0)
""",
        tmp_path,
    )
    assert (done.stdout, done.returncode) == ("['.made-']\n", 0), done.stderr


def test_a_folder_that_a_thread_makes_again_while_the_process_ends_does_not_stay(tmp_path):
    done = run(
        """
real = temporary._clear

def clear(folder, rescue):
    real(folder, rescue)
    temporary._clear = real
    (folder / "saved").mkdir(parents=True)  # as TensorFlow does in another thread

temporary._clear = clear
with temporary_folder(here, ".work-"):
    send()
    time.sleep(60)
""",
        tmp_path,
    )
    assert done.returncode == 143, done.stderr
    assert list(tmp_path.iterdir()) == []


def open_descriptors():
    return len(list(Path("/dev/fd").iterdir()))


def test_a_temporary_file_that_cannot_be_removed_does_not_keep_its_lock(tmp_path):
    before = open_descriptors()
    with pytest.raises(OSError, match=r"directory|permitted"), temporary_file(tmp_path / "x") as file:
        partial = Path(file.name)
        partial.unlink()
        partial.mkdir()
    assert open_descriptors() == before
    assert partial not in temporary._held


def failing_unlink(monkeypatch):
    def fail(self, missing_ok=False):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "unlink", fail)


def test_what_cannot_be_swept_does_not_stay_locked(tmp_path, monkeypatch):
    (tmp_path / (".x.partial-" + "0" * 16)).touch()
    folder = tmp_path / (".work-" + "0" * 16)
    folder.mkdir()
    (folder / "lock").touch()
    failing_unlink(monkeypatch)
    before = open_descriptors()
    sweep_files(tmp_path)
    sweep(tmp_path, ".work-", lambda _: None)
    with pytest.raises(ZeroDivisionError):
        sweep(tmp_path, ".work-", lambda _: 1 / 0)
    assert open_descriptors() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_whose_rescue_fails_stays_and_is_not_locked(tmp_path):
    before = open_descriptors()
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path, ".work-", rescue=lambda _: 1 / 0) as folder:
        pass
    assert open_descriptors() == before
    assert folder.is_dir()
    with temporary_folder(tmp_path, ".work-"):
        assert not folder.exists()
