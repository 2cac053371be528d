"""Parts of a page: what is text is escaped, what is markup stays, and tables can be read without seeing them."""

from avtlm.evaluation.report.differences import marked_words
from avtlm.evaluation.report.page import Markup, document, element, escaped, joined, paragraph, section, table
from tests.evaluation.report.read_page import Page

EVIL = "<b onclick='x'>&\""


def test_text_is_escaped_once_and_markup_never() -> None:
    assert escaped(EVIL) == "&lt;b onclick=&#x27;x&#x27;&gt;&amp;&quot;"
    assert escaped(escaped(EVIL)) == escaped(EVIL)
    inside = element("em", EVIL, title=EVIL)
    assert joined([inside, "<", inside], ">") == f"{inside}&gt;&lt;&gt;{inside}"
    assert Page(paragraph(inside)).all("em") == [{"title": EVIL}]
    assert element("img", alt="x", class_=None) == '<img alt="x">'


def test_tables_have_captions_and_heads_for_columns_and_rows() -> None:
    page = Page(table(["run", "loss", "note"], [["a", "1.25", "x"], ["b", 1234567, "2 words"]], f"Losses {EVIL}"))
    assert page.tables == {f"Losses {EVIL}": [["run", "loss", "note"], ["a", "1.25", "x"], ["b", "1,234,567", "2 words"]]}
    assert [cell.get("scope") for cell in page.all("th")] == ["col", "col", "col", "row", "row"]
    assert [cell.get("class") for cell in page.all("th")] == [None, "number", None, None, None]
    assert [cell.get("class") for cell in page.all("td")] == ["number", None, "number", None]
    [box] = page.all("div")
    assert (box["tabindex"], box["role"]) == ("0", "region")  # a wide table is scrolled with the keyboard, too


def test_numbers_are_known_by_their_looks() -> None:
    shown = ["12.5 (10.0-15.0)", "−3.2", "+0", "1e-05", "50 %", "12 words", "x1", "", "-"]
    page = Page(table(["a"], [["", value] for value in shown]))
    assert [cell.get("class") == "number" for cell in page.all("td")] == [True, True, True, True, True, False, False, False, False]


def test_a_document_is_whole_and_forbids_itself_to_fetch_or_run_anything() -> None:
    markup = document(f"Title {EVIL}", section("one", "One", paragraph("text")), contents=[("one", "One")])
    page = Page(markup)
    assert page.open == []
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    assert [link["href"] for link in page.all("a")] == ["#content", "#one"]
    assert "prefers-color-scheme: dark" in markup
    assert "@media print" in markup
    assert isinstance(section("one", "One"), Markup)


def test_differences_of_words_are_marked_and_escaped() -> None:
    marked = marked_words("one <b>red two three now four five six", "one <i>blue two three four five six please")
    page = Page(marked)
    kinds = [span["class"] for span in page.all("span") if span.get("class", "unseen") != "unseen"]
    assert kinds == ["wrong", "missing", "extra"]
    assert page.all("b") == page.all("i") == []
    assert "wrong word: <i>blue ( instead of <b>red) two" in page.text
    assert marked_words("a b", "a b") == "a b"
