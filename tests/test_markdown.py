"""Text shows as it is in Markdown, whatever it holds: judged by a real parser of Markdown."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from models.markdown import Markdown, block, bullets, code, escape, fill, link, section, table, warning

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

ODD = [
    "a|b",
    "<script>alert(1)</script>",
    "<!-- key: value -->",
    "x --> y",
    "&lt; &amp;",
    "*a* _b_ **c** ~~d~~",
    "[a](https://b.example)",
    "![a](https://b.example)",
    "`code` ``more``",
    "back\\slash \\| \\*",
    "# heading",
    "1. list",
    "1) list",
    "- list",
    "+ list",
    "= rule",
    "---",
    "> quote",
    "two\nlines\r\nand\ttabs",
    "no\N{NO-BREAK SPACE}break, line\N{LINE SEPARATOR}separator, nul\0",
    "$a$ and ${PATH}",
    "<https://a.example>",
    "a  b",
]


def shown(text):
    """What a reader sees of it: one line a piece of text."""
    return [
        "".join(child.content if child.type != "softbreak" else "\n" for child in token.children)
        for token in PARSER.parse(text)
        if token.type == "inline"
    ]


def kinds(text):
    found = {token.type for token in PARSER.parse(text)}
    return found | {child.type for token in PARSER.parse(text) for child in token.children or ()}


def on_one_line(text):
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def test_what_is_longer_than_anybody_writes_is_cut():
    hostile = "\x1b[2J\u202e" + "n" * 60_000
    for drawn in (escape(hostile), code(hostile), table(("a",), [(hostile,)]), bullets(hostile), block(hostile)):
        assert len(drawn) < 5000
        assert all(line.isprintable() for line in drawn.split("\n"))
        assert "characters)" in drawn


each_odd = pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))


@each_odd
def test_text_shows_as_it_is(text):
    assert shown(escape(text)) == [on_one_line(text)]
    assert kinds(escape(text)) <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}


@each_odd
def test_text_shows_as_it_is_in_a_table(text):
    drawn = table(("#number", "what"), [(text, code(text)), ("2", "b")])
    line = on_one_line(text)
    assert shown(drawn) == ["number", "what", line, line, "2", "b"]
    assert not kinds(drawn) & {"html_inline", "html_block", "link_open", "image"}


@each_odd
def test_text_shows_as_it_is_in_a_list_and_in_a_warning_and_in_a_link(text):
    line = on_one_line(text)
    assert shown(bullets(text, "b")) == [line, "b"]
    assert shown(section(text, warning(text))) == [line, line]
    assert shown(link(text, "https://a.example/b_c")) == [line]


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_any_text_shows_as_it_is(text):
    line = on_one_line(text)
    assert shown(escape(text)) == ([line] if line else [])
    assert "".join(shown(code(text))) == line
    assert shown(table(("a",), [(text,)])) == ["a", line]


def test_the_parser_sees_what_is_not_escaped():
    assert shown("a|b*c*") != ["a|b\\*c\\*"]
    assert "html_inline" in kinds("see <b>x</b>")
    assert shown(Markdown("| a |\n| :-- |\n| a|b |")) == ["a", "a"]


def test_markdown_is_not_escaped_twice():
    assert escape(escape("a|b")) == escape("a|b")
    assert fill("**{it}** and {code}", it="a*b", code=code("x_y")) == "**a\\*b** and `x_y`"


@pytest.mark.parametrize("url", ["http://a.example", "javascript:alert(1)", "gs://bucket", "/srv/x", ""])
def test_only_pages_of_the_web_are_linked(url):
    assert link("text", url) == "text"


def test_an_address_cannot_end_its_link():
    drawn = link("a", "https://a.example/b) <c> d")
    assert drawn == "[a](https://a.example/b%29%20%3Cc%3E%20d)"


@pytest.mark.parametrize("content", ["a", "```\nb\n```", "````"])
def test_a_block_holds_its_lines_as_they_are(content):
    (fence,) = [token for token in PARSER.parse(block(content, "text")) if token.type == "fence"]
    assert (fence.content, fence.info) == (f"{content}\n", "text")


def test_a_section_leaves_out_what_is_empty():
    assert section("A", "b", "", "c") == "## A\n\nb\n\nc"
    assert re.fullmatch(r"\| a \| b \|\n\| :-- \| --: \|\n\| 1 \| 2 \|", table(("a", "#b"), [("1", "2")]))
