"""The documentation is a site without a warning or a broken link, which fetches nothing from anywhere."""

import html.parser
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("material", reason="needs the extra docs")
ROOT = Path(__file__).resolve().parents[1]
# Attributes by which a browser fetches something by itself; links, which a reader clicks, are no such thing.
FETCHED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "link": ("href",),
    "use": ("href",),
}


class Fetched(html.parser.HTMLParser):
    """Collects the addresses on other hosts that a page would be filled from."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [value or "" for name, value in attrs if name in FETCHED.get(tag, ())]
        self.found += [value for value in values if value.startswith(("http:", "https:", "//"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, made as `make docs` makes it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"\n{result.stdout}{result.stderr}"
    return folder


def test_every_page_of_the_navigation_is_there(site: Path) -> None:
    named = re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert len(named) > 30
    assert [page for page in named if not (site / page).with_suffix(".html").is_file()] == []


def test_pages_fetch_nothing_from_other_hosts(site: Path) -> None:
    fetched = {}
    for page in sorted(site.rglob("*.html")):
        reader = Fetched()
        reader.feed(page.read_text(encoding="utf-8"))
        if reader.found:
            fetched[page.relative_to(site).as_posix()] = reader.found
    assert fetched == {}
    sheets = [path for path in site.rglob("*.css") if "url(http" in path.read_text(encoding="utf-8").replace('"', "")]
    assert sheets == []


def test_equations_are_drawn_without_a_script(site: Path) -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in site.glob("*.html")}
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"' in pages["avhubert.html"]
    assert [name for name, text in pages.items() if "arithmatex" in text] == []


def test_an_unknown_command_in_an_equation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from mkdocs.exceptions import PluginError

    equations = importlib.import_module("equations")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    drawn = equations.on_page_content(r'<p>With <span class="arithmatex">\(x &lt; 1\)</span></p>', page)
    assert drawn.startswith("<p>With <math")
    assert drawn.endswith("</math></p>")
    with pytest.raises(PluginError, match=r"page\.md: an equation has a command that is not known: \\unheard"):
        equations.on_page_content(r'<div class="arithmatex">\[\unheard{x}\]</div>', page)


def test_the_reference_is_read_from_docstrings(site: Path) -> None:
    page = (site / "api" / "use.html").read_text(encoding="utf-8")
    assert 'id="avtlm.transcribe.transcribe"' in page
    assert "Transcripts of media files, in their order." in page
