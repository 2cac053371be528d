"""A report as a browser would take it in: its text, tables and pictures, and whatever it would fetch or run."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

# Attributes by which a page fetches something, or goes somewhere.
ADDRESSES = ("src", "href", "srcset", "data", "action", "poster", "xlink:href")
OPEN = ("img", "meta", "br", "link", "input")


class Page(HTMLParser):
    """Attributes:
    tags: (name, attributes) of all elements.
    tables: caption -> rows of cells as text.
    open: elements that were not closed; empty for a whole page.
    """

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self.words: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in OPEN:
            self.open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if "caption" in self.open:
            self._caption += data
        elif "td" in self.open or "th" in self.open:
            self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self, words: str) -> list[list[str]]:
        """The rows of the one table whose caption has these words, its head first."""
        [found] = [rows for caption, rows in self.tables.items() if words in caption]
        return found


def read_page(path: Path) -> Page:
    """A page that holds to its promises: it is whole, fetches and runs nothing, its pictures can be seen and its sounds heard, and every
    table, picture, map and sound is named for those who do not see it."""
    import soundfile
    from matplotlib.image import imread

    markup = path.read_text(encoding="utf-8")
    page = Page(markup)
    assert page.open == []
    assert markup.startswith('<!doctype html>\n<html lang="en">')
    assert not {"script", "iframe", "link", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in set(ADDRESSES) & set(attributes):
            assert attributes[name].startswith(("#", "data:image/png;base64,", "data:audio/wav;base64,")), attributes[name][:100]
    assert not re.search(r"@import|url\(", markup.split("</style>")[0])
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    for address in [each["src"] for each in page.all("img")] + [each["href"] for each in page.all("image")]:
        assert imread(io.BytesIO(base64.b64decode(address.partition(",")[2])), format="png").size > 0
    for sound in page.all("audio"):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["src"].partition(",")[2])))
        assert (len(samples) > 0, rate) == (True, 16000)
        assert sound["aria-label"]
        assert "controls" in sound
    assert all(each["alt"] for each in page.all("img"))
    assert all(each.get("aria-label") or each.get("aria-hidden") for each in page.all("svg"))
    assert markup.count("<table>") == markup.count("<caption>")
    return page
