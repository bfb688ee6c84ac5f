"""Where a model goes: complete or not at all, whatever happens meanwhile."""

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from export import install as module
from export.install import install, kept, prepare_out, refuse_to_replace, staged, tidy
from models.errors import MixerError, UsageError
from models.records.layout import ModelPaths
from models.records.manifest import CheckpointRecord, FileDigest, Manifest

ROOT = Path(module.__file__).parent.parent


def manifest(text):
    return Manifest(
        handle="mixer_x",
        version=2,
        flavour="native",
        head="fe",
        architecture="Ti/8",
        image_size=32,
        num_classes=None,
        parameters=1,
        platforms=("cpu",),
        checkpoint=CheckpointRecord(name="x", object="x.npz", url="x", sha256="x", size=1, origin="own"),
        files={name: FileDigest(sha256=text, size=len(text)) for name in ("saved_model.pb", "variables/data")},
        libraries={},
        pipeline=text,
        pipeline_sha256="x",
        git_commit=None,
        git_dirty=None,
    )


@pytest.fixture
def destination(tmp_path):
    return ModelPaths.of(tmp_path / "build", "mixer_x", 2)


def fill(directory, text):
    (directory / "saved_model.pb").write_text(text, encoding="utf-8")
    (directory / "variables").mkdir()
    (directory / "variables" / "data").write_text(text, encoding="utf-8")


def put(destination, text, *, overwrite=False):
    with staged(destination) as stage:
        fill(stage, text)
        install(stage, destination, manifest(text), overwrite=overwrite)


def state(destination):
    """What a user finds: everything below the handle's directory."""
    parent = destination.directory.parent
    return {
        path.relative_to(parent).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(parent.rglob("*"))
        if path.is_file()
    }


def names(destination):
    return sorted(path.name for path in destination.directory.parent.iterdir())


def complete(text):
    return {
        "2.manifest.json": manifest(text).to_bytes().decode(),
        "2/saved_model.pb": text,
        "2/variables/data": text,
    }


def test_paths_stand_beside_each_other(destination, tmp_path):
    handle = tmp_path / "build" / "mixer_x"
    assert destination.directory == handle / "2"
    assert destination.manifest == handle / "2.manifest.json"
    assert destination.report == handle / "2.report.json"


def test_new_model_is_put_in_place(destination):
    put(destination, "new")
    assert state(destination) == complete("new")
    assert names(destination) == ["2", "2.manifest.json"]


def test_nothing_is_seen_before_it_is_finished(destination):
    with staged(destination) as stage:
        fill(stage, "new")
        assert stage.parent.parent == destination.directory.parent
        assert stage.parent.name.startswith(".2.partial-")
        assert not destination.directory.exists()
        assert not destination.manifest.exists()


class InterruptionError(BaseException):
    """Like a signal that ends the program."""


@pytest.mark.parametrize("error", [ValueError("wrong"), MixerError("refused"), InterruptionError()])
def test_failure_leaves_nothing_and_goes_on_as_it_is(destination, error):
    with pytest.raises(type(error)) as caught, staged(destination) as stage:
        fill(stage, "half")
        raise error
    assert caught.value is error
    assert names(destination) == []


def test_stage_that_was_not_installed_is_removed(destination):
    with staged(destination) as stage:
        fill(stage, "unused")
    assert not stage.exists()
    assert names(destination) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space there"), (errno.EFBIG, "raise the limit on the size of files (`ulimit -f`)")],
)
def test_full_disk_is_said_in_words(number, advice, destination):
    said = os.strerror(number)
    expected = rf"could not write {re.escape(str(destination.directory))} \({said}\): nothing was left there; "
    with pytest.raises(MixerError, match=expected) as caught, staged(destination) as stage:
        fill(stage, "half")
        raise OSError(number, said)
    assert caught.value.exit_status == 1
    assert f"; {advice}, or give another --out." in str(caught.value)
    assert names(destination) == []


def test_failure_in_the_stage_leaves_the_old_version_alone(destination):
    put(destination, "old")
    with pytest.raises(MixerError, match="could not write"), staged(destination) as stage:
        fill(stage, "half")
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert state(destination) == complete("old")


def test_handle_directory_that_cannot_be_made_is_said_in_words(destination):
    destination.out.mkdir()
    destination.directory.parent.write_text("a file of the user's", encoding="utf-8")
    with pytest.raises(MixerError, match=r"could not write .*mixer_x.2 \(File exists\)"), staged(destination):
        pytest.fail("nothing can be staged there")
    assert destination.directory.parent.read_text(encoding="utf-8") == "a file of the user's"


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from export.install import install, kept, prepare_out, staged, tidy
from models.records.layout import ModelPaths
from models.records.manifest import Manifest

old, out, manifest = Path(sys.argv[1]), Path(sys.argv[2]), Manifest.model_validate_json(sys.argv[3])
destination = ModelPaths.of(out, "mixer_x", 2)
CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "fcntl.flock", "shutil.rmtree"}

def replace():
    prepare_out(out)
    tidy(destination)
    with staged(destination) as stage:
        (stage / "variables").mkdir()
        for name in manifest.files:
            (stage / name).write_text("new")
        install(stage, destination, manifest, overwrite=True)

def replace_killed_at(last):
    met = 0
    def count(event, arguments):
        nonlocal met
        if event in CHANGES:
            met += 1
            if met == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    replace()

def state():
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

def start():
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(old, out)

start()
before = state()
replace()
after, states, moments = state(), [], 0
while True:
    start()
    child = os.fork()
    if not child:
        replace_killed_at(moments + 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    moments += 1
    prepare_out(out)
    tidy(destination)
    states.append(state())
    assert states[-1] in (before, after), (moments, states[-1].keys())
    replace()
    assert state() == after, (moments, state().keys())
    assert not [path for path in out.rglob(".*")], (moments, list(out.rglob(".*")))
assert before in states and after in states
print(moments)
"""
"""Replaces a model again and again, each time killed at the next event of the file system, and then goes on."""


@pytest.mark.parametrize("whole", [True, False], ids=["with all of its make", "without manifest"])
def test_replacement_killed_at_any_event_is_finished_or_undone_and_leaves_nothing(destination, tmp_path, whole):
    put(destination, "old")
    if whole:
        write_siblings(destination)
    else:
        destination.manifest.unlink()
    command = [sys.executable, "-c", KILLED, destination.out, tmp_path / "out", manifest("new").to_bytes()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


@pytest.mark.parametrize("name", [".2.partial-{}", ".writable-{}", "2.partial-{}", ".2.other-{}", ".2.partial-{}x"])
def test_what_only_looks_temporary_is_kept(destination, name):
    left = destination.folder / name.format("0" * 16)
    left.mkdir(parents=True)
    (left / "notes.txt").write_text("a user's", encoding="utf-8")
    put(destination, "new")
    assert (left / "notes.txt").is_file()


MAKING = """
import sys
from contextlib import contextmanager
from pathlib import Path
from export import install as module
from export.install import install, staged
from models.errors import MixerError
from models.records.layout import ModelPaths
from models.records.manifest import Manifest

def stop():
    print("stopped", flush=True)
    sys.stdin.readline()

@contextmanager
def block():
    stop()
    yield

destination, where = ModelPaths.of(Path(sys.argv[1]), "mixer_x", 2), sys.argv[3]
manifest = Manifest.model_validate_json(sys.argv[2])
if where == "before it is put in place":
    module.uninterrupted = block
if where == "before its directory is put in place":
    write = module.write_atomically
    module.write_atomically = lambda *arguments: (write(*arguments), stop())
try:
    with staged(destination) as stage:
        (stage / "variables").mkdir()
        for name in manifest.files:
            (stage / name).write_text(manifest.pipeline)
        if where == "while it is staged":
            stop()
        install(stage, destination, manifest, overwrite=False)
except MixerError as error:
    print(error, flush=True)
"""
"""Makes a model, and stops at some place until it is told to go on."""


def making(destination, text, where="nowhere"):
    command = [sys.executable, "-c", MAKING, destination.out, manifest(text).to_bytes(), where]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def test_what_another_process_is_making_is_kept(destination):
    with making(destination, "new", "while it is staged") as process:
        assert process.stdout.readline() == "stopped\n"
        left = names(destination)
        tidy(destination)
        assert names(destination) == left == [".2.lock", next(name for name in left if ".partial-" in name)]
        process.kill()
    tidy(destination)
    put(destination, "ours")
    assert names(destination) == ["2", "2.manifest.json"]


@pytest.mark.parametrize("where", ["while it is staged", "before it is put in place"])
def test_of_two_makers_of_a_version_the_second_waits_and_finds_it_made(destination, where):
    with making(destination, "first", where) as first:
        assert first.stdout.readline() == "stopped\n"
        with making(destination, "second") as second:
            waits = second.stderr.readline()
            said, _ = first.communicate("go on\n", timeout=60)
            assert (said, first.returncode) == ("", 0)
            refused, _ = second.communicate(timeout=60)
    assert state(destination) == complete("first")
    assert waits == f"another process is using {destination.directory}: waiting for it\n"
    assert refused == f"{destination.directory} exists already: give another --version, or --overwrite to replace it.\n"
    assert names(destination) == ["2", "2.manifest.json"]


def test_the_second_maker_of_a_version_goes_on_where_the_first_is_killed(destination):
    with making(destination, "first", "before its directory is put in place") as first:
        assert first.stdout.readline() == "stopped\n"
        with making(destination, "second") as second:
            assert "waiting for it" in second.stderr.readline()
            first.kill()
            said, errors = second.communicate(timeout=60)
    assert (said, second.returncode) == ("", 0), errors
    assert state(destination) == complete("second")
    assert names(destination) == ["2", "2.manifest.json"]


def set_aside(destination, *left):
    """Leave what a process leaves that was killed as it moved an old version aside, except what it had not moved."""
    folder = destination.folder / (".2.partial-" + "0" * 16)
    (folder / "old").mkdir(parents=True)
    (folder / "lock").touch()
    for path in [path for path in destination.folder.iterdir() if path.name[0] != "." and path.name not in left]:
        path.rename(folder / "old" / path.name)


def test_what_is_aside_is_not_put_back_in_the_way_of_a_maker(destination):
    put(destination, "old")
    set_aside(destination)
    aside = destination.folder / (".2.partial-" + "0" * 16)
    aside.rename(destination.folder / "elsewhere")
    with making(destination, "new", "before its directory is put in place") as process:
        assert process.stdout.readline() == "stopped\n"
        (destination.folder / "elsewhere").rename(aside)
        tidy(destination)
        said, errors = process.communicate("go on\n", timeout=60)
    assert (said, process.returncode) == ("", 0), errors
    tidy(destination)
    assert state(destination) == complete("new")
    assert names(destination) == ["2", "2.manifest.json"]


def test_what_earlier_releases_left_is_named_and_kept(destination, caplog):
    put(destination, "new")
    left = [".2.manifest.json.partial-12", ".2.old-12", ".2.partial-12-" + "0" * 16, ".2.partial-12-old"]
    others = [".12.old-12", ".2.older-12", ".2.partial-x", "2.old-12"]
    for name in (*left, *others):
        (destination.folder / name).mkdir()
    module._name_left_by_earlier_releases.cache_clear()
    tidy(destination)
    tidy(destination)
    assert (
        f"release of this program was interrupted and left {', '.join(left)} in {destination.folder}: " in caplog.text
    )
    assert len(caplog.records) == 1
    assert names(destination) == sorted(["2", "2.manifest.json", *left, *others])


@pytest.mark.parametrize("kind", ["model", "empty directory", "file", "dangling link"])
def test_what_exists_is_refused_without_overwrite(destination, kind):
    target = destination.directory
    target.parent.mkdir(parents=True)
    if kind == "model":
        put(destination, "old")
    elif kind == "empty directory":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine", encoding="utf-8")
    else:
        target.symlink_to("nowhere")
    before = state(destination)
    with pytest.raises(UsageError, match=r"mixer_x.2 exists already: give another --version, or --overwrite"):
        refuse_to_replace(destination, overwrite=False)
    with pytest.raises(UsageError, match=r"exists already"):
        put(destination, "new")
    assert state(destination) == before
    assert os.path.lexists(target)


def test_overwrite_replaces_the_old_version_and_its_report(destination):
    put(destination, "old")
    destination.report.write_text("passed", encoding="utf-8")
    put(destination, "new", overwrite=True)
    assert state(destination) == complete("new")
    assert names(destination) == ["2", "2.manifest.json"]


SIBLINGS = ("2.evidence.npz", "2.md", "2.provenance.json", "2.provenance.json.sig", "2.report.json", "2.tar.gz")


def write_siblings(destination):
    for name in SIBLINGS:
        (destination.directory.parent / name).write_text(f"# Module of {name}", encoding="utf-8")


def test_overwrite_takes_away_all_that_was_made_of_the_old_version(destination):
    put(destination, "old")
    write_siblings(destination)
    (destination.directory.parent / "11.tar.gz").write_text("of another", encoding="utf-8")
    put(destination, "new", overwrite=True)
    assert state(destination) == complete("new") | {"11.tar.gz": "of another"}


def test_what_only_has_the_name_of_a_sibling_stays(destination):
    put(destination, "old")
    mine = {"2.md": "notes on version 2", "2.tar.gz": "a backup", "2.txt": "more", "2.tar.gz.md5": "of the backup"}
    for name, text in mine.items():
        (destination.directory.parent / name).write_text(text, encoding="utf-8")
    (destination.directory.parent / "2.report.json").mkdir()
    with pytest.raises(MixerError, match="could not write"):
        put(destination, "new", overwrite=True)
    (destination.directory.parent / "2.report.json").rmdir()
    put(destination, "new", overwrite=True)
    assert state(destination) == complete("new") | mine


def test_other_versions_are_left_alone(destination):
    other = ModelPaths.of(destination.out, destination.handle, 1)
    put(other, "one")
    put(destination, "two")
    put(destination, "three", overwrite=True)
    assert (other.directory / "saved_model.pb").read_text(encoding="utf-8") == "one"
    assert names(destination) == ["1", "1.manifest.json", "2", "2.manifest.json"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_is_no_saved_model_is_never_replaced(destination, kind):
    target = destination.directory
    target.parent.mkdir(parents=True)
    if kind == "file":
        target.write_text("mine", encoding="utf-8")
    else:
        target.mkdir()
        (target / "thesis.txt").write_text("mine", encoding="utf-8")
    before = state(destination)
    with pytest.raises(UsageError, match="is not a SavedModel, so it is not replaced: move it away"):
        put(destination, "new", overwrite=True)
    assert state(destination) == before


def test_what_a_user_put_into_a_model_is_never_deleted(destination):
    put(destination, "old")
    (destination.directory / "notes.txt").write_text("mine", encoding="utf-8")
    before = state(destination)
    with pytest.raises(UsageError, match=r"not written with it \(notes.txt\), so it is not replaced: move them away"):
        put(destination, "new", overwrite=True)
    assert state(destination) == before


def test_what_a_user_put_into_a_model_without_manifest_is_never_deleted(destination):
    put(destination, "old")
    destination.manifest.unlink()
    (destination.directory / "notes.txt").write_text("mine", encoding="utf-8")
    before = state(destination)
    with pytest.raises(UsageError, match=r"not written with it \(notes.txt\)"):
        put(destination, "new", overwrite=True)
    assert state(destination) == before


def fail_on_rename(monkeypatch, prefix):
    """Let the rename of what is called so fail, and every other work."""
    rename = Path.rename

    def failing(self, target):
        if self.name.startswith(prefix):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)


def test_old_version_comes_back_if_the_new_one_cannot_take_its_place(destination, monkeypatch):
    put(destination, "old")
    write_siblings(destination)
    before = state(destination)
    fail_on_rename(monkeypatch, "new")
    with pytest.raises(MixerError, match=r"could not write .*Input/output error"):
        put(destination, "new", overwrite=True)
    assert state(destination) == before


def test_no_manifest_is_left_without_its_model(destination, monkeypatch):
    fail_on_rename(monkeypatch, "new")
    with pytest.raises(MixerError, match=r"could not write .*Input/output error"):
        put(destination, "new")
    assert names(destination) == []


def test_old_version_comes_back_if_the_manifest_cannot_be_written(destination, monkeypatch):
    put(destination, "old")
    destination.report.write_text("passed", encoding="utf-8")
    before = state(destination)

    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(MixerError, match="No space left on device"):
        put(destination, "new", overwrite=True)
    assert state(destination) == before


@pytest.mark.parametrize("name", [*SIBLINGS, "2.manifest.json", "2"])
def test_old_version_comes_back_if_some_of_it_cannot_go_aside(destination, monkeypatch, name):
    put(destination, "old")
    write_siblings(destination)
    before = state(destination)
    with monkeypatch.context() as patch:
        rename = Path.rename

        def failing(self, target):
            if self == destination.directory.parent / name:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return rename(self, target)

        patch.setattr(Path, "rename", failing)
        with pytest.raises(MixerError, match="Input/output error"):
            put(destination, "new", overwrite=True)
    assert state(destination) == before


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027])
def test_permissions_follow_the_umask(destination, umask):
    before = os.umask(umask)
    try:
        put(destination, "new")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(destination.directory.stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE(destination.manifest.stat().st_mode) == 0o666 & ~umask


def test_output_directory_is_made_and_left_empty(tmp_path):
    prepare_out(tmp_path / "a" / "b")
    prepare_out(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", ["", "build", "build/deep"])
def test_output_at_or_below_a_file_is_refused(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(
        UsageError, match=r"cannot write to the output directory .*file.* \((Not a|File ex).*another one"
    ):
        prepare_out(file / below)
    assert file.read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no /proc, where not even root may write")
@pytest.mark.parametrize("place", ["/proc", "/proc/mixer-build"])
def test_output_where_nobody_may_write_is_refused(place):
    with pytest.raises(UsageError, match=rf"cannot write to the output directory {place} \(.+\): give another one"):
        prepare_out(Path(place))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"cannot write to the output directory .*Permission denied"):
        prepare_out(tmp_path / "build")


def test_what_is_only_read_is_locked_where_that_can_be_done(destination, monkeypatch):
    put(destination, "ours")
    with kept(destination):
        assert names(destination) == [".2.lock", "2", "2.manifest.json"]
    monkeypatch.setattr(os, "access", lambda *_: False)  # a read-only disk; permissions do not bind this user
    with kept(destination):
        assert names(destination) == ["2", "2.manifest.json"]
