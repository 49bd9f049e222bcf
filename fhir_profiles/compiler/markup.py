"""Whether a narrative is the XHTML that FHIR allows. Source: FHIR R4, narrative (txt-1, txt-2)."""

from typing import Final
from xml.etree.ElementTree import ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

XHTML: Final = "{http://www.w3.org/1999/xhtml}"
_ELEMENTS: Final = """
a abbr acronym address b big blockquote br caption cite code col colgroup dd del dfn div dl dt em h1
h2 h3 h4 h5 h6 hr i img ins kbd li ol p pre q s samp small span strong sub sup table tbody td tfoot
th thead tr tt ul var
"""
_ATTRIBUTES: Final = """
abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char
charoff charset cite class colspan compact coords dir frame headers height href hreflang hspace id
lang longdesc name nowrap rel rev rowspan rules scope shape span src start style summary tabindex
title type valign value vspace width
{http://www.w3.org/XML/1998/namespace}lang {http://www.w3.org/XML/1998/namespace}space
"""
_ALLOWED_ELEMENTS: Final = frozenset(_ELEMENTS.split())
_ALLOWED_ATTRIBUTES: Final = frozenset(_ATTRIBUTES.split())


def is_allowed(div: object) -> bool:
    """Whether a `div` holds only the basic formatting that is allowed, and says anything at all."""
    if not isinstance(div, str):
        return False
    try:
        root = ElementTree.fromstring(div, forbid_dtd=True)
    except (ParseError, DefusedXmlException):
        return False
    if root.tag != f"{XHTML}div":
        return False
    for element in root.iter():
        if element.tag.removeprefix(XHTML) not in _ALLOWED_ELEMENTS:
            return False
        if element.attrib.keys() - _ALLOWED_ATTRIBUTES:
            return False
    return any(text.strip() for text in root.itertext()) or root.find(f".//{XHTML}img") is not None
