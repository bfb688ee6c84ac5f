"""Values show as they are in a card, whatever they hold: judged by a real parser of Markdown."""

from functools import cache
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from export.cards import markdown
from export.cards.markdown import ENVIRONMENT, render

TEMPLATES = Path(markdown.__file__).parent / "templates"
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


compiled = cache(lambda template: ENVIRONMENT.from_string(template))


def drawn(template, **values):
    """A template, filled as those of the cards are."""
    return compiled(template).render(values)


def escaped(text):
    return drawn("{{ text }}", text=text)


def test_what_is_longer_than_anybody_writes_is_cut():
    hostile = "\x1b[2J\u202e" + "n" * 60_000
    for value in ("text", "text | code", "text | block", "text | link('https://a.example')"):
        text = drawn(f"{{{{ {value} }}}}", text=hostile)
        assert len(text) < 5000
        assert all(line.isprintable() for line in text.split("\n"))
        assert "characters)" in text


each_odd = pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))


@each_odd
def test_text_shows_as_it_is(text):
    assert shown(escaped(text)) == [on_one_line(text)]
    assert kinds(escaped(text)) <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}


TABLE = "| number | what |\n| --: | :-- |\n| {{ text }} | {{ text | code }} |\n| 2 | b |"
OTHERS = "- {{ text }}\n- b\n\n## {{ text }}\n\n> **{{ text }}**\n\n{{ text | link('https://a.example/b_c') }}"


@each_odd
def test_text_shows_as_it_is_in_a_table(text):
    line = on_one_line(text)
    table = drawn(TABLE, text=text)
    assert shown(table) == ["number", "what", line, line, "2", "b"]
    assert not kinds(table) & {"html_inline", "html_block", "link_open", "image"}


@each_odd
def test_text_shows_as_it_is_in_a_list_a_heading_a_warning_and_a_link(text):
    line = on_one_line(text)
    assert shown(drawn(OTHERS, text=text)) == [line, "b", line, line, line]


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_any_text_shows_as_it_is(text):
    line = on_one_line(text)
    assert shown(escaped(text)) == ([line] if line else [])
    assert "".join(shown(drawn("{{ text | code }}", text=text))) == line
    assert shown(drawn("| a |\n| :-- |\n| {{ text }} |", text=text)) == ["a", line]


@each_odd
def test_text_is_escaped_whichever_way_it_reaches_a_card(text):
    """Through macros, sets, joins and parts that are conditional."""
    template = (
        "{% macro piece(text) %}{{ text }}{% endmacro %}{% set one = text %}{% set two %}{{ text }}{% endset %}"
        "{{ piece(text) }}\n\n{{ one }}\n\n{{ two }}\n\n{{ [text] | join }}\n\n{{ text if text else '' }}"
    )
    assert shown(drawn(template, text=text)) == [on_one_line(text)] * 5


def test_the_parser_sees_what_is_not_escaped():
    assert shown("a|b*c*") != ["a|b\\*c\\*"]
    assert "html_inline" in kinds("see <b>x</b>")
    assert shown("| a |\n| :-- |\n| a|b |") == ["a", "a"]
    assert "em_open" in kinds(drawn("{{ text | verbatim }}", text="*a*"))


def test_what_a_filter_made_is_not_escaped_again():
    assert drawn("{% set it = text | code %}{{ it }} and {{ [it, it] | join(', ') }}", text="x_y") == (
        "`x_y` and `x_y`, `x_y`"
    )


def test_numbers_are_written_for_people():
    assert drawn("{{ 59880472 | thousands }}, {{ 1.23e-6 | figure }}, {{ none | figure }}") == (
        "59,880,472, 1.2e-06, not measured"
    )


def test_a_name_that_a_template_misspells_is_an_error():
    for template in ("{{ nme }}", "{{ text.nme }}", "{% for one in nme %}{% endfor %}"):
        with pytest.raises(jinja2.UndefinedError, match="nme"):
            drawn(template, text="a")
    with pytest.raises(jinja2.UndefinedError, match="'publisher' is undefined"):
        render("publisher.md", collection="c")


@pytest.mark.parametrize("url", ["http://a.example", "javascript:alert(1)", "gs://bucket", "/srv/x", ""])
def test_only_pages_of_the_web_are_linked(url):
    assert drawn("{{ 'text' | link(url) }}", url=url) == "text"


def test_an_address_cannot_end_its_link():
    link = drawn("{{ 'a' | link(url) }}", url="https://a.example/b) <c> d")
    assert link == "[a](https://a.example/b%29%20%3Cc%3E%20d)"


@pytest.mark.parametrize("content", ["a", "```\nb\n```", "````"])
def test_a_block_holds_its_lines_as_they_are(content):
    block = drawn("{% filter block('text') %}{{ content | verbatim }}{% endfilter %}", content=content)
    (fence,) = [token for token in PARSER.parse(block) if token.type == "fence"]
    assert (fence.content, fence.info) == (f"{content}\n", "text")


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.glob("*.md")))
def test_the_whole_of_a_template_is_one_that_jinja_reads(template):
    assert ENVIRONMENT.get_template(template)
