"""The report is one valid page that loads nothing and escapes whatever it is given."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from tiltflow.report.html import Chart, Section, json_in_page, write_report
from tiltflow.report.style import new_figure, png_bytes

VOID = {"meta", "img", "br", "hr", "link", "input"}
LINES = Chart("lines", {"label": "curves", "x": [], "x_name": "step", "panels": []}, True)
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


def test_a_chart_brings_the_only_script_that_the_policy_lets_run(tmp_path):
    section = Section("A", figure_png=_png(), figure_alt="a", chart=LINES)
    write_report(tmp_path / "r.html", "t", "l", [section])
    text = (tmp_path / "r.html").read_bytes()
    scripts = re.findall(rb"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0]).digest()).decode()
    policy = re.search(r'Policy" content="([^"]*)"', text.decode()).group(1)
    assert f"; script-src 'sha256-{digest}'; connect-src 'none'" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    code = scripts[0].decode()
    for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import("):
        assert word not in code


def test_a_chart_is_hidden_until_the_script_finds_it_and_the_figure_is_there(tmp_path):
    section = Section("A", figure_png=_png(), figure_alt="a", chart=LINES)
    page = _page(tmp_path / "r.html", [section])
    (chart,) = (each for each in page.all("div") if each.get("class") == "chart")
    assert "hidden" in chart and chart["data-replaces"] == "yes"
    assert "hidden" not in page.all("figure")[0]
    assert [script.get("type") for script in page.all("script")] == ["application/json", None]


def test_json_in_a_page_cannot_leave_its_element(tmp_path):
    evil = {"name": "</script><script>alert(1)</script><!--", EVIL: ["\u2028]]>&lt;"]}
    text = json_in_page(evil)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == evil
    page = _page(tmp_path / "r.html", [Section("A", chart=Chart("pairs", evil))])
    assert len(page.all("script")) == 2
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_in_page({"x": float("nan")})


@pytest.mark.parametrize("name", ["report.js", "watch.js"])
def test_the_scripts_parse(tmp_path, name):
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed, and nothing else here reads JavaScript")
    folder = files("tiltflow.report")
    code = folder.joinpath("charts.js").read_text() + folder.joinpath(name).read_text()
    (tmp_path / "all.js").write_text(code)
    done = subprocess.run([node, "--check", "all.js"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reasons_are_listed_below_the_lead(tmp_path):
    write_report(tmp_path / "r.html", "t", "lead", [], ["First.", EVIL])
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.text_of("li") == ["First.", EVIL]


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
