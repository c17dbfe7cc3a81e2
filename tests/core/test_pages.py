"""What every page has: escaped values, one policy, one style; and cards that are Markdown."""

import jinja2
import pytest

from components.core.pages import template

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.css").write_text("b { color: red; }\n")
    page = '{% extends "page.html.j2" %}\n{% set style = "own.css" %}\n'
    page += "{% block title %}{{ said }}{% endblock %}\n{% block body %}{{ said }}{% endblock %}"
    (tmp_path / "a.html.j2").write_text(page)
    (tmp_path / "a.md.j2").write_text("{{ said }} {{ said | loud }}\n")
    return tmp_path


def test_a_page_escapes_what_it_is_given_and_forbids_scripts(folder):
    page = template(folder, "a.html.j2").render(said=HOSTILE)
    assert page.count("&lt;script&gt;") == 2
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_a_page_has_the_common_style_and_then_its_own(folder):
    page = template(folder, "a.html.j2").render(said="")
    assert 0 < page.index("--paper") < page.index("b { color: red; }") < page.index("</style>")


def test_a_card_is_left_as_it_is_and_has_the_filters_it_is_given(folder):
    card = template(folder, "a.md.j2", loud=str.upper)
    assert card.render(said="a & b") == "a & b A & B\n"


def test_a_value_that_is_missing_is_an_error(folder):
    with pytest.raises(jinja2.UndefinedError, match="said"):
        template(folder, "a.html.j2").render()


def test_what_no_page_of_utf8_may_hold_is_replaced(folder):
    assert "a\N{REPLACEMENT CHARACTER}b" in template(folder, "a.html.j2").render(said="a\ud800b")
