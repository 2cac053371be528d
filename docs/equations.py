"""Equations of the site: TeX between dollars becomes MathML, which browsers draw by themselves, without scripts or fonts from elsewhere."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves of `$...$` and of `$$...$$`.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAYED = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Called by MkDocs with the HTML of every page."""
    content = INLINE.sub(lambda found: convert(html.unescape(found[1]).strip()), content)
    return DISPLAYED.sub(lambda found: convert(html.unescape(found[1]).strip(), display="block"), content)
