"""The records beside a SavedModel: what is written is what is read, and nothing else is accepted."""

import hashlib
import json
import math

import pytest
from publishable import fields_of
from pydantic import ValidationError
from reporting import check

from models.errors import MixerError
from models.records.check import Tolerance
from models.records.formats import ExportReport
from models.records.manifest import CheckpointRecord, FileDigest, Manifest, SealedRecord
from models.records.report import DepthStep, PublishedComparison, PublishedVariables, Report
from models.storage.files import read_small, write_atomically

MANIFEST = Manifest(
    handle="mixer_x",
    version=2,
    flavour="native",
    head="classification",
    architecture="Ti/8",
    image_size=32,
    num_classes=1000,
    parameters=3,
    platforms=("cpu", "tpu"),
    checkpoint=CheckpointRecord(name="x", object="o.npz", url="gs://b/o.npz", sha256="a", size=12, origin="seeded"),
    files={"saved_model.pb": FileDigest(sha256="b", size=5), "assets/names ü.txt": FileDigest(sha256="c", size=7)},
    libraries={"jax": "0.10.2"},
    pipeline="0.1.0",
    pipeline_sha256="d",
    git_commit=None,
    git_dirty=None,
)


def compared(relative):
    return check("max_relative", relative, problems=("far",) if relative == math.inf else ())


REPORT = Report(
    handle="mixer_x",
    version=2,
    flavour="native",
    head="classification",
    origin="seeded",
    manifest_sha256="e",
    inputs_set="gate",
    inputs_sha256="f",
    images=("noise",),
    checks=(compared(2e-6), compared(math.inf), check("consumer", on="hub.load", power=0, detail="not installed")),
    zero_head=False,
    fine_tunable=False,
    depth=(DepthStep(name="stem", jax=1e-7, saved_model=math.inf),),
    reference=PublishedComparison(
        name="mixer_x_1.tar.gz",
        kind="archive",
        sha256="h",
        outputs=(compared(math.inf),),
        signatures=("signature train: only in the published version",),
        variables=PublishedVariables(
            count=9,
            published=10,
            same_name=1,
            equal=8,
            different=("head/bias",),
            left_over=("a float32[3]",) * 2,
        ),
        differences=("one", "two"),
        verdict="different",
    ),
    not_checked=("tpu: exported, not run",),
    tolerances={"max_relative": Tolerance(limit=1e-5, reason="because")},
    verdict="failed",
    libraries={"jax": "0.10.2"},
    validator_sha256="g",
)
RECORDS = (MANIFEST, REPORT)

each_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


@each_record
def test_record_survives_writing_and_reading(record, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(record.to_bytes())
    read = type(record).read(path)
    assert read == record
    assert read.to_bytes() == record.to_bytes()
    assert record.to_bytes().endswith(b"}\n")


SEALED = [record for record in RECORDS if isinstance(record, SealedRecord)]


@pytest.mark.parametrize("record", SEALED, ids=lambda record: type(record).__name__)
def test_any_flipped_bit_of_a_sealed_record_is_noticed(record):
    content = record.to_bytes()
    assert json.loads(content)["record_sha256"] == hashlib.sha256(record_without_digest(content)).hexdigest()
    for place in range(len(content)):
        damaged = content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]
        with pytest.raises(MixerError, match=r"2\.record\.json"):
            type(record).parse(damaged, "2.record.json")


def record_without_digest(content):
    """As the documentation says: without the last line but one, and the comma before it."""
    *lines, _, end = content.split(b"\n")[:-1]
    return b"\n".join([*lines[:-1], lines[-1].removesuffix(b","), end, b""])


@pytest.mark.parametrize("record", SEALED, ids=lambda record: type(record).__name__)
def test_a_sealed_record_in_another_form_is_refused_and_an_earlier_one_is_read(record):
    said = "it must end with its record_sha256"
    with pytest.raises(MixerError, match=said):
        type(record).parse(json.dumps(json.loads(record.to_bytes())).encode(), "2.record.json")
    assert type(record).parse(record_without_digest(record.to_bytes()), "2.record.json") == record


def test_infinity_survives(tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(REPORT.to_bytes())
    read = Report.read(path)
    assert read.checks[1].measured == math.inf
    assert read.figure("max_relative") == math.inf
    assert json.loads(path.read_bytes(), parse_constant=pytest.fail)["checks"][1]["measured"] == "Infinity"


def test_not_a_number_survives(tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(REPORT.model_copy(update={"checks": (compared(math.nan),)}).to_bytes())
    assert math.isnan(Report.read(path).checks[0].measured)


def test_size_of_a_manifest_is_that_of_its_files():
    assert MANIFEST.size == 12


def test_what_the_gate_set_does_not_look_at_is_said_to_be_unknown(tmp_path):
    gate = REPORT.model_copy(update={"fine_tunable": None, "depth": (), "reference": None})
    path = tmp_path / "report.json"
    path.write_bytes(gate.to_bytes())
    assert Report.read(path) == gate
    written = json.loads(path.read_bytes())
    assert [written[name] for name in ("fine_tunable", "depth", "reference")] == [None, [], None]


@pytest.mark.parametrize("name", ["checks", "zero_head", "fine_tunable", "depth", "reference", "not_checked"])
def test_a_report_must_say_what_it_found_and_what_it_did_not_look_at(name, tmp_path):
    fields = fields_of(REPORT.to_bytes())
    del fields[name]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(MixerError, match=rf"{name}: Field required"):
        Report.read(path)


@each_record
def test_record_cannot_be_changed(record):
    with pytest.raises(ValidationError, match="frozen"):
        record.handle = "other"


def changed(record, **fields):
    return json.dumps(fields_of(record.to_bytes()) | fields).encode()


BREACHES = {
    "unknown field": (lambda record: changed(record, surprise=1), "surprise: Extra inputs are not permitted"),
    "later schema": (lambda record: changed(record, schema_version=3), "it has schema 3"),
    "unknown flavour": (lambda record: changed(record, flavour="plain"), "flavour: Input should be 'native' or"),
    "unknown set of inputs": (
        lambda record: changed(record, **{"inputs_set" if record is REPORT else "head": "half"}),
        r"(inputs_set|head): Input should be '(gate|classification)' or",
    ),
    "missing field": (lambda record: changed(record).replace(b'"handle"', b'"handel"'), "handle: Field required"),
    "cut off": (lambda record: record.to_bytes()[:100], "Invalid JSON: EOF"),
    "empty": (lambda _: b"", "Invalid JSON: EOF"),
    "not JSON": (lambda _: b"\x89PNG", "Invalid JSON"),
    "another kind": (lambda record: RECORDS[record is MANIFEST].to_bytes(), "it has schema"),
}


@each_record
@pytest.mark.parametrize("breach", BREACHES)
def test_what_is_no_such_record_is_refused_by_name(record, breach, tmp_path):
    make, reason = BREACHES[breach]
    path = tmp_path / "2.record.json"
    path.write_bytes(make(record))
    kind = type(record).noun()
    schema = record.schema_version
    with pytest.raises(
        MixerError, match=rf"2\.record\.json is not a readable {kind} of schema {schema}: .*{reason}"
    ) as error:
        type(record).read(path)
    assert "\n" not in str(error.value)


def test_a_record_is_called_in_words(tmp_path):
    with pytest.raises(MixerError, match="is not a readable export report: "):
        ExportReport.read(tmp_path / "nothing")


def test_a_report_of_an_earlier_schema_is_to_be_written_again(tmp_path):
    path = tmp_path / "2.report.json"
    path.write_bytes(changed(REPORT, schema_version=1, comparisons=[]))
    with pytest.raises(MixerError, match=r"of schema 2: it has schema 1\. `mixer-jax2tf validate` .* writes a new one"):
        Report.read(path)


@each_record
def test_missing_file_is_named(record, tmp_path):
    with pytest.raises(MixerError, match=r"2\.json is not a readable .*No such file"):
        type(record).read(tmp_path / "2.json")


def test_file_is_written_whole(tmp_path):
    path = tmp_path / "record.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def fill_up(self, target):
        assert self.read_bytes() == b"new"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", fill_up)
    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(path, b"new")
    assert error.value.filename == str(path)  # a write names no file
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_as_large_as_allowed_and_no_larger(tmp_path):
    (tmp_path / "text").write_bytes(b"four")
    assert read_small(tmp_path / "text", 4) == b"four"
    with pytest.raises(MixerError, match=r"more than 3 bytes"):
        read_small(tmp_path / "text", 3)


HOSTILE = "\x1b]0;title\x07\x1b[31mred\u202eevil\r\n\x9b2J"


@each_record
def test_a_record_of_any_size_is_not_read(record, tmp_path):
    path = tmp_path / "2.record.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MixerError, match=r"2\.record\.json has more than 1,048,576 bytes, the most that was expected"):
        type(record).read(path)
    with pytest.raises(MixerError, match=r"gs://x has more than 1,048,576 bytes, too many for a (manifest|report)"):
        type(record).parse(bytes((1 << 20) + 1), "gs://x")


@each_record
@pytest.mark.parametrize("name", [HOSTILE, "n" * 60_000])
def test_fields_are_named_escaped_and_cut(name, record):
    with pytest.raises(MixerError, match=r"(\\x1b.*|nnn.* \(60,000 characters\)): Extra inputs") as error:
        type(record).parse(changed(record, **{name: 1}), "2.record.json")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


@each_record
def test_of_many_faults_the_first_is_named(record):
    with pytest.raises(MixerError, match=r" \(and 9,999 more\)\.$") as error:
        type(record).parse(changed(record, **{f"f{number}": 1 for number in range(10_000)}), "2.record.json")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"files": {str(number): {"sha256": "", "size": 1} for number in range(1001)}}, "at most 1000 items"),
        ({"files": {"a": {"sha256": "", "size": -1}}}, r"files\.a\.size: Input should be greater than or equal to 0"),
        ({"files": {"a": {"sha256": "", "size": 10**4000}}}, r"files\.a\.size: Input should be less than"),
        ({"parameters": 10**4000}, "parameters: Input should be less than"),
    ],
)
def test_what_no_model_has_is_no_manifest(fields, match):
    with pytest.raises(MixerError, match=match):
        Manifest.parse(changed(MANIFEST, **fields), "2.manifest.json")
