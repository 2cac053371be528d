"""Equations of the site: TeX between dollars becomes MathML, which browsers draw by themselves, without scripts or fonts from elsewhere."""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

# What pymdownx.arithmatex leaves of `$...$` and of `$$...$$`.
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAYED = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Called by MkDocs with the HTML of every page.

    Raises:
        PluginError: an equation with a command that is not known.
    """

    def draw(tex: str, display: str) -> str:
        drawn = convert(html.unescape(tex).strip(), display=display)
        if "\\" in drawn:
            raise PluginError(f"{page.file.src_uri}: an equation has a command that is not known: {tex.strip()}")
        return drawn

    content = INLINE.sub(lambda found: draw(found[1], "inline"), content)
    return DISPLAYED.sub(lambda found: draw(found[1], "block"), content)
