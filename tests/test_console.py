"""What a person sees."""

import io
import json
import re
import sys

import pytest

from convert.cli import console
from convert.pipeline.progress import Event, Steps
from models.markdown import markdown_bullets, markdown_table
from models.storage.files import megabytes


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0.0 MB"), (49_999, "0.0 MB"), (239_567_448, "239.6 MB"), (5_390_000_000, "5,390.0 MB")]
)
def test_megabytes_are_decimal(size, text):
    assert megabytes(size) == text


def test_a_piped_table_is_not_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    long = "mixer_" + "x" * 60 + "_classification"
    console.print_table("title", ("handle", "#size"), [(long, "1.0 MB"), ("short", "2.0 MB")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "title"
    assert any(long in line and "1.0 MB" in line for line in lines)
    assert "#" not in lines[2]


def test_numbers_stand_to_the_right(capsys):
    console.print_table("", ("name", "#size"), [("a", "1"), ("b", "1000")])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row.split("│")[2] for row in rows] == ["    1 ", " 1000 "]
    assert [row.split("│")[1] for row in rows] == [" a    ", " b    "]


@pytest.mark.parametrize("name", ["[new]", "[/b]", "[red]x[/red]", ":heart:", "[link=https://example.com]"])
def test_a_path_is_shown_letter_by_letter(name, capsys):
    path = f"/data/{name}/x.npz"
    console.print_table(path, (f"in {name}",), [(path,)])
    console.tell(f"1 MB needed in {path}")
    with Steps(console.progress_bar(), 1) as on:
        on.start(f"reading {path}")
        on.note(f"found {path}")
        on.finish(f"done: {path}")
    printed = capsys.readouterr()
    assert printed.out.count(path) == 2
    assert f"in {name}" in printed.out
    assert printed.err.splitlines() == [
        f"1 MB needed in {path}",
        f"reading {path} ...",
        f"found {path}",
        f"done: {path}",
    ]


@pytest.mark.parametrize(("silence", "said"), [(0.0, ["  1 of 3 pictures", "  2 of 3 pictures"]), (600.0, [])])
def test_a_pipe_is_told_now_and_then_how_far_a_long_piece_is(capsys, monkeypatch, silence, said):
    monkeypatch.setattr(console, "_SILENCE", silence)
    with Steps(console.progress_bar(), 1) as on:
        advance = on.start("classifying", "pictures")
        advance(1, 3)
        advance(2, 3)
        on.finish("classified")
    assert capsys.readouterr().err.splitlines() == ["classifying ...", *said, "classified"]


def test_a_pipe_is_told_which_of_several_processes_is_how_far(capsys, monkeypatch):
    monkeypatch.setattr(console, "_SILENCE", 0.0)
    with Steps(console.progress_bar(), 2) as on:
        for worker, text in enumerate(("loading one", "loading two"), 1):
            on.forward(Event("started", text), worker)
        on.forward(Event("advanced", "loading two", 2_000_000, 4_000_000), 2)
        on.finish("one: passed", 1)
        on.finish("two: passed", 2)
    assert capsys.readouterr().err.splitlines() == [
        "loading one ...",
        "loading two ...",
        "  loading two: 2.0 MB of 4.0 MB",
        "one: passed",
        "two: passed",
    ]


def test_a_terminal_has_a_row_for_each_process_at_work(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    bar = console.progress_bar()

    def rows():
        bar._progress.refresh()
        return re.findall(r"(?:all|loading|checking) (?:one|two)?", screen.getvalue().rsplit("all", 1)[1])

    with Steps(bar, 2) as on:
        for worker, text in enumerate(("loading one", "loading two"), 1):
            on.forward(Event("started", text), worker)
        assert rows() == ["loading one", "loading two"]
        on.forward(Event("started", "checking two"), 2)
        assert rows() == ["loading one", "checking two"]
        on.finish("one: passed", 1)
        assert rows() == ["checking two"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Print a table to a terminal of a width, and return its lines."""

    def show(width, *arguments, **options):
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("LINES", "25")  # Rich takes 80 columns for a dumb terminal unless it knows both
        console.print_table(*arguments, **options)
        return screen.getvalue().splitlines()

    return show


ROWS = [(f"mixer_l16_i21k_{head}", "", "1 of many reasons", "12,345", "passed") for head in ("classification", "fe")]


@pytest.mark.parametrize("width", [30, 44, 60, 80, 120])
def test_names_are_never_broken_and_each_row_has_a_line(width, terminal, capsys):
    columns = ("handle", "empty", "why", "#parameters", "verdict")
    lines = terminal(width, "", columns, ROWS, least=("parameters",))
    rows = [line for line in lines if "mixer_" in line]
    assert len(rows) == 2
    assert all("classification" in rows[0] and line.strip("│ ").endswith("passed") for line in rows)
    assert not any("empty" in line for line in lines)
    assert (width > 40) == all(len(line) <= width for line in lines)
    dropped = {60: "parameters", 44: "why, parameters"}.get(width)
    assert capsys.readouterr().err == (f"the terminal is too narrow to show: {dropped}\n" if dropped else "")
    assert ("1 of many reasons" in rows[0]) == (width != 44)


def test_columns_of_one_name_are_left_out_together(terminal, capsys):
    columns = ("model", "#batch 1", "#limit", "#batch 8", "#limit")
    lines = terminal(40, "", columns, [("mixer_b16_sam_fe", "1.25", "25%", "2.5", "50%")], least=("limit",))
    assert "limit" not in "".join(lines)
    assert {"1.25", "2.5"} <= set(lines[-2].split())
    assert capsys.readouterr().err == "the terminal is too narrow to show: limit\n"


def test_prose_is_broken_between_words(terminal):
    reason = "it was made from another checkpoint than the one that is there now"
    lines = terminal(60, "", ("handle", "because"), [("mixer_b16_sam_classification", reason)], prose=("because",))
    assert max(map(len, lines)) <= 60
    assert lines[3].startswith("│ mixer_b16_sam_classification │ it was made")
    assert " ".join(line[32:].strip("│ ") for line in lines[3:-1]) == reason


def test_an_empty_table_is_not_printed(terminal):
    assert terminal(80, "title", ("handle", "file"), []) == []


def test_what_could_rewrite_the_screen_is_escaped(capsys):
    name = "\x1b[31mred\u202e\udcff"
    console.print_table(name, ("file",), [(name,)])
    console.tell(name)
    with Steps(console.progress_bar(), 1) as on:
        on.start(name)
        on.finish(name)
    printed = capsys.readouterr()
    assert printed.out.count(r"\x1b[31mred\u202e\udcff") == 2
    assert printed.err.count(r"\x1b[31mred\u202e\udcff") == 3
    assert all(line.isprintable() for line in (printed.out + printed.err).split("\n"))


def test_foreign_names_are_markdown_of_one_line(capsys):
    name = "a|b\n<img src=x>[link](https://evil.example)\x1b[2J" + "n" * 60_000
    for drawn in (markdown_table(("name",), [(name,)]), markdown_bullets([name])):
        lines = drawn.splitlines()
        assert len(lines) in (1, 3)
        assert lines[-1].startswith(("| a&#124;b &lt;img", "- a&#124;b &lt;img"))
        assert r"&#91;link](https://evil.example)\x1b&#91;2J" in lines[-1]
        assert lines[-1].isprintable()
        assert len(lines[-1]) < 5000


def test_json_is_one_value(capsys):
    console.print_json([{"a": 1.5, "b": None}])
    assert json.loads(capsys.readouterr().out) == [{"a": 1.5, "b": None}]


def test_markdown_is_appended_to_the_summary_of_a_job(tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    console.add_to_job_summary(markdown_table(("handle", "#size"), [("a", "1 MB"), ("b", "2 MB")]))
    assert summary.read_text() == "before\n| handle | size |\n| :-- | --: |\n| a | 1 MB |\n| b | 2 MB |\n"


@pytest.mark.parametrize("value", [None, ""])
def test_outside_a_job_no_summary_is_written(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if value is None:
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    else:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", value)
    console.add_to_job_summary("a\n")
    assert list(tmp_path.iterdir()) == []


def test_steps_leave_their_lines_on_standard_error(capsys):
    with Steps(console.progress_bar(), 2) as on:
        advance = on.start("reading [a]")
        advance(10, 20)
        on.finish("[a] done")
        on.start("reading b")
        on.finish("b done")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == ["reading [a] ...", "[a] done", "reading b ...", "b done"]


def test_steps_draw_bars_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Steps(console.progress_bar(), 2) as on:
        on.start("reading a")(10_000_000, 20_000_000)
        on.finish("a done")
    assert "a done" in terminal.getvalue()
    assert "1/2" in terminal.getvalue()
