"""One HTML file that holds a whole report: text, tables and figures, read without a network.

Everything is inlined and a content security policy forbids the page to fetch anything, or to run
another script than its own, whose hash it holds. Whatever a caller passes is escaped: column names
come from users' files. Charts need the script; the pictures do not.
"""

import base64
import hashlib
import json
import os
import struct
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

from tiltflow.report.files import write_atomically
from tiltflow.report.style import DPI
from tiltflow.report.table import check_rows, is_numeric_column

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Chart(NamedTuple):
    """A chart that the reader can zoom and ask: one of `charts.js`, and what it is drawn from.

    `data` becomes JSON. Where it `replaces` the section's figure, that is shown only to readers
    without a script.
    """

    kind: str
    data: dict[str, Any]
    replaces: bool = False


class Section(NamedTuple):
    """One part of a report, in the order of its fields; what is empty or None is left out.

    Text is split into paragraphs at blank lines. A table is its column names and its rows of cells,
    all text. A figure is the bytes of a PNG and must come with `figure_alt`, which says in words
    what it shows.
    """

    heading: str
    text: str = ""
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    figure_png: bytes | None = None
    figure_alt: str = ""
    chart: Chart | None = None


def write_report(
    path: str | os.PathLike[str],
    title: str,
    lead: str,
    sections: Sequence[Section],
    reasons: Sequence[str] = (),
) -> None:
    """Write the report to `path`, all of it or nothing; `lead` is the one sentence on top.

    `reasons` are listed below it.

    Raises `ValueError` for a figure that is no PNG or has no `figure_alt`, and for a table's row
    of the wrong length; `OSError` where the file cannot be written.
    """
    listed = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    below = f"\n<ul>{listed}</ul>" if listed else ""
    body = "\n".join(_section(section) for section in sections)
    script = "report.js" if any(section.chart for section in sections) else None
    text = page(
        title,
        f"""<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>{below}
</header>
<main>
{body}
</main>
<footer><p>Written by tiltflow. This file is complete in itself and loads nothing.</p></footer>""",
        script,
    )
    write_atomically(path, text)


def page(title: str, body: str, script: str | None = None, connect: str = "'none'") -> bytes:
    """A whole page around `body`, which is markup; it runs `charts.js` and the named `script`.

    `connect` tells what the script may fetch, as the policy has it.
    """
    policy, tail = _POLICY, ""
    if script is not None:
        code = "\n" + _read("charts.js") + _read(script)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'; connect-src {connect}"
        tail = f"\n<script>{code}</script>"
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_read("page.css")}</style>
</head>
<body>
{body}{tail}
</body>
</html>
"""
    # A lone surrogate (from an undecodable file name, say) must not lose the page.
    return text.encode("utf-8", errors="replace")


def json_in_page(data: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or opens one."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return files("tiltflow.report").joinpath(name).read_text(encoding="utf-8")


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    paragraphs = (paragraph.strip() for paragraph in section.text.split("\n\n"))
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs if paragraph]
    if section.table is not None:
        parts.append(_table(section.heading, *section.table))
    if section.figure_png is not None:
        parts.append(_figure(section))
    if section.chart is not None:
        parts.append(_chart(section.chart))
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    check_rows(columns, rows)
    numeric = [is_numeric_column([row[j] for row in rows]) for j in range(len(columns))]
    marks = [' class="number"' if number else "" for number in numeric]
    head = "".join(f'<th scope="col"{m}>{escape(name)}</th>' for m, name in zip(marks, columns))
    lines = (
        "<tr>" + "".join(f"<td{m}>{escape(cell)}</td>" for m, cell in zip(marks, row)) + "</tr>"
        for row in rows
    )
    # The caption repeats the heading for screen readers, so it is not shown; a wide table scrolls
    # by itself and takes the focus, so that the keyboard can scroll it too.
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
        f'<table>\n<caption><span class="hidden">{escape(caption)}</span></caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>\n"
        "</div>"
    )


def _figure(section: Section) -> str:
    png = section.figure_png or b""
    if not png.startswith(_PNG_SIGNATURE):
        raise ValueError(f"the figure of section {section.heading!r} is not a PNG")
    if not section.figure_alt.strip():
        raise ValueError(f"the figure of section {section.heading!r} needs figure_alt")
    # PNG specification: width and height are the first two fields of the first chunk.
    width, height = (round(pixels * 96 / DPI) for pixels in struct.unpack(">II", png[16:24]))
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(section.figure_alt)}"></figure>'
    )


def _chart(chart: Chart) -> str:
    # Hidden until the script has found it: without one there is nothing to see here.
    replaces = "yes" if chart.replaces else "no"
    return (
        f'<div class="chart" data-kind="{escape(chart.kind)}" data-replaces="{replaces}" hidden>'
        f'<script type="application/json">{json_in_page(chart.data)}</script></div>'
    )
