"""The XHTML that a narrative may hold, and what it may not."""

import pytest

from fhir_profiles.compiler import markup

NS = 'xmlns="http://www.w3.org/1999/xhtml"'


@pytest.mark.parametrize(
    "div",
    [
        f"<div {NS}>Plain words</div>",
        f'<div {NS}><p class="x"><b>Bold</b><br/></p><ul><li>one</li></ul></div>',
        f'<div {NS}><img src="#eye" alt="an eye"/></div>',
        f'<div {NS} xml:lang="cy">Geiriau</div>',
    ],
)
def test_basic_formatting_is_allowed(div: str) -> None:
    assert markup.is_allowed(div)


@pytest.mark.parametrize(
    "div",
    [
        None,
        "",
        "words",
        "<div>no namespace</div>",
        f"<p {NS}>no div</p>",
        f"<div {NS}>not closed",
        f"<div {NS}> </div>",
        f"<div {NS}><script>alert(1)</script></div>",
        f'<div {NS}><p onclick="x()">a</p></div>',
        f"<div {NS}><form>a</form></div>",
        f'<!DOCTYPE div [<!ENTITY a "b">]><div {NS}>&a;</div>',
    ],
)
def test_what_could_do_something_says_nothing_or_is_no_xhtml_is_not(div: object) -> None:
    assert not markup.is_allowed(div)
