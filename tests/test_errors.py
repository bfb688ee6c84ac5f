"""Foreign text in messages: on one line, harmless to a terminal, and short."""

import errno
import tempfile

import pytest

from models.errors import MOST_SHOWN, MixerError, printable, reason_of, shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("variables/variables.index", "variables/variables.index"),
        ("größe 大", "größe 大"),
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("cod\u202egnp.exe\u2066", r"cod\u202egnp.exe\u2066"),
        ("line\u2028break", r"line\u2028break"),
        ("not UTF-8: \udcff", r"not UTF-8: \udcff"),
        ("n" * 60_000, "n" * MOST_SHOWN + "... (60,000 characters)"),
        ("\x1b" * 60_000, r"\x1b" * MOST_SHOWN + "... (60,000 characters)"),
    ],
)
def test_a_name_is_shown_on_one_line_escaped_and_cut(text, seen):
    assert shown(text) == seen
    assert seen.isprintable()


def test_a_message_keeps_its_lines():
    assert printable("2 of 2 failed:\n  a\x1b[2J\n  ü") == "2 of 2 failed:\n  a\\x1b[2J\n  ü"


def test_a_message_that_nobody_would_read_is_cut():
    assert printable("x" * 1_000_000).endswith("... (1,000,000 characters)")
    assert printable("\n" * 1_000_000).endswith("... (1,000,001 lines)")
    assert max(len(printable("x" * 1_000_000)), len(printable("\n" * 1_000_000))) < 5000


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MixerError("no such thing"), "no such thing"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "aaa"),
            "aaa cannot be read or written (File name too long)",
        ),
        (
            RuntimeError("x; No space left on device [Op:SaveV2]"),
            "a file cannot be written (No space left on device)",
        ),
        (
            RuntimeError("OUT_OF_RANGE: /my models/saved_model.pb.tmp1; File too large [Op:SaveV2]"),
            "/my models/saved_model.pb.tmp1 cannot be written (File too large): raise the limit on the size of files",
        ),
        (
            OSError(errno.EFBIG, "File too large", "model.npz"),
            "model.npz cannot be read or written (File too large): raise the limit on the size of files",
        ),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", "index.html"),
            "index.html cannot be read or written (Is a directory): a file is expected there, move the directory.",
        ),
        (FileExistsError(errno.EEXIST, "File exists", "out"), "(File exists): it is in the way, move it."),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "out/x"),
            "a directory is expected there, move the file.",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), f"temporary files are in {tempfile.gettempdir()} (TMPDIR)."),
        (KeyError("x"), "unexpected KeyError: 'x'"),
        (
            ModuleNotFoundError("No module named 'no_such.part'", name="no_such.part"),
            "the library `no_such` cannot be imported (No module named 'no_such.part'): it is not installed",
        ),
        (ModuleNotFoundError("No module named 'pytest.x'", name="pytest.x"), f"Python finds it in {pytest.__file__}"),
        (ModuleNotFoundError("No module named 'models.x'", name="models.x"), "unexpected ModuleNotFoundError"),
        (FileNotFoundError(2, "No such file or directory", "x"), "unexpected FileNotFoundError"),
    ],
)
def test_an_error_is_put_in_words(error, said):
    assert said in reason_of(error)


def test_a_temporary_folder_that_was_deleted_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    said = f"the temporary folder {tmp_path / 'gone'} was deleted while the program ran: run the same command again."
    for error in (
        FileNotFoundError(2, "No such file or directory", str(tmp_path / "gone" / "x")),
        RuntimeError(f"NOT_FOUND: {tmp_path}/gone/x; No such file or directory"),
    ):
        assert reason_of(error) == said
    assert reason_of(FileNotFoundError(2, "No such file or directory", "elsewhere")).startswith("unexpected")
