"""Several processes: the same bytes, the same outcomes, and an end in good order."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from convert.checkpoints.buffer import ReusableBuffer
from convert.checkpoints.fetch import Source
from convert.checkpoints.synthetic import write_seeded
from convert.pipeline import processes
from convert.pipeline.job import Batch
from convert.pipeline.progress import Steps
from models.catalog import HANDLES, SQUARE_HANDLES, TESTING_HANDLES
from models.digests import DigestTable
from models.records.report import Report

ROOT = Path(__file__).parent.parent
NAMES = (*TESTING_HANDLES, *SQUARE_HANDLES)

HEEDING = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Starts a program that heeds Ctrl-C: tests that run in the background ignore it, and would hand that on."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two checkpoints, of two architectures."""
    folder = tmp_path_factory.mktemp("two")
    for checkpoint in {handle.checkpoint for handle in (*TESTING_HANDLES.values(), *SQUARE_HANDLES.values())}:
        write_seeded(checkpoint, folder)
    return folder


def command(task, source, out, *options, names=NAMES):
    return [sys.executable, "-m", "convert", task, *names, "--source", source, "--out", out, *options]


def run(*arguments, names=NAMES):
    return subprocess.run(
        command(*arguments, "--json", names=names), cwd=ROOT, capture_output=True, text=True, check=False
    )


def digests(out):
    found = sorted(path for path in out.rglob("*") if path.is_file() and path.suffix != ".json")
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def batch(jobs, handles, task="convert"):
    source = Source("anywhere", None, DigestTable(()))
    return Batch(task, tuple(handles), source, Path("build"), 2, jobs=jobs)


def groups_of(work):
    return [[item] for item in work.items if item.handle.head == "fe"]


@pytest.mark.whole
def test_two_processes_write_what_one_writes_and_tell_it_in_the_same_order(source, tmp_path):
    one, two = (run("convert", source, tmp_path / str(jobs), "--jobs", str(jobs)) for jobs in (1, 2))
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    assert len(digests(tmp_path / "2")) > 4 * len(NAMES)
    told = [
        [{key: value for key, value in outcome.items() if key != "seconds"} for outcome in json.loads(done.stdout)]
        for done in (one, two)
    ]
    assert told[0] == told[1]
    assert [outcome["handle"] for outcome in told[1]] == list(NAMES)
    steps = [{line for line in done.stderr.splitlines() if line.endswith(" ...")} for done in (one, two)]
    assert steps[0] == steps[1] > {f"converting {name} ..." for name in NAMES}


@pytest.mark.whole
def test_two_processes_check_with_the_full_set(source, tmp_path):
    names = NAMES[:3]  # two of one checkpoint, one of the other
    assert run("convert", source, tmp_path, names=names).returncode == 0
    done = run("validate", source, tmp_path, "--set", "full", "--jobs", "2", "--memory", "8", names=names)
    assert done.returncode == 0, done.stderr
    assert [outcome["verdict"] for outcome in json.loads(done.stdout)] == ["passed"] * len(names)
    for name in names:
        report = Report.read(tmp_path / name / "2.report.json")
        assert {check.made_on.handle for check in report.checks if check.made_on} == {name}


@pytest.mark.whole
def test_what_fails_in_one_process_leaves_the_other_alone(source, tiny_build, tmp_path):
    (source / "testing" / "Mixer-Sq_8.npz").rename(source / "elsewhere")
    try:
        done = run("convert-all", source, tmp_path, "--jobs", "2")
    finally:
        (source / "elsewhere").rename(source / "testing" / "Mixer-Sq_8.npz")
    assert done.returncode == 1
    verdicts = {outcome["handle"]: outcome["verdict"] for outcome in json.loads(done.stdout)}
    assert verdicts == dict.fromkeys(TESTING_HANDLES, "passed") | dict.fromkeys(SQUARE_HANDLES, "failed")
    assert "2 of 4 handles failed" in done.stderr
    assert "Traceback" not in done.stderr
    for name in TESTING_HANDLES:
        assert digests(tmp_path / name) == digests(tiny_build / name)


@pytest.mark.parametrize(
    ("number", "status"),
    [pytest.param(signal.SIGTERM, 143, id="TERM"), pytest.param(signal.SIGINT, 130, id="INT", marks=pytest.mark.whole)],
)
def test_an_interruption_ends_all_processes_and_leaves_nothing_half_written(source, tmp_path, number, status):
    begun = subprocess.Popen(
        [sys.executable, "-c", HEEDING, *command("convert", source, tmp_path, "--jobs", "2")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (working := children(begun.pid)):
        assert begun.poll() is None, begun.communicate()[1]
        time.sleep(0.05)
    begun.send_signal(number)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == status
    assert b"interrupted" in said
    assert b"Traceback" not in said
    assert not any(alive(pid) for pid in working)
    assert [path for path in tmp_path.rglob(".*") if path.is_dir()] == []


def children(pid):
    """Return the processes that work for a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found if b"convert.pipeline.processes" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.whole
def test_processes_end_with_one_that_is_killed_and_the_next_run_leaves_nothing_of_it(source, tmp_path):
    begun = subprocess.Popen(
        command("convert", source, tmp_path / "out", "--jobs", "2"),
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    while len(found := children(begun.pid)) < 2:
        assert begun.poll() is None
        time.sleep(0.05)
    begun.kill()
    begun.wait()
    while any(alive(pid) for pid in found):
        time.sleep(0.05)
    assert [path.name[:13] for path in tmp_path.iterdir() if path.name != "out"] == ["mixer-jax2tf-"]
    done = subprocess.run(
        [sys.executable, "-m", "convert", "list"], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, check=True
    )
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.whole
def test_a_process_that_is_killed_fails_its_handles_and_says_so_and_another_does_the_rest(source, tmp_path):
    begun = subprocess.Popen(
        [*command("convert", source, tmp_path, "--jobs", "2"), "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (found := children(begun.pid)):
        assert begun.poll() is None
        time.sleep(0.05)
    os.kill(found[0], signal.SIGKILL)
    said, err = begun.communicate()
    assert begun.returncode == 1
    verdicts = {outcome["handle"]: outcome["verdict"] for outcome in json.loads(said)}
    assert verdicts == dict.fromkeys(TESTING_HANDLES, "failed") | dict.fromkeys(SQUARE_HANDLES, "converted")
    assert b"try again with a lower --jobs" in err


def begun_together(work, groups, monkeypatch):
    """Return what comes of checkpoints that take equally long.

    How many processes work at most, the order in which checkpoints are begun, what is noted, and how many processes are
    started in all.
    """
    most, order, started = [0], [], []

    def answer(connections):
        most[0] = max(most[0], len(connections))
        return [connections[0]]

    class Worker:
        def send(self, call):
            order.append(call.args[1])

        def close(self):
            pass

    def start():
        started.append(Worker())
        return contextlib.nullcontext(started[-1])

    monkeypatch.setattr(processes, "_worker", start)
    monkeypatch.setattr(processes, "wait", answer)
    monkeypatch.setattr(processes, "_next_message", lambda connection: processes._Answer(None))
    noted = []
    on = Steps(lambda event: noted.append(event.text), len(groups))
    found = processes.run_in_processes(work, groups, on, lambda outcome, worker: None)
    assert found == {group[0].handle.checkpoint.name: [] for group in groups}
    return most[0], [groups.index(group) for group in order], noted, len(started)


def test_the_largest_is_first_and_there_are_no_more_processes_than_jobs_or_checkpoints_mocked(monkeypatch):
    monkeypatch.setattr(processes.os, "sysconf", lambda _: 1 << 30)
    work = batch(99, HANDLES.values())
    groups = groups_of(work)
    assert begun_together(work, groups, monkeypatch) == (6, [5, 3, 4, 1, 0, 2], [], 6)
    assert begun_together(replace(work, jobs=2), groups, monkeypatch) == (2, [5, 3, 4, 1, 0, 2], [], 2)


def test_what_does_not_fit_into_memory_waits_and_others_go_first_mocked(monkeypatch):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (12 << 30) // 4096}
    monkeypatch.setattr(processes.os, "sysconf", sizes.__getitem__)
    checking = replace(batch(6, HANDLES.values(), "validate"), inputs_set="full")
    groups = groups_of(checking)
    assert [group[0].handle.checkpoint.architecture.num_blocks for group in groups] == [12, 12, 12, 24, 12, 24]
    most, order, noted, _ = begun_together(checking, groups, monkeypatch)
    assert (most, order) == (4, [5, 3, 4, 1, 0, 2])
    needs = r"6 processes may need \d+\.\d GiB together, more than 12\.0 GiB: where they do not fit, "
    assert re.match(needs, noted[0])
    assert begun_together(replace(checking, memory=7 << 30), groups, monkeypatch)[:2] == (3, [5, 1, 3, 4, 0, 2])
    assert begun_together(replace(checking, task="convert"), groups, monkeypatch)[0] == 6
    sizes["SC_PHYS_PAGES"] = 1
    most, order, noted, _ = begun_together(checking, groups, monkeypatch)
    assert (most, order) == (1, [5, 3, 4, 1, 0, 2])
    assert re.search(r", and the largest alone 4\.\d GiB, more than 0\.0 GiB", noted[0])


def test_a_process_checks_one_checkpoint_with_the_full_set_and_no_more_mocked(monkeypatch):
    work = batch(2, HANDLES.values(), "validate")
    groups = groups_of(work)
    assert begun_together(work, groups, monkeypatch)[-1] == 2
    assert begun_together(replace(work, inputs_set="full"), groups, monkeypatch)[-1] == 6


def test_a_process_keeps_no_memory_of_another_checkpoint_where_that_is_short_mocked(monkeypatch):
    work = batch(2, HANDLES.values())
    groups = groups_of(work)
    assert begun_together(work, groups, monkeypatch)[-1] == 2
    assert begun_together(replace(work, memory=3 << 30), groups, monkeypatch)[-1] == 6


def test_a_process_reads_its_checkpoints_into_the_same_memory_where_nothing_is_checked(monkeypatch):
    rooms = []
    monkeypatch.setattr(processes, "import_frameworks", lambda any_platform: None)
    monkeypatch.setattr(Batch, "run_checkpoint", lambda work, items, steps, room: rooms.append(room) or [])
    for task in ("convert", "convert", "convert-all"):
        work = batch(2, TESTING_HANDLES.values(), task)
        processes._run_group(work, list(work.items), print)
    first, second, checked = rooms
    assert isinstance(first, ReusableBuffer)
    assert second is first
    assert checked is None
