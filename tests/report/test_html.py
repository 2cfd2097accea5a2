"""The report is one valid page that loads nothing and escapes whatever it is given."""

import base64
from html.parser import HTMLParser

import pytest

from tiltflow.report.html import Section, write_report
from tiltflow.report.style import new_figure, png_bytes

VOID = {"meta", "img", "br", "hr", "link", "input"}
EVIL = "\"><script>alert('1')</script><img src=https://example.org/x.png onerror=alert(2)>&amp;"


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on a tag that is not closed in its order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text_of(self, tag):
        return [text for name, text in self.texts if name == tag]


def _png():
    return png_bytes(new_figure(3, 2))


def _page(path, sections, title="Fit of data.csv", lead="The fit can be trusted."):
    write_report(path, title, lead, sections)
    return Page(path.read_text(encoding="utf-8"))


def test_a_report_has_its_parts_in_order(tmp_path):
    png = _png()
    table = (("mode", "weight"), [("left", "0.667 ± 0.002"), ("right", "0.333 ± 0.002")])
    page = _page(
        tmp_path / "report.html",
        [Section("Verdict", "One.\n\nTwo."), Section("Modes", "", table, png, "two bars")],
    )
    names = [tag for tag, _ in page.tags]
    assert [name for name in names if name in ("header", "main", "footer")] == [
        "header",
        "main",
        "footer",
    ]
    assert [name for name in names if name in ("h1", "h2", "h3")] == ["h1", "h2", "h2"]
    assert page.text_of("title") == page.text_of("h1") == ["Fit of data.csv"]
    assert page.text_of("p")[:3] == ["The fit can be trusted.", "One.", "Two."]
    assert names.count("caption") == 1
    assert [cell.get("class") for cell in page.all("td")] == [None, "number"] * 2
    assert page.text_of("td") == ["left", "0.667 ± 0.002", "right", "0.333 ± 0.002"]
    (image,) = page.all("img")
    assert image["alt"] == "two bars"
    assert (image["width"], image["height"]) == ("288", "192")  # 3 by 2 inches of 96 pixels
    prefix = "data:image/png;base64,"
    assert image["src"].startswith(prefix)
    assert base64.b64decode(image["src"].removeprefix(prefix)) == png


def test_nothing_is_loaded_and_the_policy_forbids_it(tmp_path):
    page = _page(tmp_path / "r.html", [Section("A", figure_png=_png(), figure_alt="a")])
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    (policy,) = (m for m in page.all("meta") if "http-equiv" in m)
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    css = "".join(page.text_of("style"))
    assert "prefers-color-scheme: dark" in css
    assert "url(" not in css
    assert "@import" not in css


def test_everything_is_escaped(tmp_path):
    section = Section(EVIL, EVIL, ([EVIL, "n"], [[EVIL, "1"]]), _png(), EVIL)
    evil = _page(tmp_path / "evil.html", [section], title=EVIL, lead=EVIL)
    plain = _page(
        tmp_path / "plain.html", [Section("h", "t", (["a", "n"], [["b", "1"]]), _png(), "alt")]
    )
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    for tag in ("title", "h1", "h2", "th", "td", "span"):
        assert evil.text_of(tag)[0] == EVIL
    assert evil.all("img")[0]["alt"] == EVIL
    assert evil.all("div")[0]["aria-label"] == EVIL


def test_lone_surrogates_do_not_lose_the_report(tmp_path):
    assert _page(tmp_path / "r.html", [], title="\udcff.csv").text_of("h1") == ["?.csv"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (Section("A", figure_png=b"GIF89a", figure_alt="a"), "not a PNG"),
        (Section("A", figure_png=b"\x89PNG\r\n\x1a\n" + bytes(20)), "needs figure_alt"),
        (Section("A", table=(["x"], [["1", "2"]])), "row 0 has 2 cells for 1 columns"),
    ],
)
def test_bad_sections_are_refused_and_nothing_is_written(tmp_path, section, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "r.html", "t", "l", [section])
    assert list(tmp_path.iterdir()) == []
