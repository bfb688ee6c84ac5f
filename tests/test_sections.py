"""A card says what catalog, manifest and report say, and repeats no error of version 1's pages."""

import json
import re

import pytest
from markdown_it import MarkdownIt
from publishable import CHECKPOINT, HANDLE, WHERE, write_catalogued, write_model
from reporting import checks, export_of

from export.cards.errata import ERRATA
from export.cards.facts import CardFacts
from export.cards.hugging_face import Card
from export.cards.kaggle import ModelMetadata
from export.cards.tfhub import DATASETS, TASKS, Page
from export.cards.write import write_model_cards
from models.catalog import ALL_HANDLES, HANDLES
from models.citations import ACCURACIES, CITATIONS
from models.flavours import FLAVOURS
from models.records.layout import ModelPaths
from models.records.manifest import Manifest
from models.signatures import MODEL_JSON, WARMUP, Signature

each_handle = pytest.mark.parametrize("name", HANDLES)
each_flavour = pytest.mark.parametrize("flavour", FLAVOURS)

FIGURES = {
    "max_relative": 1.23e-6,
    "saved_model_oracle_relative": 4.56e-6,
    "jax_oracle_relative": 7.89e-6,
    "gradient_relative": 2.34e-6,
    "step_relative": 3.45e-6,
}


def measured(**figures):
    return {"checks": checks(**(FIGURES | figures))}


def subject_of(folder, name, **fields):
    fields["report"] = measured() | fields.get("report", {})
    return CardFacts.read(write_catalogued(folder, name, **fields), WHERE)


def page_of(folder, name, **fields):
    return Page.of_module(subject_of(folder, name, **fields)).text


def part(page, heading):
    """One section of a page."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {heading}"
    return found[1]


# --- every page ---


@each_flavour
@each_handle
def test_every_page_is_by_the_rules_and_tagged_as_the_catalog_says(name, flavour, tmp_path):
    page = page_of(tmp_path, name, flavour=flavour)
    assert Page.read(page).problems == []
    read, handle = Page.read(page), HANDLES[name]
    suffix = "-graph" if flavour == "graph" else ""
    assert read.name == f"somebody/{name}{suffix}/2"
    assert read.metadata == {
        "asset-path": [f"https://models.example/mixers/{name}{suffix}/2.tar.gz"],
        "task": [TASKS[handle.head]],
        "fine-tunable": ["true"],
        "format": ["saved_model_2"],
        "network-architecture": ["mixer"],
        "dataset": [DATASETS[handle.checkpoint.training.data]],
        "license": ["apache-2.0"],
    }
    assert f"{handle.parameters:,} parameters" in part(page, "Overview")
    range_ = f"TensorFlow {FLAVOURS[flavour].lowest} to {FLAVOURS[flavour].highest}"
    assert range_ in part(page, "Where it runs")
    assert "What changed since version 1" in page


@each_handle
def test_every_page_is_drawn_as_it_is_meant(name, tmp_path):
    """A real parser of Markdown sees no HTML but the metadata, and every row of a table as long as its heading."""
    handle = HANDLES[name]
    facts = {one.name: one.facts(handle) for one in Signature.all_of(handle)}
    page = page_of(tmp_path, name, more={MODEL_JSON: json.dumps({"signatures": facts}).encode()})
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    drawn = [child for token in tokens for child in token.children or ()]
    html = [token.content for token in (*tokens, *drawn) if token.type.startswith("html")]
    assert all(re.fullmatch(r"(<!-- [\w-]+: [^>]+ -->\n?)+", content) for content in html), html
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") >= 4
    assert kinds.count("heading_open") == page.count("\n## ") + 1
    rows = re.findall(r"^\|.*\|$", page, flags=re.MULTILINE)
    assert len(rows) == kinds.count("tr_open") + kinds.count("table_open")  # each table has a line that aligns it


def test_the_same_records_give_the_same_bytes(tmp_path):
    assert page_of(tmp_path / "a", "mixer_b16_i1k_fe") == page_of(tmp_path / "b", "mixer_b16_i1k_fe")


def test_no_path_of_this_machine_gets_onto_a_page(tmp_path):
    local = {"url": str(tmp_path / "secret" / "Mixer-B_16.npz"), "origin": "unknown"}
    page = page_of(tmp_path, "mixer_b16_i1k_fe", checkpoint=local)
    assert "secret" not in page
    assert str(tmp_path) not in page


# --- figures ---


def test_figures_are_the_reports(tmp_path):
    subject = subject_of(tmp_path, "mixer_b16_i1k_classification")
    page = Page.of_module(subject).text
    parity, tuning = part(page, "Is it the same model?"), part(page, "Fine-tuning")
    first = "outputs, 2 images, and those of a probing head, from JAX's, the largest difference"
    assert f"| {first} | 1.2e-06 | 5e-05 |" in parity
    assert "| outputs from float64's, the largest | 4.6e-06 |" in parity
    assert "| JAX's own outputs from float64's, the largest | 7.9e-06 | 5e-05 |" in parity
    assert "| images with the same first class, and with the same first five | 100% | 100% |" in parity
    assert "| variables that differ, 150 compared with the checkpoint's arrays | 0 | 0 |" in parity
    assert f"`2.report.json` (sha256 `{subject.report_sha256}`)" in parity
    assert (
        "gradients of every variable and of the images, the largest difference from JAX's | 2.3e-06 | 0.0001" in tuning
    )
    assert "outputs after one step of SGD, the largest difference from JAX's | 3.5e-06 | 0.0001 |" in tuning
    assert subject.manifest_sha256 in part(page, "Provenance")


def test_other_figures_give_another_page(tmp_path):
    before = page_of(tmp_path, "mixer_b16_i1k_classification")
    after = page_of(tmp_path, "mixer_b16_i1k_classification", report=measured(max_relative=3.21e-5))
    assert "| 3.2e-05 | 5e-05 |" in after
    assert "3.2e-05" not in before


@pytest.mark.parametrize("tunable", [True, False])
@each_flavour
def test_fine_tunable_is_the_reports_result_and_nothing_else(tunable, flavour, tmp_path):
    for name in ("mixer_b16_i1k_fe", "mixer_b16_i1k_classification"):
        page = page_of(tmp_path, name, flavour=flavour, report={"fine_tunable": tunable})
        assert Page.read(page).metadata["fine-tunable"] == ["true" if tunable else "false"]
        assert ("Yes: every variable" in page) is tunable
        assert ("trainable=True" in page) is tunable


def test_a_head_of_zeros_is_named(tmp_path):
    parity = part(
        page_of(tmp_path, "mixer_b16_i1k_classification", report=measured(power=0.0) | {"zero_head": True}),
        "Is it the same model?",
    )
    assert "| outputs of a probing head, from JAX's, the largest difference | 1.0e-06 | 5e-05 |" in parity
    assert "the same first class" not in parity
    assert "head/kernel is all zeros" in parity
    assert "the figures are those of a probing head" in parity


def test_what_was_not_run_is_not_called_run(tmp_path):
    runs = part(page_of(tmp_path, "mixer_b16_i1k_fe"), "Where it runs")
    assert "- Exported for: cpu, cuda, rocm, tpu." in runs
    assert "- Run for the report on: cpu." in runs
    assert "- Not checked by this project: cuda, rocm, tpu: exported, not run." in runs


# --- input, output, classes ---


def test_a_classifier_gives_logits_and_names_its_classes(tmp_path):
    odd = b"tench|Tinca\n<b>goldfish</b>\n*shark* `x`\nd\ne\nf\n-->\n"
    page = page_of(tmp_path, "mixer_b16_i1k_classification", more={"assets/labels.txt": odd})
    assert "Output: 1,000 raw logits, one a class, not probabilities." in part(page, "Input and output")
    classes = part(page, "Classes")
    assert "The names of the 7 classes" in classes
    assert "`assets/labels.txt`" in classes
    assert "| 0 | tench&#124;Tinca |" in classes
    assert "| 1 | &lt;b&gt;goldfish&lt;/b&gt; |" in classes
    assert "| 2 | \\*shark\\* \\`x\\` |" in classes
    assert "| 6 | \\--&gt; |" in classes
    assert "| 3 |" not in classes
    assert Page.read(page).problems == []


def test_a_classifier_without_a_list_says_so(tmp_path):
    page = page_of(tmp_path, "mixer_b16_i1k_classification", more={"assets/labels.txt": None})
    assert "No class list comes with this model." in part(page, "Classes")
    assert "model.labels" not in page


def test_a_feature_extractor_gives_features_and_has_no_classes(tmp_path):
    page = page_of(tmp_path, "mixer_l16_i21k_fe", more={"assets/labels.txt": None})
    assert "Output: the mean of the tokens after the last norm, 1,024 features." in page
    assert "logits" not in part(page, "Input and output")
    assert "## Classes" not in page


def test_only_signatures_that_the_model_has_are_told(tmp_path):
    warned, warms = "A broken image fails its whole batch.", "TensorFlow Serving warms up"
    page = page_of(tmp_path, "mixer_b16_i1k_fe")
    assert "`serving_default`" in page
    assert not [said for said in ("serving_bytes", "serving_uint8", "token_features", warned, warms) if said in page]
    facts = {one.name: one.facts(HANDLES["mixer_b16_i1k_fe"]) for one in Signature.all_of(HANDLES["mixer_b16_i1k_fe"])}
    more = {MODEL_JSON: json.dumps({"signatures": facts}).encode(), WARMUP: b"requests"}
    page = page_of(tmp_path, "mixer_b16_i1k_fe", more=more)
    takes = part(page, "Input and output")
    assert "| `serving_uint8` | `images: uint8 [batch, 224, 224, 3]` |" in takes
    assert "| `serving_bytes` | `image_bytes: string [batch]` |" in takes
    assert "`output_0: float32 [batch, 196, 768]`" in takes
    assert warned in takes
    assert f"{warms} with the requests in `{WARMUP}`" in takes
    new = "New signatures beside `serving_default`: `serving_uint8`, `serving_bytes`, `token_features`."
    assert new in part(page, "What changed since version 1")


# --- origin ---


def test_seeded_weights_are_told_loudly_and_nothing_is_claimed_of_them(tmp_path):
    page = page_of(tmp_path, "mixer_b16_i1k_classification", checkpoint={"origin": "seeded"})
    read = Page.read(page)
    assert read.description.startswith("SEEDED WEIGHTS, NEVER TRAINED.")
    assert "dataset" not in read.metadata
    assert part(page, "Overview").strip().startswith("**SEEDED WEIGHTS, NEVER TRAINED")
    assert "Trained on" not in page
    assert "76.44" not in page
    assert "No figure of others is about these weights." in part(page, "Accuracy")


@pytest.mark.parametrize(("origin", "said"), [("unknown", "UNKNOWN WEIGHTS"), ("own", "Somebody's own weights")])
def test_other_origins_are_told_too(origin, said, tmp_path):
    page = page_of(tmp_path, "mixer_b16_i1k_fe", checkpoint={"origin": origin})
    assert f"\n**{said}" in page
    assert "\n\n**" not in page_of(tmp_path, "mixer_b16_i1k_fe")


def test_ones_own_has_nothing_to_do_with_version_1_and_no_licence_here(tmp_path):
    own = write_model(tmp_path, handle="my_mixer", checkpoint={"origin": "own"})
    page = Page.of_module(CardFacts.read(own, WHERE)).text
    assert Page.read(page).problems == []
    assert "license" not in Page.read(page).metadata
    assert "version 1" not in page
    assert "none is known here" in part(page, "Licence and citation")


def test_a_model_of_the_tests_was_not_trained_whatever_its_origin(tmp_path):
    page = Page.of_module(CardFacts.read(write_model(tmp_path), WHERE)).text
    assert (CHECKPOINT.testing, HANDLE in page) == (True, True)
    assert "dataset" not in Page.read(page).metadata


# --- exports ---


def put_export(folder, name, **changes):
    """Write the graph model of a handle, and an export of it."""
    graph = write_catalogued(folder, name, flavour="graph")
    manifest, report = export_of(Manifest.read(graph.manifest))
    paths = ModelPaths.of(folder, manifest.handle, 2)
    paths.folder.mkdir(exist_ok=True)
    paths.manifest.write_bytes(manifest.to_bytes())
    paths.report.write_bytes(report.model_copy(update=changes).to_bytes())
    return paths


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_exports_of_the_same_checkpoint_are_listed_with_the_figures_of_both_settings(flavour, tmp_path):
    assert "Exported files" not in page_of(tmp_path, "mixer_b16_i1k_fe", flavour=flavour)
    put_export(tmp_path, "mixer_b16_i1k_fe")
    page = page_of(tmp_path, "mixer_b16_i1k_fe", flavour=flavour)
    assert Page.read(page).problems == []
    assert (
        "| `model.xml` (OpenVINO IR, float32) | 24.0 MB | 7.9e-07 with `INFERENCE_PRECISION_HINT=f32` | 5e-05 "
        "| 3.2e-02 (bf16 on Some Processor) | openvino 2026.1 | 2023.0.0 |"
    ) in part(page, "Exported files")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ({"manifest_sha256": "0" * 64}, "its report is of another manifest"),
        ({"verdict": "failed"}, "its report contradicts itself"),
        ({"handle": "other"}, "its records are of another model"),
        ("report", "is not a readable export report"),
        ("graph", "it was written from an earlier mixer_b16_i1k_fe-graph"),
        ("checkpoint", "it is of another checkpoint"),
    ],
    ids=str,
)
def test_an_export_that_is_not_proven_to_be_of_this_model_is_left_out_and_that_is_said(spoil, why, tmp_path):
    paths = put_export(tmp_path, "mixer_b16_i1k_fe", **(spoil if isinstance(spoil, dict) else {}))
    if spoil == "report":
        paths.report.write_bytes(b"{}")
    elif spoil == "graph":
        write_catalogued(tmp_path, "mixer_b16_i1k_fe", flavour="graph", pipeline="0.2.0")
    checkpoint = {"sha256": "7" * 64} if spoil == "checkpoint" else {}
    model = write_catalogued(tmp_path, "mixer_b16_i1k_fe", checkpoint=checkpoint)
    found = CardFacts.read(model, WHERE)
    assert "Exported files" not in Page.of_module(found).text
    (note,) = found.left_out
    assert note.startswith("mixer_b16_i1k_fe-openvino is left out of the card: ")
    assert why in note
    assert note.endswith("`mixer-jax2tf export mixer_b16_i1k_fe --to openvino --overwrite` writes it again")
    assert write_model_cards(model, WHERE).notes == found.left_out


# --- accuracy ---


@each_handle
def test_accuracy_is_cited_with_its_source_or_not_given(name, tmp_path):
    said = part(page_of(tmp_path, name), "Accuracy")
    assert said.strip().startswith("Not measured by this project.")
    cited = ACCURACIES.get(HANDLES[name].checkpoint.name, ())
    for one in cited:
        assert f"| {one.top1:.2f} % | [" in said
        assert f"]({one.url})" in said
    assert len(re.findall(r"\d\d\.\d\d %", said)) == len(cited)
    assert ("No figure of others with a source is known" in said) is not cited


def test_every_cited_figure_has_a_checkpoint_and_a_page(tmp_path):
    checkpoints = {handle.checkpoint.name for handle in HANDLES.values()}
    assert ACCURACIES.keys() < checkpoints
    assert all(one.url.startswith("https://") for cited in ACCURACIES.values() for one in cited)
    papers = {paper for handle in ALL_HANDLES.values() for paper in handle.checkpoint.training.papers}
    assert papers == CITATIONS.keys()


# --- version 1 ---


@each_handle
def test_no_error_of_version_1_is_repeated(name, tmp_path):
    page, handle = page_of(tmp_path, name), HANDLES[name]
    outside = page.replace(part(page, "What changed since version 1"), "")
    assert "fine-tuned on" not in outside
    assert "pre-trained" not in outside
    assert "tensorboard.dev" not in page
    assert "tfhub.dev/" not in outside.replace("github.com/tensorflow/tfhub.dev/", "")  # it takes no new versions
    if handle.checkpoint.training.name != "i21k":
        assert "ImageNet-21k" not in outside
    for other in ACCURACIES.keys() - {handle.checkpoint.name}:
        assert not [one for one in ACCURACIES[other] if f"{one.top1:.2f} %" in page]


@each_handle
def test_every_error_of_version_1_is_corrected_on_the_pages_it_was_on(name, tmp_path):
    said = part(page_of(tmp_path, name), "What changed since version 1")
    handle = HANDLES[name]
    for one in ERRATA:
        assert (f"It said: {one.was}. Right is: {one.now}" in said) is one.is_about(handle)
    assert any(one.is_about(handle) for one in ERRATA)
    lineage = (
        "It said: pre-trained on ImageNet-21k and fine-tuned on ImageNet-1k. Right is: trained on ImageNet-1k alone"
    )
    assert (lineage in said) is (handle.checkpoint.training.name == "i1k")
    assert ("It said: fine-tuned on ImageNet-1k. Right is" in said) is (name == "mixer_b32_sam_fe")


def test_only_the_first_flavour_was_in_version_1(tmp_path):
    for flavour in FLAVOURS:
        said = part(page_of(tmp_path, "mixer_b16_i1k_fe", flavour=flavour), "What changed since version 1")
        assert ("had no module of this name" in said) is (flavour != "native")


@pytest.mark.parametrize("differences", [(), ("output_0 is float32, was float64",)])
def test_the_comparison_with_version_1_is_told_where_there_was_one(differences, tmp_path):
    verdict = "different" if differences else "same"
    reference = {
        "name": "1.tar.gz", "kind": "archive", "sha256": "9" * 64, "outputs": None, "signatures": (),
        "variables": None, "differences": differences, "verdict": verdict,
    }  # fmt: skip
    page = page_of(tmp_path, "mixer_b16_i1k_fe", report={"reference": reference})
    said = part(page, "What changed since version 1")
    assert f"Against `1.tar.gz` (sha256 `{'9' * 64}`)" in said
    assert all(one.replace("_", "\\_") in said for one in differences)
    assert "was not compared" not in said
    assert "was not compared" in page_of(tmp_path, "mixer_b16_i1k_fe")


# --- the collection and the publisher ---


def test_the_page_of_the_collection_lists_every_model_with_its_figures(tmp_path):
    members = [subject_of(tmp_path, name, flavour=flavour) for name in HANDLES for flavour in FLAVOURS]
    page = Page.of_collection(WHERE, members).text
    assert Page.read(page).problems == []
    read = Page.read(page)
    assert read.name == "somebody/mlp-mixer/1"
    assert read.metadata["task"] == ["image-classification", "image-feature-vector"]
    assert read.metadata["dataset"] == ["imagenet-ilsvrc-2012-cls", "imagenet-21k"]
    rows = [line for line in part(page, "Models").splitlines() if line.startswith("| [mixer")]
    assert len(rows) == 24
    for member in members:  # the validator of TensorFlow Hub wants these, beside the links that work
        assert f"(https://tfhub.dev/somebody/{member.manifest.handle}/2)" in page
    others = (Card.of_collection(members).text, ModelMetadata.of(WHERE, members).text)
    assert not any("https://tfhub.dev" in text for text in others)
    assert Page.read(page.replace("https://tfhub.dev/somebody/", "https://models.example/")).problems == [
        "a page of a Collection needs a link https://tfhub.dev/PUBLISHER/NAME to a model of its publisher"
    ]
    assert all("| yes | 1.2e-06 | 5e-05 |" in row for row in rows)
    assert "(https://models.example/mixers/mixer_b32_sam_fe-graph/2.md)" in page
    assert page.count("| `mixer_b16_i1k_classification` | 76.44 % |") == 1
    for one in ERRATA:
        assert f"{one.was}. Right is: {one.now}" in part(page, "What changed since version 1")


def test_the_page_of_the_collection_counts_what_is_no_original(tmp_path):
    members = [
        subject_of(tmp_path, "mixer_b16_i1k_fe"),
        subject_of(tmp_path, "mixer_b16_sam_fe", checkpoint={"origin": "seeded"}),
    ]
    first = part(Page.of_collection(WHERE, members).text, "Overview")
    assert first.startswith("\n**1 of 2 models: SEEDED WEIGHTS, NEVER TRAINED")
    page = Page.of_collection(WHERE, members[1:]).text
    assert Page.read(page).problems == []
    assert "dataset" not in Page.read(page).metadata


def test_the_page_of_the_publisher_is_by_the_rules():
    page = Page.of_publisher(WHERE).text
    assert Page.read(page).problems == []
    assert Page.read(page).name == "somebody"
