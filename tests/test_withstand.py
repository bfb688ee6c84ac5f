"""The program behind validation/WITHSTAND.md: what it counts, and that the page is in the form that it writes."""

import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from publishable import write_model
from withstand import hostile
from withstand.__main__ import ROOT, SECTIONS, TABLE, main
from withstand.commands import Command
from withstand.damage import both, flips
from withstand.events import family, runs, spread
from withstand.guided import failing_inputs
from withstand.hostile import FOUND, attempt, case, data_set_targets, name_of, targets
from withstand.killed import Kind, moments_of
from withstand.network import LISTING, Case, cases, misjudged
from withstand.rows import COLUMNS, Row, replace_section, text_of
from withstand.surroundings import Surrounding, judge
from withstand.together import badly_ended
from withstand.trees import difference, half_written, left_over, tree_of
from withstand.trials import Ended
from withstand.undisturbed import Undisturbed

from models.markdown import markdown_table


def test_the_page_is_of_the_program_and_adds_up():
    page = TABLE.read_text(encoding="utf-8")
    found = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->\n", page, flags=re.DOTALL)
    assert [name for name, _ in found] == list(SECTIONS)
    for _, text in found:
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert "".join(f"{line}\n" for line in tables[:2]) == markdown_table(COLUMNS, [])
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[2:]]
        tried, survived = (sum(int(row[column]) for row in rows) for column in (3, 4))
        assert f"{survived:,} of {tried:,} survived" in text
        failed = {f"{row[0]}, {row[1]}": int(row[3]) - int(row[4]) for row in rows if row[3] != row[4]}
        listed = re.findall(r"^- (.*): (\d+), such as ", text, flags=re.M)
        assert {where: int(count) for where, count in listed} == failed


@pytest.mark.whole
def test_mutations_are_guided_in_a_process_of_their_own(tmp_path):
    tried, failing = failing_inputs("`--about`", 200, tmp_path / "good")
    assert (tried, failing) == (200, [])
    program = (
        f"import pathlib, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "from withstand import guided, hostile\n"
        "hostile.MOST_SECONDS = -1.0  # whatever is read takes longer\n"
        "guided.main('`--about`', '20', pathlib.Path(sys.argv[1]))"
    )
    (tmp_path / "slow").mkdir()
    subprocess.run([sys.executable, "-c", program, tmp_path / "slow"], check=True, capture_output=True)
    assert len(list((tmp_path / "slow" / "failed").iterdir())) > 5


@pytest.mark.parametrize("words", [["--share", one] for one in ("0", "7", "nan", "-0.1", "x")] + [["--only", "all"]])
def test_options_that_cannot_be_used_are_refused(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["withstand", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"argument {words[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("events", [0, 3, 1000])
def test_a_command_of_few_events_is_disturbed_as_often_as_others(events):
    ended = Ended(0, 2.0, "", events, 0)
    whole = Undisturbed(Command("`card`", ("card",)), {}, {}, ended, ())
    kind = Kind("SIGKILL", signal.SIGKILL, 220, 132)
    found = moments_of(kind, whole, 1 / 11, random.Random(0))  # noqa: S311
    assert (len(found), sum(one.event > 0 for one in found)) == (20 + 12, min(events, 20))
    assert all(one.event or 0 <= one.seconds <= 0.95 * 2.0 for one in found)


def test_a_section_is_replaced_and_the_others_are_kept():
    rows = [Row("fault", "here", "by hand", 3, 2, ["it\nbroke\n"])]
    page = replace_section("# Page\n", "one", text_of("one", "First", rows, 1.0, "A remark."))
    page = replace_section(page, "two", text_of("two", "Second", [Row("fault", "there", "by hand", 1, 1)], 0.5))
    assert "all trials: 2 of 3 survived" in page and "- fault, here: 1, such as it broke" in page
    assert "a share of 0.5 of the trials: 1 of 1 survived" in page
    again = replace_section(page, "one", text_of("one", "First", [Row("fault", "here", "by hand", 4, 4)], 1.0))
    assert "all trials: 4 of 4 survived" in again and "it broke" not in again and again.count("Second") == 1


def test_what_was_read_wrong_once_is_read_right(tmp_path):
    """`tests/hostile` has no files where no mutation has failed."""
    every = {name_of(target): target for target in targets(tmp_path)}
    assert len(every) == 9
    _read_again(every, [file for file in FOUND.glob("*") if not file.name.startswith("tfds")])


@pytest.mark.whole  # preparing a data set takes a while
def test_data_sets_that_were_read_wrong_once_are_read_right(tmp_path, monkeypatch):
    every = {name_of(target): target for target in data_set_targets(tmp_path)}
    assert len(every) == 4
    files = sorted(FOUND.glob("tfds*"))
    assert files
    _read_again(every, files)

    find = hostile._find

    def exchange_classes(*given):
        place, names = find(*given)
        return place, names[::-1]

    monkeypatch.setattr(hostile, "_find", exchange_classes)
    for target in every.values():
        assert attempt(target, target.good[0], target.good[0]) == "accepted with other pictures"


def _read_again(every, files):
    for file in sorted(files):
        target = every[file.name.rpartition(".")[0]]
        number = int(file.name.rpartition(".")[2])
        assert attempt(target, file.read_bytes(), case(target, number)[1]) is None


def test_a_case_can_be_made_again_and_counts_what_went_wrong(tmp_path, monkeypatch):
    (target,) = (one for one in targets(tmp_path) if one.name == "`--about`")
    cases = [case(target, number) for number in range(20)]
    assert cases == [case(target, number) for number in range(20)]
    assert len({content for content, _ in cases}) > 15
    assert attempt(target, *cases[0]) is None
    broken = replace(target, read=lambda *_: 1 // 0)
    assert attempt(broken, *cases[0]) == "ZeroDivisionError: integer division or modulo by zero"
    monkeypatch.setattr(hostile, "MOST_BYTES", -1)
    assert attempt(target, *cases[0]).endswith(" MB")
    monkeypatch.setattr(hostile, "MOST_SECONDS", -1.0)
    assert attempt(target, *cases[0]).endswith(" s")


def test_a_trial_counts_what_is_said_and_puts_the_file_back(tmp_path):
    paths = write_model(tmp_path)
    before, chance = paths.manifest.read_bytes(), random.Random(0)  # noqa: S311
    row = Row("one flipped bit", "manifest", "both verifiers")
    flips(row, [paths.manifest], lambda: both(paths.directory), 5, chance, lambda file: file.name)
    flips(row, [paths.manifest], lambda: ("", ""), 2, chance, lambda file: file.name)
    assert (row.tried, row.survived) == (7, 5)
    assert [one.endswith("nothing is said / nothing is said") for one in row.failures] == [True, True]
    assert paths.manifest.read_bytes() == before


WRITING = """
import os, sys
from pathlib import Path
from withstand.events import Fault, arm

folder = Path(sys.argv[1], "trial")
(folder / "cache").mkdir(parents=True)
fault = eval(sys.argv[2])
arm(folder, folder.with_name("events"), fault)
(folder / "a.partial").write_text("whole")
(folder / "a.partial").read_text()
(folder / "a.partial").replace(folder / "a")
Path(sys.argv[1], "elsewhere").write_text("")
os.remove("a", dir_fd=os.open(folder, os.O_RDONLY))
print("done")
"""


@pytest.mark.parametrize(
    ("fault", "status", "events", "left"),
    [
        ("None", 0, 3, ["cache"]),
        ("Fault(2)", -signal.SIGKILL, 2, ["a.partial", "cache"]),
        ("Fault(3, signal=15)", -signal.SIGTERM, 3, ["a", "cache"]),
        ("Fault(2, remove=folder / 'cache')", 0, 4, []),  # the removal is counted too
    ],
)
def test_a_fault_comes_just_before_its_event(fault, status, events, left, tmp_path):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    command = [sys.executable, "-c", WRITING, str(tmp_path), fault]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "events").stat().st_size == events
    assert sorted(path.name for path in (tmp_path / "trial").iterdir()) == left


def test_events_are_spread_evenly_and_none_is_tried_twice():
    assert spread(3, 9) == [2, 5, 8]
    assert spread(20, 4) == [1, 2, 3, 4]


def test_running_processes_are_found():
    child = subprocess.Popen(["sleep", "60"])
    assert child.pid in family(os.getpid())
    assert runs(child.pid)
    child.kill()
    while runs(child.pid):
        pass
    child.wait()
    assert child.pid not in family(os.getpid())


def test_a_tree_after_a_fault_is_judged(tmp_path):
    model = tmp_path / "build" / "m"
    (model / "2").mkdir(parents=True)
    for name in ("2/a", "2/b", "2.manifest.json"):
        (model / name).write_text(name)
    whole = tree_of(tmp_path)
    assert half_written(tmp_path, whole, {}, whole) is left_over(whole) is difference(whole, whole) is None
    (model / "2" / "b").unlink()
    found = tree_of(tmp_path)
    assert half_written(tmp_path, found, {}, whole) == "build/m/2/ is neither the old nor the new one"
    assert difference(found, whole) == "build/m/2/b is missing"
    (model / "2.manifest.json").write_text("other")
    (model / ".2.partial-0123456789abcdef").mkdir()
    found = tree_of(tmp_path)
    assert "build/m/2.manifest.json is neither the old nor the new one" in half_written(tmp_path, found, {}, whole)
    assert left_over(found) == "build/m/.2.partial-0123456789abcdef"


def test_a_fault_of_the_network_is_survived_if_it_is_named_in_time():
    case = Case("dead proxy", LISTING, "nobody listens", said="proxy is")
    assert [*misjudged(case, "The proxy is x:1.", 1.0)] == []
    assert [*misjudged(case, None, 1.0)] == ["not refused"]
    assert [*misjudged(case, "gsutil failed", 1.0)] == ["refused with: gsutil failed"]
    assert [*misjudged(case, "UNEXPECTED KeyError: 'proxy is'", case.limit + 1)] == [
        "refused with: UNEXPECTED KeyError: 'proxy is'",
        "took 121 s",
    ]


def test_each_place_of_the_network_gets_each_status():
    found = [case for case in cases(1.0, random.Random(0)) if case.fault == "status 400 to 504"]  # noqa: S311
    assert len(found) == 4 * 105 == len({(case.where, *case.faults.values()) for case in found})


def test_an_environment_is_survived_if_the_bytes_are_the_same_or_it_is_told():
    plain, other = {"m/2.manifest.json": "a" * 64}, {"m/2.manifest.json": "b" * 64}
    surrounding = Surrounding("Python", {"PATH": "/nonexistent"})
    assert judge(surrounding, Ended(0, 0.0, "", 0, 0), plain, plain) is None
    assert "m/2.manifest.json differs" in judge(surrounding, Ended(0, 0.0, "", 0, 0), other, plain)
    assert judge(surrounding, Ended(0, 0.0, "records name no git commit", 0, 0), other, plain) is None
    assert judge(surrounding, Ended(2, 0.0, "mixer-jax2tf: no such thing", 0, 0), {}, plain) is None
    assert "it says" in judge(surrounding, Ended(1, 0.0, "Traceback (most recent call last)", 0, 0), {}, plain)


def test_of_two_commands_both_end_well_or_in_words():
    well, refused, broken = (
        Ended(status, 0.0, said, 0, 0) for status, said in ((0, ""), (1, "taken"), (1, "Traceback"))
    )
    assert badly_ended([well, refused]) is None
    assert badly_ended([well, broken]) == "it says: Traceback"
    assert badly_ended([Ended(0, 0.0, "", 0, 0, ("gsutil",))]) == "processes are left: ('gsutil',)"
