"""Parts of an HTML page that stands alone: no script, nothing from another place, and nothing that data could add to its markup.

All that is text is escaped where it enters a part; what is markup already is a `Markup`. A page forbids itself, by its policy, to fetch or
run anything. It is read in light and dark, printed, and walked through with a keyboard or a screen reader: tables have captions and
headings, pictures have alternative texts, and every width fits.
"""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
NUMBER = re.compile(r"[-+\u2212\u00b1]?\d[\d,.e+\u2212-]*( ?%| dB)?( \([^)]*\))?$")
RIGHT = ' class="number"'
VOID = ("img",)  # elements without an inside
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --faint: #59636e; --line: #d8dee4; --soft: #f4f6f8; --link: #0b5cad;
  --fault: #b3261e; --fine: #2e7d32; --wrong: #fef3c7; --missing: #fee2e2; --extra: #e0e7ff;
  --c0: #0b5cad; --c1: #c2571a; --c2: #1b7f4d; --c3: #7a3fd1; --c4: #6b7280; --c5: #b1226f; --c6: #866a00; --c7: #00738f; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e8ebef; --faint: #a4adb8; --line: #3a424c; --soft: #1d2127;
  --link: #7db8ff; --fault: #ff9a90; --fine: #7fd28a; --wrong: #4a2c06; --missing: #4f1414; --extra: #262466;
  --c0: #6db3ff; --c1: #ff9b5e; --c2: #5fd39a; --c3: #c3a1ff; --c4: #b6bec9; --c5: #ff8ec4; --c6: #e3c044; --c7: #5fd0e6; } }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 74rem; margin: 0 auto;
  padding: 1.5rem 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }
.skip { position: absolute; left: -100vw; } .skip:focus { position: static; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: .5rem 0 1rem; } caption { text-align: left; color: var(--faint); padding: .25rem 0; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
  font-weight: normal; }
thead th { font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; }
td.ids { word-break: break-all; color: var(--faint); }
.fault { color: var(--fault); } .fine { color: var(--fine); } .faint, figcaption { color: var(--faint); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: .5rem 1.5rem; }
figure { margin: .5rem 0 1rem; } figure svg, figure img { max-width: 100%; height: auto; } figcaption { font-size: .87em; }
svg text { font: 11px system-ui, sans-serif; fill: var(--faint); } svg .axis { stroke: var(--line); fill: none; }
.key { white-space: nowrap; margin-right: 1em; } .key svg { vertical-align: middle; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); }
.curve { stroke: var(--c); fill: none; stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--c); opacity: .14; } .dot { fill: var(--c); }
audio { width: 100%; max-width: 26rem; display: block; } details { margin: .5rem 0; } summary { cursor: pointer; color: var(--link); }
.sample { border: 1px solid var(--line); border-radius: 8px; padding: .5rem 1rem; margin: 1rem 0; }
.wrong, .missing, .extra { padding: 0 .3em; border-radius: 4px; } .wrong { background: var(--wrong); }
.missing { background: var(--missing); }
.extra { background: var(--extra); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
code { font: .93em ui-monospace, monospace; background: var(--soft); padding: 0 .2em; overflow-wrap: anywhere; }
@media print { nav, .skip, audio { display: none; } body { max-width: none; font-size: 10pt; } figure, tr, .sample { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .wide { overflow: visible; } details::details-content { content-visibility: visible; } }
"""


class Markup(str):
    """HTML. What is none is escaped before it becomes a part of it."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Text as markup; markup as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Parts one behind the other."""
    return Markup(str(escaped(between)).join(escaped(part) for part in parts))


def element(tag: str, *inside: object, **attributes: object) -> Markup:
    """``<tag ...>...</tag>``. Attributes: ``class_`` and ``aria_label`` become ``class`` and ``aria-label``; None leaves one out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for name, value in attributes.items() if value is not None
    )
    return Markup(f"<{tag}{written}>" if tag in VOID else f"<{tag}{written}>{joined(inside)}</{tag}>")


def paragraph(*inside: object, kind: str | None = None) -> Markup:
    return element("p", *inside, class_=kind)


def table(head: Sequence[object], rows: Iterable[Sequence[Any]], caption: object | None = None, row_heads: bool = True) -> Markup:
    """A table in a box that scrolls by itself where it is too wide. Whole numbers have their thousands marked, what looks like a number
    stands right.

    Args:
        caption: what the table shows.
        row_heads: the first cell of every row names it.
    """
    lines = [[_cell(value, "th" if row_heads and not place else "td") for place, value in enumerate(row)] for row in rows]
    body = joined(element("tr", *line) for line in lines)
    right = [bool(lines) and all(len(line) > place and RIGHT in line[place] for line in lines) for place in range(len(head))]
    top = element("thead", element("tr", *(_cell(name, "th", "col", place) for name, place in zip(head, right))))
    title = "" if caption is None else element("caption", caption)
    return element("div", element("table", Markup(title), top, element("tbody", body)), class_="wide", tabindex="0", role="region",
                   aria_label=re.sub("<[^>]*>", "", str(caption)) if caption is not None else "table")  # fmt: skip


def _cell(value: Any, tag: str, scope: str = "row", right: bool = False) -> Markup:
    text = escaped(f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else value)
    number = right or (scope == "row" and NUMBER.match(text))
    return element(tag, text, class_="number" if number else None, scope=scope if tag == "th" else None)


def figure(content: Markup, caption: object) -> Markup:
    return element("figure", content, element("figcaption", caption))


def section(name: str, title: str, *parts: object) -> Markup:
    """A part of the page that the navigation leads to by its name."""
    return element("section", element("h2", title, id=f"{name}-title"), *parts, id=name, aria_labelledby=f"{name}-title")


def folded(summary: object, *parts: object) -> Markup:
    """What is not shown before somebody asks for it."""
    return element("details", element("summary", summary), *parts)


def document(title: str, *body: object, contents: Sequence[tuple[str, str]] = (), style: str = "") -> str:
    """The whole page.

    Args:
        contents: name and title of every section, for the navigation.
        style: further rules.
    """
    links = [element("li", element("a", text, href=f"#{name}")) for name, text in contents]
    skip = element("a", "To the content", href="#content", class_="skip") if contents else ""
    navigation = element("nav", element("ul", *links), aria_label="Contents") if contents else ""
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escaped(title)}</title><style>{STYLE}{style}</style>'
    )
    main = element("main", *body, id="content")
    heading = element("h1", title)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{skip}{heading}{navigation}{main}</body></html>\n'
