"""The rules of TensorFlow Hub's pages: each is broken once, and noticed."""

import pytest

from export.cards.tfhub import KINDS, Page

MODULE = """\
# Module google/text-embedding/1

A description
of two lines.

<!-- asset-path: https://a.example/m/1.tar.gz -->
<!-- task: image-classification -->
<!-- fine-tunable: true -->
<!-- format: saved_model_2 -->
<!-- network-architecture: mixer -->
<!-- dataset: imagenet-21k -->
<!-- license: apache-2.0 -->

## Overview

Text.
"""
COLLECTION = """\
# Collection google/texts/1

A description.

<!-- task: image-classification -->
<!-- task: image-feature-vector -->

## Overview

[Text](https://tfhub.dev/google/text-embedding/1).
"""
PUBLISHER = """\
# Publisher google

A description.

[![Icon URL]](https://a.example/icon.png)

## Details

Text.
"""


@pytest.mark.parametrize("text", [MODULE, COLLECTION, PUBLISHER], ids=list(KINDS))
def test_a_page_by_the_rules_has_no_problems(text):
    assert Page.read(text).problems == []


def test_a_page_is_read():
    page = Page.read(MODULE)
    assert (page.kind, page.name, page.description) == (
        "Module",
        "google/text-embedding/1",
        "A description of two lines.",
    )
    assert page.metadata["asset-path"] == ["https://a.example/m/1.tar.gz"]
    assert Page.read(COLLECTION).metadata == {"task": ["image-classification", "image-feature-vector"]}
    assert (Page.read(PUBLISHER).kind, Page.read(PUBLISHER).metadata) == ("Publisher", {})


ASSET = "<!-- asset-path: https://a.example/m/1.tar.gz -->"


@pytest.mark.parametrize(
    ("page", "old", "new", "said"),
    [
        (MODULE, "# Module", "# Modul", "line 1 is '# Modul google/text-embedding/1', expected '# Module"),
        (MODULE, "# Module", "## Module", "line 1 is"),
        (MODULE, "google/text", "Google/text", "line 1 is"),
        (MODULE, "embedding/1\n", "embedding\n", "line 1 is"),
        (MODULE, "embedding/1\n", "embedding/one\n", "line 1 is"),
        (MODULE, "embedding/1\n", "embedding/1 \n", "line 1 is"),
        (MODULE, "/1\n\nA", "/1\nA", "after line 1 there must be one empty line"),
        (MODULE, "/1\n\nA", "/1\n\n\nA", "after line 1 there must be one empty line"),
        (MODULE, "A description\nof two lines.\n", "", "there is no description"),
        (MODULE, ASSET, "", "a page of a Module needs asset-path"),
        (MODULE, "<!-- task: image-classification -->\n<!-- fine-tunable: true -->\n", "", "needs fine-tunable, task"),
        (MODULE, "<!-- format: saved_model_2 -->\n", "", "a page of a Module needs format"),
        (MODULE, "<!-- license", "<!-- licence", "licence: not allowed on a page of a Module, which may have: asset"),
        (MODULE, ASSET, f"{ASSET}\n{ASSET}", "asset-path occurs 2 times, expected once"),
        (MODULE, "<!-- fine-tunable: true -->", "<!-- fine-tunable: true -->\n<!-- fine-tunable: false -->", "2 times"),
        (MODULE, "<!-- dataset", "<!-- dataset: imagenet-21k -->\n<!-- dataset", "dataset has one value twice"),
        (MODULE, "true", "yes", "fine-tunable is yes, expected one of: false, true"),
        (MODULE, "saved_model_2", "hub", "format is hub, expected one of: saved_model_2"),
        (MODULE, "image-classification", "classification", "task is classification, expected one of: image-class"),
        (MODULE, "imagenet-21k", "imagenet", "dataset is imagenet, expected one of"),
        (MODULE, "mixer", "mlp", "network-architecture is mlp, expected one of: mixer"),
        (MODULE, "apache-2.0", "Apache-2.0", "license is Apache-2.0, expected one of: apache-2.0"),
        (MODULE, "1.tar.gz", "1.zip", "expected https://... that ends in .tar.gz"),
        (MODULE, "https://a", "http://a", "asset-path is http://a.example/m/1.tar.gz, expected https://"),
        (MODULE, "a.example/m/", "github.com/a/b/releases/download/v1/", "by GitHub's robots.txt"),
        (MODULE, "<!-- format: saved_model_2 -->", "format: saved_model_2", "line 9 is 'format: saved_model_2': up to"),
        (MODULE, "<!-- format: saved_model_2 -->", "<!-- format: saved_model_2", "line 9 is"),
        (MODULE, "## Overview\n\nText.\n", "", "there is no heading"),
        (MODULE, "Text.", "", "there is nothing below the first heading"),
        (COLLECTION, "<!-- task: image-classification -->\n<!-- task: image-feature-vector -->\n", "", "needs task"),
        (COLLECTION, "dev/google", "dev/other", "a page of a Collection needs a link https://tfhub.dev/PUBLISHER/NAME"),
        (COLLECTION, "<!-- task", f"{ASSET}\n<!-- task", "asset-path: not allowed on a page of a Collection"),
        (COLLECTION, "texts/1", "texts", "line 1 is"),
        (
            PUBLISHER,
            "[![Icon",
            "<!-- license: mit -->\n[![Icon",
            "not allowed on a page of a Publisher, which may have",
        ),
        (PUBLISHER, "google", "google/1", "line 1 is"),
        (PUBLISHER, "(https://a", "(file:///a", "line 5 is '[![Icon URL]](file:///a"),
        (
            MODULE,
            "A description",
            "[![Icon URL]](https://a.example/icon.png)\n\n[![Icon URL]](https://a.example)",
            "line",
        ),
    ],
)
def test_a_broken_rule_is_told(page, old, new, said):
    broken = page.replace(old, new, 1) if new != f"{ASSET}\n<!-- task" else page.replace("<!-- task", new, 1)
    assert broken != page
    assert any(said in problem for problem in Page.read(broken).problems), Page.read(broken).problems


@pytest.mark.parametrize("text", ["", "\n", "# Module", "no page", "# Module a/b/1", "# Module a/b/1\n\n"])
def test_what_is_no_page_at_all_is_told(text):
    assert Page.read(text).problems


def test_all_that_is_wrong_is_told_at_once():
    assert (
        len(Page.read(MODULE.replace("task:", "tasks:").replace("mixer", "mlp").replace("1.tar.gz", "1")).problems) == 4
    )
