"""Which sources and libraries made something."""

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from models.records import provenance
from models.records.provenance import library_versions, pipeline_version

ROOT = Path(__file__).parent.parent

# The functions remember their first answer; here each is asked again.
sources_sha256 = provenance.sources_sha256.__wrapped__
git_state = provenance.git_state.__wrapped__


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small checkout in place of this one, found by no other repository's git."""
    root = tmp_path / "checkout"
    for name in ("models/a.py", "models/labels.txt", "models/deep/b.py", "models/data.json", "export/c.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n", encoding="utf-8")
    monkeypatch.setattr(provenance, "ROOT", root)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return root


def git(root, *arguments):
    identity = ("-c", "user.name=N", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false")
    result = subprocess.run(["git", "-C", root, *identity, *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_every_deciding_library_has_its_version():
    versions = library_versions()
    assert versions.keys() == {"python", "jax", "jaxlib", "flax", "tensorflow", "numpy"}
    assert versions["python"] == platform.python_version()
    assert {name: version for name, version in versions.items() if name != "python"} == {
        name: metadata.version(name) for name in versions if name != "python"
    }


def test_pipeline_version_is_that_of_the_project():
    assert f'version = "{pipeline_version()}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


DECIDING = {
    provenance.PIPELINE_SOURCES,
    provenance.EXPORT_SOURCES,
    provenance.VALIDATOR_SOURCES,
    provenance.EXPORT_VALIDATOR_SOURCES,
}

DECIDES_NOTHING = (
    *(f"{package}/__init__.py" for package in ("models", "convert", "export", "validation")),
    # Records, storage and words: what is written is compared or hashed by what decides.
    "models/digests.py",
    "models/errors.py",
    "models/markdown.py",
    "models/picture_files.py",
    "models/pictures.py",
    "models/progress.py",
    "models/records/__init__.py",
    "models/records/about.py",
    "models/records/accuracy.py",
    "models/records/layout.py",
    "models/records/manifest.py",
    "models/records/provenance.py",
    "models/records/published_index.py",
    "models/storage",
    # How a checkpoint comes here: what came is known by its sha256.
    "convert/__main__.py",
    "convert/checkpoints/__init__.py",
    "convert/checkpoints/cache.py",
    "convert/checkpoints/fetch.py",
    "convert/checkpoints/forms.py",
    "convert/checkpoints/synthetic.py",
    # How a checkpoint is trained: what came out is known by its sha256.
    "convert/finetune",
    "models/scalars.py",
    # What is done in which order, and shown.
    "convert/cli",
    "convert/pipeline/__init__.py",
    "convert/pipeline/accuracy.py",
    "convert/pipeline/accuracy_files.py",
    "convert/pipeline/accuracy_record.py",
    "convert/pipeline/arguments.py",
    "convert/pipeline/batch.py",
    "convert/pipeline/benchmark.py",
    "convert/pipeline/benchmark_floor.py",
    "convert/pipeline/benchmark_scale.py",
    "convert/pipeline/cards.py",
    "convert/pipeline/classify.py",
    "convert/pipeline/contenders.py",
    "convert/pipeline/digits.py",
    "convert/pipeline/digits_files.py",
    "convert/pipeline/distributed.py",
    "convert/pipeline/export_formats.py",
    "convert/pipeline/fine_tuning.py",
    "convert/pipeline/finetune.py",
    "convert/pipeline/for_each.py",
    "convert/pipeline/interface.py",
    "convert/pipeline/job.py",
    "convert/pipeline/made_models.py",
    "convert/pipeline/matrix.py",
    "convert/pipeline/outcome.py",
    "convert/pipeline/packages.py",
    "convert/pipeline/outdated.py",
    "convert/pipeline/page.py",
    "convert/pipeline/picture_work.py",
    "convert/pipeline/process.py",
    "convert/pipeline/processes.py",
    "convert/pipeline/progress.py",
    "convert/pipeline/republish.py",
    "convert/pipeline/selection.py",
    "convert/pipeline/tfds_data.py",
    "convert/pipeline/training.py",
    "convert/pipeline/unfinished.py",
    "convert/pipeline/usable_model.py",
    # What is done with a proven model.
    "export/cards",
    "export/install.py",
    "export/package",
    "export/publish",
    # What is measured and shown of it.
    "validation/accuracy",
    "validation/benchmark",
    "validation/compatibility/__init__.py",
    "validation/compatibility/environments.py",
    "validation/compatibility/matrix.py",
    "validation/compatibility/tables.py",
    "validation/digits",
    "validation/doctor.py",
    "validation/uses.py",
    "validation/verify.py",
    "validation/views",
)


def test_each_source_decides_bytes_or_verdicts_or_is_named_as_deciding_nothing():
    """A new file must be put on one side."""
    deciding = {path for sources in DECIDING for path in provenance._source_files(*sources)}
    nothing = set(provenance._source_files(*DECIDES_NOTHING))
    every = set(provenance._source_files("models", "convert", "export", "validation"))
    assert deciding & nothing == set()
    assert deciding | nothing == every
    for sources in (*DECIDING, DECIDES_NOTHING):
        assert [source for source in sources if not (ROOT / source).exists()] == []


def test_what_decides_bytes_and_what_decides_verdicts_differ():
    pipeline, validator = ({*sources} for sources in (provenance.PIPELINE_SOURCES, provenance.VALIDATOR_SOURCES))
    assert "export/saved_model" in pipeline - validator
    assert {"validation/gate.py", "validation/parity", "validation/consumer.py"} <= validator - pipeline
    assert "models/mixer.py" in pipeline & validator


def test_sources_of_this_checkout_have_a_digest_that_stays():
    first = provenance.sources_sha256("models", "convert", "export")
    assert len(first) == 64
    assert first == sources_sha256("models", "convert", "export")


@pytest.mark.parametrize("name", ["models/a.py", "models/labels.txt", "models/deep/b.py"])
def test_sources_digest_changes_with_a_file(root, name):
    before = sources_sha256("models")
    with (root / name).open("a", encoding="utf-8") as file:
        file.write("#")
    assert sources_sha256("models") != before


def test_sources_digest_changes_with_a_new_lost_or_renamed_file(root):
    seen = [sources_sha256("models")]
    (root / "models/new.py").write_text("", encoding="utf-8")
    seen.append(sources_sha256("models"))
    (root / "models/new.py").rename(root / "models/newer.py")
    seen.append(sources_sha256("models"))
    (root / "models/a.py").unlink()
    seen.append(sources_sha256("models"))
    assert len(set(seen)) == 4


def test_sources_digest_does_not_see_other_packages_data_and_caches(root):
    before = sources_sha256("models")
    (root / "export/c.py").write_text("", encoding="utf-8")
    (root / "models/data.json").write_text("{}", encoding="utf-8")
    (root / "models/__pycache__").mkdir()
    (root / "models/__pycache__/a.pyc").write_bytes(b"\0")
    assert sources_sha256("models") == before
    assert sources_sha256("models", "export") != before


def test_sources_digest_does_not_depend_on_where_the_checkout_lies(root, tmp_path, monkeypatch):
    before = sources_sha256("models", "export")
    shutil.copytree(root, tmp_path / "elsewhere")
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "elsewhere")
    assert sources_sha256("models", "export") == before


def test_state_of_a_git_checkout(root):
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "One")
    commit = git(root, "rev-parse", "HEAD")
    assert git_state() == (commit, False)
    (root / "models/a.py").write_text("changed\n", encoding="utf-8")
    assert git_state() == (commit, True)
    git(root, "checkout", "--quiet", "models/a.py")
    (root / "models/untracked.py").write_text("", encoding="utf-8")
    assert git_state() == (commit, True)


def test_outside_git_there_is_no_state(root):
    assert git_state() == (None, None)


def test_checkout_without_a_commit_has_no_state(root):
    git(root, "init", "--quiet")
    assert git_state() == (None, None)


def test_without_git_there_is_no_state_which_is_told_in_a_checkout(root, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == (None, None)
    assert caplog.text == ""
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "ROOT", root)
    git(root, "init", "--quiet")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() == (None, None)
    assert "git cannot be started (No such file or directory), so records name no git commit" in caplog.text
