r"""Formulas of the built pages: from the TeX between dollars to MathML, while the site is built.

Browsers draw MathML by themselves, so that pages need no script and nothing of another machine.  The font is STIX Two
Math (SIL Open Font License 1.1) as the package `ziamath` carries it.  `_typeset` mends the rest.
"""

import html
import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from latex2mathml.converter import convert
from mkdocs.structure.files import File

FONT = "STIXTwoMath-Regular.ttf"
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
NUMBER = re.compile(r"\s*\\tag\{(\w+)\}\s*")
UPRIGHT_LETTER = re.compile(r"\\mathrm\{(\w)\}")
FUNCTION_OF_LETTER = re.compile(r"\\(cos|sin|tan)(?=\s*\\?[a-zA-Z])")
BAR, PARTIAL, PRIME, RULE = "|", "\u2202", "\u2032", "\u2015"
NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'


def on_files(found, config):
    """Add the font to the site."""
    font = Path(find_spec("ziamath").origin).parent / "fonts" / FONT  # found without loading the package
    found.append(File.generated(config, f"site/{FONT}", content=font.read_bytes()))
    return found


def on_page_content(content, **_):
    """Put MathML in the place of every formula of a page."""
    content = INLINE.sub(lambda found: _mathml(found[1], "inline"), content)
    return DISPLAY.sub(lambda found: _with_number(found[1]), content)


def _with_number(escaped):
    number = "".join(f'<span class="number">({found})</span>' for found in NUMBER.findall(escaped))
    return f'<div class="formula">{_mathml(NUMBER.sub("", escaped), "block")}{number}</div>'


def _mathml(escaped, display):
    tex = UPRIGHT_LETTER.sub(r"\\text{\1}", html.unescape(escaped).strip())
    converted = convert(FUNCTION_OF_LETTER.sub(r"\\\1\\,", tex), display=display)
    root = ElementTree.fromstring(converted.replace(NAMESPACE, ""))  # which HTML does not ask for
    for element in root.iter():
        _typeset(element)
    return ElementTree.tostring(root, encoding="unicode")


def _typeset(element):
    kind, parts = element.tag, list(element)
    if kind == "mo" and element.text == BAR:  # as high as a line, without room beside it
        element.attrib |= {"stretchy": "false", "lspace": "0", "rspace": "0"}
    elif kind == "mo" and element.text == PARTIAL:
        element.tag = "mi"
    elif kind in ("mover", "munder") and parts[1].text == RULE:  # a border is as long as what it stands above
        element.tag = "mrow"
        element.set("class", kind)
        element.remove(parts[1])
    elif kind == "msup" and parts[1].text == PRIME:
        parts[1].tag = "mo"
