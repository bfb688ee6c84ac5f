"""The page: what it says, that it is well formed, and (marker `browser`) how it behaves in Chromium."""

import base64
import functools
import hashlib
import http.server
import io
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reporting import ON, check, checks, consumed, export_of, verdict_of

from models.catalog import HANDLES, TESTING_HANDLES
from models.formats import FORMATS
from models.records.accuracy import AccuracyRecord, Measurement
from models.records.layout import ModelPaths
from models.records.manifest import CheckpointRecord, FileDigest, Manifest
from models.records.report import DepthStep, PublishedComparison, PublishedVariables, Report
from models.records.tolerances import TOLERANCES
from models.storage.temporary import locked
from validation.views.cells import NOTHING
from validation.views.page import TEMPLATE, write_page

VERSION = 2
HANDLE = HANDLES["mixer_b32_sam_classification"]
IMAGES = ("noise", "blank", "chelsea.png", "near tie")
HOSTILE = '"><script>alert(1)</script><img src="https://evil.example/x" onerror=alert(2)>&amp;'
LIMIT = TOLERANCES["max_relative"].limit
PICTURES = np.random.default_rng(3).integers(0, 256, (len(IMAGES), 112, 112, 3), np.uint8)
MODELS = list(HANDLES.values())[:6]
"""Those of the page of every kind."""


def manifest_of(handle, **changes):
    record = CheckpointRecord(
        name=handle.checkpoint.name, object="o.npz", url="gs://b/o.npz", sha256="c" * 64, size=9, origin="seeded"
    )
    values = {
        "handle": handle.name,
        "version": VERSION,
        "flavour": "native",
        "head": handle.head,
        "architecture": handle.checkpoint.architecture.name,
        "image_size": 224,
        "num_classes": handle.num_classes,
        "parameters": handle.parameters,
        "platforms": ("cpu", "tpu"),
        "checkpoint": record,
        "files": {"saved_model.pb": FileDigest(sha256="f" * 64, size=1234)},
        "libraries": {"tensorflow": "2.21.0"},
        "pipeline": "0.1.0",
        "pipeline_sha256": "a" * 64,
        "git_commit": "d" * 40,
        "git_dirty": True,
    }
    return Manifest(**values | changes)


def report_of(manifest, *, worst=4e-6, full=True, problems=(), more=(), **changes):
    found = dict.fromkeys(("max_relative", "saved_model_oracle_relative", "gradient_relative", "step_relative"), worst)
    some = checks(full=full, head=manifest.head, problems=problems, more=more, **found)
    names = ("stem", *(f"MixerBlock_{index}" for index in range(12)), "pre_head_layer_norm", "features", "head")
    depth = tuple(DepthStep(name=name, jax=3e-6, saved_model=worst) for name in names)
    values = {
        "handle": manifest.handle,
        "version": manifest.version,
        "flavour": "native",
        "head": manifest.head,
        "origin": manifest.checkpoint.origin,
        "manifest_sha256": hashlib.sha256(manifest.to_bytes()).hexdigest(),
        "inputs_set": "full" if full else "gate",
        "inputs_sha256": "b" * 64,
        "images": IMAGES,
        "checks": some,
        "zero_head": False,
        "fine_tunable": True if full else None,
        "depth": depth if full else (),
        "reference": None,
        "not_checked": ("tpu: exported, not run",),
        "tolerances": TOLERANCES,
        "verdict": verdict_of(some),
        "libraries": {"jax": "0.10.2"},
        "validator_sha256": "e" * 64,
    }
    return Report(**values | changes)


def reference_of(**changes):
    variables = PublishedVariables(count=150, published=151, same_name=2, equal=149, different=("a",), left_over=("b",))
    values = {"name": "tiny_1.tar.gz", "kind": "archive", "sha256": "9" * 64, "outputs": (check("max_relative", 2e-6),)}
    values |= {"signatures": (), "variables": variables, "differences": ("what differs",), "verdict": "different"}
    return PublishedComparison(**values | changes)


def put(out, handle, manifest=None, report=None, evidence=None):
    place = ModelPaths.of(out, handle.name, VERSION)
    place.folder.mkdir(parents=True, exist_ok=True)
    if manifest:
        place.manifest.write_bytes(manifest.to_bytes())
    if report:
        place.report.write_bytes(report.to_bytes())
    if evidence:
        names, found, jax = evidence
        truth = jax.astype(float)
        arrays = {"saved_model": found, "jax": jax, "oracle": truth, "scale": truth.std(axis=1), "images": PICTURES}
        np.savez(place.outputs, names=names, **arrays)


def outputs(handle, worst=3e-6):
    """Outputs of all images, the SavedModel's a random way off JAX's, at the most `worst` of the spread."""
    random = np.random.default_rng(7)
    jax = random.normal(size=(len(IMAGES), handle.outputs)).astype(np.float32)
    return np.array(IMAGES), (jax + random.uniform(-worst, worst, jax.shape) / 1.2).astype(np.float32), jax


def put_full(out, handle, **changes):
    manifest = manifest_of(handle)
    put(out, handle, manifest, report_of(manifest, **changes), outputs(handle))


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, and whether each that was opened was closed."""

    VOID = frozenset({"meta", "link", "input", "br", "img", "wbr"})

    def __init__(self, source):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(source)
        self.close()
        self.source, self.text = source, re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes out of turn"

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def inputs(self):
        return [attributes["href"] for attributes in self.all("use") if attributes["href"].startswith("#input-")]

    @property
    def plots(self):
        return [attributes for attributes in self.all("svg") if "focusable" in attributes]

    def section(self, handle):
        return self.source.split(f'data-handle="{handle.name}"')[1].split("</section>")[0]


def show(out):
    path = write_page(out)
    assert path == out / "index.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A directory of every kind: passed, failed, gate only, not checked, void."""
    out = tmp_path_factory.mktemp("mixed")
    names = iter(HANDLES.values())
    put_full(out, next(names))
    put_full(out, next(names), worst=4.9e-5, problems=("gradient by stem is 3 off", "and more"))
    put_full(out, next(names))
    gate = next(names)
    put(out, gate, manifest_of(gate), report_of(manifest_of(gate), full=False))
    unchecked = next(names)
    put(out, unchecked, manifest_of(unchecked))
    stale = next(names)
    put(out, stale, manifest_of(stale, git_dirty=False), report_of(manifest_of(stale)), outputs(stale))
    return out


@pytest.fixture(scope="module")
def page(mixed):
    return show(mixed)


def test_all_handles_are_listed_and_have_their_section(page):
    ids = {attributes.get("id") for _, attributes in page.elements}
    links = {attributes.get("href") for attributes in page.all("a")}
    assert {handle.name for handle in MODELS} <= ids
    assert {f"#{handle.name}" for handle in MODELS} <= links
    assert "6 handles: 3 passed, 1 failed, 1 void, 1 not checked." in page.text
    missing = page.source.split("6 of the twelve are not converted")[1].split("</details>")[0]
    assert re.findall("<code>(.*?)</code>", missing) == [name for name in HANDLES if HANDLES[name] not in MODELS]


def test_verdicts_stand_in_words(page):
    for standing in ("passed", "failed", "void", "not checked"):
        assert re.search(rf'class="badge [a-z-]+"><span aria-hidden="true">.</span> {standing}<', page.source)


def test_seeded_weights_are_called_stand_ins(page):
    assert "seeded (6 handles) : synthetic" in page.text
    assert "not the original weights" in page.text


def test_failing_report_shows_its_problems(page):
    section = page.section(list(HANDLES.values())[1])
    assert "Problems (2)" in section
    assert "gradient by stem is 3 off" in section


def test_gate_report_says_how_to_get_the_rest(page):
    handle = list(HANDLES.values())[3]
    section = page.section(handle)
    assert f"mixer-jax2tf validate {handle.name} --set full" in section
    assert "2.evidence.npz is missing" in section
    assert "<svg" not in section
    assert "4e-06" in section


def test_comparison_with_an_earlier_version_is_shown_and_does_not_touch_the_verdict(tmp_path):
    put_full(tmp_path, HANDLE, reference=reference_of())
    page = show(tmp_path)
    assert "1 handle: 1 passed." in page.text
    assert "Earlier version. tiny_1.tar.gz is different. A new version may differ on purpose" in page.text
    assert "sha256 (archive): " + "9" * 64 in page.text
    assert f"outputs differ by 2e-06 of their scale, {ON} signatures the same variables 149 of 150" in page.text
    assert "<li>what differs</li>" in page.source


def test_without_an_earlier_version_nothing_is_said_of_one(page):
    assert "Earlier version" not in page.text


def test_same_directory_as_earlier_version_is_told_by_its_file(tmp_path):
    put_full(tmp_path, HANDLE, reference=reference_of(kind="directory", differences=(), verdict="same"))
    page = show(tmp_path)
    assert "tiny_1.tar.gz is the same. " in page.text
    assert "sha256 (its saved_model.pb): " in page.text


def test_report_of_another_manifest_is_void(page):
    section = page.section(list(HANDLES.values())[5])
    assert "of another manifest" in section


def test_full_report_shows_figures_limits_and_provenance(page):
    section = page.section(next(iter(HANDLES.values())))
    for expected in ("SavedModel compared with JAX.", "Errors and their limit.", "Error along the depth.", "stem/bias"):
        assert expected in section
    for expected in ("hub.load", "tpu: exported, not run", "c" * 64, "f" * 64, "d" * 40, "uncommitted", "2.21.0"):
        assert expected in section
    for tolerance in TOLERANCES.values():
        assert tolerance.reason.split(".")[0].replace("'", "&#39;") in section


def test_page_is_well_formed(page):
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(page.all("h1")) == 1
    targets = [attributes["href"][1:] for _, attributes in page.elements if attributes.get("href", "").startswith("#")]
    clips = re.findall(r"url\(#([^)]+)\)", page.source)
    assert set(targets) | set(clips) <= set(ids)
    assert clips


def test_pictures_tables_and_controls_have_names(page):
    shown = [attributes for attributes in page.all("svg") if "aria-hidden" not in attributes]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in shown)
    assert len(shown) == 3 * 4 + 1 + len(page.inputs)
    assert len(page.all("figcaption")) == len(shown) == len(page.all("figure"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in {"row", "col"} for attributes in page.all("th"))
    assert {attributes["for"] for attributes in page.all("label")} == {
        attributes["id"] for attributes in page.all("input")
    }


def test_page_loads_nothing(page):
    loading = {"img", "link", "iframe", "object", "embed", "audio", "video", "source", "base", "form"}
    assert not loading & {name for name, _ in page.elements}
    for name, attributes in page.elements:
        assert "src" not in attributes
        assert "style" not in attributes, "the policy forbids inline styles"
        assert not [key for key in attributes if key.startswith("on")]
        assert name == "a" or attributes.get("href", "#").startswith(("#", "data:image/webp;base64,"))
    assert "@import" not in page.source
    assert len(page.all("style")) == len(page.all("script")) == 1


def test_policy_names_style_and_script_by_digest(page):
    policy = next(attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall(r"(?:style|script)-src 'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2


@pytest.mark.whole
def test_same_records_give_the_same_bytes(mixed):
    path = write_page(mixed)
    first = path.read_bytes()
    os.utime(path, (1, 1))
    assert write_page(mixed).read_bytes() == first
    assert path.stat().st_mtime == 1, "not written again"
    path.unlink()
    assert write_page(mixed).read_bytes() == first
    assert [path.name for path in mixed.iterdir() if path.is_file()] == ["index.html"]


DRAWN = """
from validation.views.svg import drawing, to_markup

with drawing(200, 200) as figure:
    figure.subplots().set_title("a title")
    print(to_markup(figure, prefix="p", label="a drawing"))
"""


@pytest.mark.whole
def test_a_drawing_has_the_same_bytes_in_each_process():
    def drawn(seed):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", DRAWN]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "a title" in drawn("1")
    assert len({drawn(seed) for seed in "1234"}) == 1


def test_hostile_text_stays_text(tmp_path):
    handle = replace(HANDLE, name='h"<i>&x$x$')
    manifest = manifest_of(handle, libraries={HOSTILE: HOSTILE}, files={HOSTILE: FileDigest(sha256="0", size=1)})
    more = (consumed(HOSTILE, status="failed", detail=HOSTILE, worst=None),)
    reference = reference_of(name=HOSTILE, differences=(HOSTILE,) * 2)
    report = report_of(manifest, problems=(HOSTILE, "${title} $policy"), more=more, reference=reference)
    put(tmp_path, handle, manifest, report, outputs(handle))
    page = show(tmp_path)
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not page.all("i")
    assert page.text.count(HOSTILE) >= 9
    assert "${title} $policy" in page.text
    assert 'h"<i>&x$x$' in page.text


def test_a_directory_without_models_gets_no_page_but_keeps_one_up_to_date(tmp_path):
    assert write_page(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "index.html").write_text("of models that were there")
    page = show(tmp_path)
    assert "0 handles: nothing to show." in page.text
    assert page.open == []
    assert "not converted" not in page.text


def test_what_makes_it_up_is_at_the_top_with_the_day_of_the_newest_record(tmp_path):
    put_full(tmp_path, HANDLE)
    other = TESTING_HANDLES["mixer_ti8_seeded_fe"]
    put(tmp_path, other, manifest_of(other, libraries={"tensorflow": "2.20.0"}))
    for handle, day in ((HANDLE, 86_400), (other, 2 * 86_400)):
        for path in (tmp_path / handle.name).iterdir():
            os.utime(path, (day, day))
    top = Page(show(tmp_path).source.split("<main")[0]).text
    assert f"Project 0.1.0, commit {'d' * 12} , with uncommitted changes" in top
    assert "Made with tensorflow 2.21.0 or 2.20.0" in top
    assert "Checked with jax 0.10.2" in top
    assert "Newest record 1970-01-03 (UTC)" in top


def test_there_are_links_to_what_is_there(tmp_path):
    put_full(tmp_path, HANDLE)
    paths = ModelPaths.of(tmp_path, HANDLE.name, VERSION)
    paths.directory.mkdir()
    paths.card.write_text("# Module")
    links = [attributes["href"] for attributes in show(tmp_path).all("a") if HANDLE.name in attributes["href"]]
    beside = ["2.manifest.json", "2.report.json", "2.md", "2/"]
    assert links == [f"#{HANDLE.name}", *(f"{HANDLE.name}/{name}" for name in beside)]


def test_long_messages_are_folded(tmp_path):
    put_full(tmp_path, HANDLE, worst=1.0, problems=("short one", "long " * 100 + "end"))
    section = show(tmp_path).section(HANDLE)
    assert "<li>short one</li>" in section
    assert re.search(r"<li><details><summary>(long ){10,40}?long …</summary>…  ?(long )+end</details></li>", section)


def test_inputs_are_shown_with_the_first_classes_of_both(tmp_path):
    names, ours, jax = outputs(HANDLE)
    row, (first, second) = IMAGES.index("chelsea.png"), np.argsort(-jax[2])[:2]
    ours[row, second] = ours[row, first] + np.float32(1e-7)
    ours[row, first] -= np.float32(1e-6)
    listed = "\n".join(f"class-{index}, lemma" for index in range(HANDLE.outputs)) + "\n"
    digest = FileDigest(sha256=hashlib.sha256(listed.encode()).hexdigest(), size=len(listed))
    manifest = manifest_of(HANDLE, files={"assets/labels.txt": digest})
    put(tmp_path, HANDLE, manifest, report_of(manifest, worst=1.0, problems=("tie",)), (names, ours, jax))
    labels = tmp_path / HANDLE.name / "2" / "assets" / "labels.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text(listed)
    page = show(tmp_path)
    assert len(page.all("image")) == len(IMAGES)
    for attributes, pixels in zip(page.all("image"), PICTURES, strict=True):
        content = base64.b64decode(attributes["href"].partition(",")[2])
        assert Image.open(io.BytesIO(content)).size == pixels.shape[:2]
    assert page.inputs == [f"#input-{index}" for index in (2, 0, 1, 3)], "photographs first"
    card = page.section(HANDLE).split("<strong>chelsea.png</strong>")[1].split("</table>")[0]
    said = " ".join(re.sub("<[^>]*>", " ", card).split())
    assert f"class-{first} {jax[row, first]:.5g} ≠ class-{second} " in said
    assert said.count("≠") == 2
    assert "≠" not in page.section(HANDLE).split("<strong>noise</strong>")[1].split("</table>")[0]
    assert "lemma" not in said
    labels.write_text(listed.upper())  # not the list of the manifest
    assert "CLASS" not in show(tmp_path).source
    assert f"class {first} " in show(tmp_path).text


def test_an_input_of_several_models_is_in_the_page_once_and_features_have_no_classes(page):
    assert len(page.all("image")) == len(IMAGES)
    classifiers = [handle for handle in MODELS[:3] if handle.head == "classification"]
    assert len(page.inputs) == len(IMAGES) * len(classifiers)


def measured_of(manifest, **changes):
    values = {
        "data": "one folder per class", "data_sha256": "1" * 64, "protocol": "paper",
        "command": "mixer-jax2tf accuracy x",
        "pictures": 200, "not_decoded": 3, "top1": 151, "top5": 190, "subset_top1": 160, "subset_top5": 195,
        "remarks": ("a remark",), "libraries": {},
    }  # fmt: skip
    record = {"handle": manifest.handle, "version": manifest.version, "measurements": (Measurement(**values),)}
    digest = hashlib.sha256(manifest.to_bytes()).hexdigest()
    return AccuracyRecord(**record | {"manifest_sha256": digest} | changes)


def test_accuracy_is_shown_where_it_was_measured_of_this_very_model(tmp_path):
    put_full(tmp_path, HANDLE)
    path = ModelPaths.of(tmp_path, HANDLE.name, VERSION).accuracy
    assert "Top-1" not in show(tmp_path).text
    path.write_bytes(measured_of(manifest_of(HANDLE)).to_bytes())
    page = show(tmp_path)
    assert "one folder per class 200 75.50 % 95.00 % paper mixer-jax2tf accuracy x 3 more could not" in page.text
    assert "among the classes that occur alone 200 80.00 % 97.50 %" in page.text
    assert page.text.count("75.50 %") == 2, "in the overview too"
    path.write_bytes(measured_of(manifest_of(HANDLE), manifest_sha256="0" * 64).to_bytes())
    text = show(tmp_path).text
    assert "Top-1" not in text
    assert "2.accuracy.json is of another manifest, so its accuracy is not shown: measure it again" in text
    assert "✓ passed" in text


def put_export(out, handle):
    """Write the records of an OpenVINO export of a handle, and of the graph model that it was written from."""
    source = manifest_of(handle.in_flavour("graph"))
    put(out, handle.in_flavour("graph"), source)
    put(out, replace(handle, name=f"{handle.name}-openvino"), *export_of(source))


def test_exports_are_shown_with_the_figures_of_both_settings(tmp_path):
    put_export(tmp_path, HANDLE)
    page = show(tmp_path)
    assert "1 handle: 1 not checked." in page.text  # an export is no handle
    row = f"{HANDLE.name}-openvino model.xml ✓ passed 7.89e-07 5e-05 0.0321 bf16 on Some Processor openvino 2026.1"
    assert row.replace("_", "_ ") in page.text
    assert "INFERENCE_PRECISION_HINT=f32 24.0 2" in page.text
    assert "On its own weights" not in page.text  # nothing in any row
    graph = HANDLE.in_flavour("graph")
    put(tmp_path, graph, manifest_of(graph, pipeline="0.2.0"))
    text = show(tmp_path).text
    assert "! void" in text
    assert f"another SavedModel than {graph.name}, which was converted again since" in text


def test_every_version_is_shown(tmp_path):
    put_full(tmp_path, HANDLE)
    older = manifest_of(HANDLE, version=1)
    ModelPaths.of(tmp_path, HANDLE.name, 1).manifest.write_bytes(older.to_bytes())
    assert "2 handles: 1 passed, 1 not checked." in show(tmp_path).text


def test_a_page_is_made_of_what_is_there_once_no_other_process_writes_it(tmp_path):
    put_full(tmp_path, HANDLE)
    writer = threading.Thread(target=write_page, args=(tmp_path,))
    with locked(tmp_path / ".index.html.lock", None):
        writer.start()
        writer.join(1)
        assert writer.is_alive()
        put_full(tmp_path, HANDLES["mixer_b32_sam_fe"])
    writer.join()
    assert "mixer_b32_sam_fe" in (tmp_path / "index.html").read_text()
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"index.html"}


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_nan_and_infinity_survive(tmp_path, bad):
    names, found, jax = outputs(HANDLE)
    found[0, :7] = bad
    manifest = manifest_of(HANDLE)
    more = (check("max_relative", math.inf), check("max_relative", 1e-6, on="__call__ on blank (batch 1)"))
    depth = (DepthStep(name="stem", jax=0.0, saved_model=bad), DepthStep(name="features", jax=1e-6, saved_model=bad))
    report = report_of(manifest, worst=bad, more=more, depth=depth, problems=("bad",))
    put(tmp_path, HANDLE, manifest, report, (names, found, jax))
    page = show(tmp_path)
    assert "7 are NaN or infinite and cannot be drawn" in page.text
    assert ("not a number" if math.isnan(bad) else "infinite") in page.text
    assert 'data-order="Infinity"' in page.source
    assert not re.search(r'(?: |")(?:nan|inf)\b', "".join(re.findall(r"<svg.*?</svg>", page.source)))


def equal(jax):
    return jax.copy()


def nothing_finite(jax):
    return np.full_like(jax, np.nan)


def huge(jax):
    return np.full_like(jax, np.finfo(np.float32).max)


@pytest.mark.parametrize("spoil", [equal, nothing_finite, huge])
def test_extreme_outputs_can_be_drawn(tmp_path, spoil):
    names, _, jax = outputs(HANDLE)
    manifest = manifest_of(HANDLE)
    depth = tuple(DepthStep(name=name, jax=0.0, saved_model=0.0) for name in ("stem", "features"))
    report = report_of(manifest, worst=math.inf, depth=depth, problems=("x",))
    put(tmp_path, HANDLE, manifest, report, (names, spoil(jax), jax))
    assert len(show(tmp_path).plots) == 4


def test_one_output_far_off_is_drawn_and_counted(tmp_path):
    names, found, jax = outputs(HANDLE)
    found[1, 2] += 30 * LIMIT
    manifest = manifest_of(HANDLE)
    report = report_of(manifest, worst=31 * LIMIT, problems=("far",))
    put(tmp_path, HANDLE, manifest, report, (names, found, jax))
    page = show(tmp_path)
    assert "1 of 4,000 are;" in page.text
    marks = re.findall(r'<path[^>]*class="stroke-limit"[^>]*stroke-width="6"', page.source)
    assert len(marks) == 2, "in both panels, large and red"
    assert any("1 are over the limit" in attributes["aria-label"] for attributes in page.plots)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("manifest.json", "2.manifest.json is not a readable manifest"),
        ("report.json", "2.report.json is not a readable report"),
        ("evidence.npz", "2.evidence.npz cannot be read"),
    ],
)
def test_damaged_file_is_named(tmp_path, name, said):
    put_full(tmp_path, HANDLE)
    (tmp_path / HANDLE.name / f"{VERSION}.{name}").write_bytes(b"{nothing of ours")
    page = show(tmp_path)
    assert said in page.text
    assert str(tmp_path) not in page.source
    assert ("! void" in page.text) == name.endswith(".json")


@pytest.mark.parametrize("change", ["missing", "farther", "names", "shape"])
def test_evidence_that_is_not_the_reports_is_left_out(tmp_path, change):
    put_full(tmp_path, HANDLE)
    names, found, jax = outputs(HANDLE)
    path = ModelPaths.of(tmp_path, HANDLE.name, VERSION).outputs
    if change == "missing":
        path.unlink()
    elif change == "farther":
        put(tmp_path, HANDLE, evidence=(names, found + np.float32(1e-3), jax))
    elif change == "names":
        put(tmp_path, HANDLE, evidence=(np.array([*IMAGES[:-1], "other"]), found, jax))
    else:
        put(tmp_path, HANDLE, evidence=(names, found[:, :5], jax))
    page = show(tmp_path)
    assert "no plots of the outputs" in page.text
    assert len(page.plots) == 2


def test_evidence_must_be_of_the_models_own_head(tmp_path):
    """Not only as near as a probing head's outputs were."""
    put_full(tmp_path, HANDLE)
    manifest, off = manifest_of(HANDLE), {"head": 5e-5, "stem": 5e-5, None: 0.0}
    some = [
        one.model_copy(update={"measured": off[one.probe]}) if one.name == "max_relative" else one for one in checks()
    ]
    put(tmp_path, HANDLE, manifest, report_of(manifest, checks=tuple(some)))
    assert "no plots of the outputs" in show(tmp_path).text


def test_a_report_without_the_limit_of_outputs_has_no_pictures_of_them(tmp_path):
    put_full(tmp_path, HANDLE)
    manifest = manifest_of(HANDLE)
    limits = {name: one for name, one in TOLERANCES.items() if name != "max_relative"}
    put(tmp_path, HANDLE, manifest, report_of(manifest, tolerances=limits))
    page = show(tmp_path)
    assert "! void" in page.text
    assert len(page.plots) == 1


def test_a_report_that_cannot_be_read_is_to_be_written_again_by_one_command(tmp_path):
    put_full(tmp_path, HANDLE)
    (tmp_path / HANDLE.name / f"{VERSION}.report.json").write_bytes(b"{}")
    text = show(tmp_path).text
    assert "mixer-jax2tf validate" in text
    assert "convert-all" not in text


def test_records_of_another_handle_are_void(tmp_path):
    other = manifest_of(HANDLES["mixer_b32_sam_fe"])
    put(tmp_path, HANDLE, other, report_of(other))
    page = show(tmp_path)
    assert "the manifest is of mixer_b32_sam_fe, version 2, expected mixer_b32_sam_classification" in page.text


def test_page_stays_small_with_the_largest_head(tmp_path):
    handle = HANDLES["mixer_l16_i21k_classification"]
    put_full(tmp_path, handle)
    write_page(tmp_path)
    assert (tmp_path / "index.html").stat().st_size < 4_000_000 / 12


def test_convert_all_and_export_write_the_page_of_all_that_is_there(tiny_build, tiny_exports):
    names = {name for handle in TESTING_HANDLES for name in (handle, f"{handle}-graph")}
    converted = Page((tiny_build / "index.html").read_text())
    assert {attributes.get("data-handle") for attributes in converted.all("section")} == names
    assert len(converted.inputs) == 4 * 2
    exported = Page((tiny_exports / "index.html").read_text())
    links = {attributes["href"] for attributes in exported.all("a")}
    assert {f"{handle}-{name}/2/" for handle in TESTING_HANDLES for name in FORMATS} <= links


def luminance(colour):
    channels = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_light_and_dark():
    dresses = re.findall(r":root \{(.*?)\}", TEMPLATE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(dresses) == 2
    for dress in dresses:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", dress))
        for ground in ("paper", "shade"):
            for name in ("ink", "quiet", "link", "limit", "good", "warn", "saved-model", "jax", "oracle"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        assert contrast(colours["axis"], colours["paper"]) >= 3


class _Recorder(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 (one server, one list)

    def log_message(self, *_):
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def server(mixed):
    write_page(mixed)
    handler = functools.partial(_Recorder, directory=str(mixed))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/index.html"
        httpd.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield session
    session.quit()


@pytest.fixture
def browser(chromium, server):
    """Chromium with the page freshly loaded, 1280 pixels wide, light."""
    resize(chromium, 1280)
    dress(chromium, "light")
    chromium.get_log("browser")
    chromium.get(server)
    return chromium


def resize(browser, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def dress(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def column(browser, index):
    script = (
        "return [...document.querySelectorAll('#handles tbody tr:not([hidden])')].map(r => r.cells[%d].textContent)"
    )
    return browser.execute_script(script % index)


@pytest.mark.browser
def test_page_renders_without_errors_or_requests(browser):
    assert browser.get_log("browser") == []
    resources = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in resources if not name.endswith("/favicon.ico")] == []
    assert set(_Recorder.asked) <= {"/index.html", "/favicon.ico"}
    shown = "[...document.querySelectorAll('svg[role=img]')].filter(s => s.checkVisibility())"
    drawn = f"return {shown}.every(s => s.getBoundingClientRect().height > 100)"
    assert browser.execute_script(drawn)
    sizes = "return Promise.all([...document.querySelectorAll('image')].map(i => i.decode().then(() => 1, () => 0)))"
    assert browser.execute_script(sizes) == [1] * len(IMAGES)


@pytest.mark.browser
@pytest.mark.parametrize(("name", "numeric"), [("Handle", False), ("Parameters", True), ("Worst difference", True)])
def test_column_sorts_both_ways(browser, name, numeric):
    headings = [one.text.strip() for one in browser.find_elements("css selector", "#handles thead th")]
    index = headings.index(name)

    def known():
        texts = [text for text in column(browser, index) if text != NOTHING]
        return [float(text.replace(",", "")) for text in texts] if numeric else texts

    heading = browser.find_elements("css selector", "#handles thead th")[index]
    button = heading.find_element("css selector", "button")
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    rising = known()
    if numeric:
        assert rising == sorted(rising)
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert known() == rising[::-1]
    assert rising[0] != rising[-1]
    assert len(browser.find_elements("css selector", "[aria-sort]")) == 1
    missing = [text == NOTHING for text in column(browser, index)]
    assert missing == sorted(missing), "what has no number stays last"


@pytest.mark.browser
def test_filter_hides_rows_and_sections_and_tells(browser):
    box, count = browser.find_element("id", "filter"), browser.find_element("id", "count")
    assert count.text == "6 handles"
    box.send_keys("B/16 _fe")
    assert column(browser, 0) == ["mixer_b16_sam_fe", "mixer_b16_i1k_fe"]
    assert count.text == "2 of 6 handles shown"
    assert count.get_attribute("aria-live") == "polite"
    shown = [section for section in browser.find_elements("css selector", "section") if section.is_displayed()]
    assert len(shown) == 2
    box.send_keys(" no such thing")
    assert count.text == "0 of 6 handles shown"
    box.clear()
    box.send_keys(" ")
    assert len(column(browser, 0)) == 6


@pytest.mark.browser
def test_keyboard_reaches_the_controls_and_works_them(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(key):
        ActionChains(browser).send_keys(key).perform()
        return browser.switch_to.active_element

    skip = press(Keys.TAB)
    assert skip.text == "Skip to the table"
    assert skip.rect["x"] >= 0
    assert press(Keys.ENTER).get_attribute("id") == "main"
    assert press(Keys.TAB).get_attribute("id") == "filter"
    assert press(Keys.TAB).get_attribute("role") == "group"
    first = press(Keys.TAB)
    assert (first.tag_name, first.text) == ("button", "Handle")
    assert first.value_of_css_property("outline-style") == "solid"
    press(Keys.SPACE)
    assert browser.find_element("css selector", "#handles th").get_attribute("aria-sort") == "ascending"


@pytest.mark.browser
def test_dark_dress_changes_page_and_pictures(browser):
    def colours():
        return [
            browser.find_element("css selector", "body").value_of_css_property("background-color"),
            browser.find_element("css selector", "svg .stroke-limit").value_of_css_property("stroke"),
            browser.find_element("css selector", "svg .fill-ink").value_of_css_property("fill"),
        ]

    light = colours()
    dress(browser, "dark")
    dark = colours()
    assert not set(light) & set(dark)
    assert sum(map(int, re.findall(r"\d+", dark[0])[:3])) < 100


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_page_never_scrolls_sideways(browser, width):
    resize(browser, width)
    browser.execute_script("for (const piece of document.querySelectorAll('details')) piece.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = (
        "return [...document.querySelectorAll('figure, dl, ul, p, h2')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    )
    assert browser.execute_script(wide) == []


@pytest.mark.browser
def test_on_a_phone_the_figures_are_in_sight_and_a_table_that_scrolls_says_so(browser):
    def told():
        script = "return getComputedStyle(document.querySelector('#handles caption span'), '::after').content"
        return "Scroll sideways" in browser.execute_script(script)

    def ends():
        script = "return [...document.querySelectorAll('#handles thead th')].map(h => h.getBoundingClientRect().right)"
        return dict(zip(names, browser.execute_script(script), strict=True))

    names = [one.text.strip() for one in browser.find_elements("css selector", "#handles thead th")]
    assert (told(), max(ends().values()) <= 1280) == (False, True)
    resize(browser, 390)
    assert told()
    assert names[:4] == ["Handle", "Verdict", "Worst difference", "Of the limit"]
    assert ends()["Of the limit"] <= 390 < ends()["Parameters"]


@pytest.mark.browser
def test_page_is_whole_without_script(chromium, server):
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get(server)
        assert not chromium.find_element("id", "controls").is_displayed()
        assert len(chromium.find_elements("css selector", "#handles tbody tr")) == 6
        assert chromium.find_elements("css selector", "#handles button") == []
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
