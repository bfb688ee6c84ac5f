"""The page: what it says, that it is well formed, and (marker `browser`) how it behaves in Chromium."""

import functools
import hashlib
import http.server
import math
import re
import shutil
import threading
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from reporting import ON, check, checks, consumed, verdict_of

from models.catalog import HANDLES, TESTING_HANDLES
from models.records.layout import ModelPaths
from models.records.manifest import CheckpointRecord, FileDigest, Manifest
from models.records.report import DepthStep, PublishedComparison, PublishedVariables, Report
from models.records.tolerances import TOLERANCES
from validation.views.cells import NOTHING
from validation.views.page import TEMPLATE, write_page

VERSION = 2
HANDLE = HANDLES["mixer_b32_sam_classification"]
IMAGES = ("noise", "blank", "chelsea.png", "near tie")
HOSTILE = '"><script>alert(1)</script><img src="https://evil.example/x" onerror=alert(2)>&amp;'
LIMIT = TOLERANCES["max_relative"].limit


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
        arrays = {"saved_model": found, "jax": jax, "oracle": truth, "scale": truth.std(axis=1)}
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

    VOID = frozenset({"meta", "link", "input", "br", "img"})

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

    def section(self, handle):
        return self.source.split(f'data-handle="{handle.name}"')[1].split("</section>")[0]


def show(out, handles=None):
    path = write_page(out, VERSION, list(HANDLES.values()) if handles is None else handles)
    assert path == out / "index.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A directory of every kind: passed, failed, gate only, not checked, void, not made."""
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
    assert set(HANDLES) <= ids
    assert {f"#{name}" for name in HANDLES} <= links
    assert "12 handles: 3 passed, 1 failed, 1 void, 1 not checked, 6 not made." in page.text


def test_verdicts_stand_in_words(page):
    for standing in ("passed", "failed", "void", "not checked", "not made"):
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
    assert "<svg" not in section
    assert "4e-06" in section


def test_comparison_with_an_earlier_version_is_shown_and_does_not_touch_the_verdict(tmp_path):
    put_full(tmp_path, HANDLE, reference=reference_of())
    page = show(tmp_path, [HANDLE])
    assert "1 handle: 1 passed." in page.text
    assert "Earlier version. tiny_1.tar.gz is different. A new version may differ on purpose" in page.text
    assert "sha256 (archive): " + "9" * 64 in page.text
    assert f"outputs differ by 2e-06 of their scale, {ON} signatures the same variables 149 of 150" in page.text
    assert "<li>what differs</li>" in page.source


def test_without_an_earlier_version_nothing_is_said_of_one(page):
    assert "Earlier version" not in page.text


def test_same_directory_as_earlier_version_is_told_by_its_file(tmp_path):
    put_full(tmp_path, HANDLE, reference=reference_of(kind="directory", differences=(), verdict="same"))
    page = show(tmp_path, [HANDLE])
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
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in page.all("svg"))
    assert len(page.all("svg")) == 3 * 4 + 1
    assert len(page.all("figcaption")) == len(page.all("svg")) == len(page.all("figure"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in {"row", "col"} for attributes in page.all("th"))
    assert {attributes["for"] for attributes in page.all("label")} == {
        attributes["id"] for attributes in page.all("input")
    }


def test_page_loads_nothing(page):
    loading = {"img", "link", "iframe", "object", "embed", "audio", "video", "source", "image", "base", "form"}
    assert not loading & {name for name, _ in page.elements}
    for name, attributes in page.elements:
        assert "src" not in attributes
        assert "style" not in attributes, "the policy forbids inline styles"
        assert not [key for key in attributes if key.startswith("on")]
        assert name == "a" or not attributes.get("href", "#").startswith("http")
    assert "@import" not in page.source
    assert len(page.all("style")) == len(page.all("script")) == 1


def test_policy_names_style_and_script_by_digest(page):
    policy = next(attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall(r"(?:style|script)-src 'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2


def test_same_records_give_the_same_bytes(mixed):
    handles = list(HANDLES.values())[:2]
    first = write_page(mixed, VERSION, handles).read_bytes()
    assert write_page(mixed, VERSION, handles).read_bytes() == first
    assert [path.name for path in mixed.iterdir() if path.is_file()] == ["index.html"]
    assert not re.search(rb"20\d\d-\d\d-\d\d", first)


def test_hostile_text_stays_text(tmp_path):
    handle = replace(HANDLE, name='h"<i>&x$x$')
    manifest = manifest_of(handle, libraries={HOSTILE: HOSTILE}, files={HOSTILE: FileDigest(sha256="0", size=1)})
    more = (consumed(HOSTILE, status="failed", detail=HOSTILE, worst=None),)
    reference = reference_of(name=HOSTILE, differences=(HOSTILE,) * 2)
    report = report_of(manifest, problems=(HOSTILE, "${title} $policy"), more=more, reference=reference)
    put(tmp_path, handle, manifest, report, outputs(handle))
    page = show(tmp_path, [handle])
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not page.all("i")
    assert page.text.count(HOSTILE) >= 9
    assert "${title} $policy" in page.text
    assert 'h"<i>&x$x$' in page.text


@pytest.mark.parametrize("handles", [[], [HANDLE], list(TESTING_HANDLES.values())], ids=["none", "one", "tiny"])
def test_nothing_there_is_not_made(tmp_path, handles):
    page = show(tmp_path / "absent", handles)
    assert page.text.count(f"{NOTHING} not made") == 2 * len(handles)
    assert page.open == []


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_nan_and_infinity_survive(tmp_path, bad):
    names, found, jax = outputs(HANDLE)
    found[0, :7] = bad
    manifest = manifest_of(HANDLE)
    more = (check("max_relative", math.inf), check("max_relative", 1e-6, on="__call__ on blank (batch 1)"))
    depth = (DepthStep(name="stem", jax=0.0, saved_model=bad), DepthStep(name="features", jax=1e-6, saved_model=bad))
    report = report_of(manifest, worst=bad, more=more, depth=depth, problems=("bad",))
    put(tmp_path, HANDLE, manifest, report, (names, found, jax))
    page = show(tmp_path, [HANDLE])
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
    assert len(show(tmp_path, [HANDLE]).all("svg")) == 4


def test_one_output_far_off_is_drawn_and_counted(tmp_path):
    names, found, jax = outputs(HANDLE)
    found[1, 2] += 30 * LIMIT
    manifest = manifest_of(HANDLE)
    report = report_of(manifest, worst=31 * LIMIT, problems=("far",))
    put(tmp_path, HANDLE, manifest, report, (names, found, jax))
    page = show(tmp_path, [HANDLE])
    assert "1 of 4,000 are;" in page.text
    marks = re.findall(r'<path[^>]*class="stroke-limit"[^>]*stroke-width="6"', page.source)
    assert len(marks) == 2, "in both panels, large and red"
    assert any("1 are over the limit" in attributes["aria-label"] for attributes in page.all("svg"))


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
    page = show(tmp_path, [HANDLE])
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
    page = show(tmp_path, [HANDLE])
    assert "no plots of the outputs" in page.text
    assert len(page.all("svg")) == 2


def test_evidence_must_be_of_the_models_own_head(tmp_path):
    """Not only as near as a probing head's outputs were."""
    put_full(tmp_path, HANDLE)
    manifest, off = manifest_of(HANDLE), {"head": 5e-5, "stem": 5e-5, None: 0.0}
    some = [
        one.model_copy(update={"measured": off[one.probe]}) if one.name == "max_relative" else one for one in checks()
    ]
    put(tmp_path, HANDLE, manifest, report_of(manifest, checks=tuple(some)))
    assert "no plots of the outputs" in show(tmp_path, [HANDLE]).text


def test_a_report_without_the_limit_of_outputs_has_no_pictures_of_them(tmp_path):
    put_full(tmp_path, HANDLE)
    manifest = manifest_of(HANDLE)
    limits = {name: one for name, one in TOLERANCES.items() if name != "max_relative"}
    put(tmp_path, HANDLE, manifest, report_of(manifest, tolerances=limits))
    page = show(tmp_path, [HANDLE])
    assert "! void" in page.text
    assert len(page.all("svg")) == 1


def test_a_report_that_cannot_be_read_is_to_be_written_again_by_one_command(tmp_path):
    put_full(tmp_path, HANDLE)
    (tmp_path / HANDLE.name / f"{VERSION}.report.json").write_bytes(b"{}")
    text = show(tmp_path, [HANDLE]).text
    assert "mixer-jax2tf validate" in text
    assert "convert-all" not in text


def test_records_of_another_handle_are_void(tmp_path):
    other = manifest_of(HANDLES["mixer_b32_sam_fe"])
    put(tmp_path, HANDLE, other, report_of(other))
    page = show(tmp_path, [HANDLE])
    assert "the manifest is of mixer_b32_sam_fe, version 2, expected mixer_b32_sam_classification" in page.text


def test_page_stays_small_with_the_largest_head(tmp_path):
    handle = HANDLES["mixer_l16_i21k_classification"]
    put_full(tmp_path, handle)
    write_page(tmp_path, VERSION, [handle])
    assert (tmp_path / "index.html").stat().st_size < 4_000_000 / 12


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
    write_page(mixed, VERSION, list(HANDLES.values()))
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
    drawn = "return [...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 100)"
    assert browser.execute_script(drawn)
    assert browser.execute_script("return document.querySelectorAll('svg').length") == 13


@pytest.mark.browser
@pytest.mark.parametrize(("index", "numeric"), [(0, False), (8, True), (10, True)])
def test_column_sorts_both_ways(browser, index, numeric):
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
    assert count.text == "12 handles"
    box.send_keys("L/16 _fe")
    assert column(browser, 0) == ["mixer_l16_i1k_fe", "mixer_l16_i21k_fe"]
    assert count.text == "2 of 12 handles shown"
    assert count.get_attribute("aria-live") == "polite"
    shown = [section for section in browser.find_elements("css selector", "section") if section.is_displayed()]
    assert len(shown) == 2
    box.send_keys(" no such thing")
    assert count.text == "0 of 12 handles shown"
    box.clear()
    box.send_keys(" ")
    assert len(column(browser, 0)) == 12


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
def test_page_is_whole_without_script(chromium, server):
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get(server)
        assert not chromium.find_element("id", "controls").is_displayed()
        assert len(chromium.find_elements("css selector", "#handles tbody tr")) == 12
        assert chromium.find_elements("css selector", "#handles button") == []
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
