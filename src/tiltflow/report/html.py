"""One HTML file that holds a whole report: text, tables and figures, read without a network.

Everything is inlined and a content security policy forbids the page to fetch anything. Whatever a
caller passes is escaped: column names come from users' files.
"""

import base64
import os
import struct
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from tiltflow.report.files import write_atomically
from tiltflow.report.style import DPI
from tiltflow.report.table import check_rows, is_numeric_column

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_CSS = """
:root { color-scheme: light dark; --page: #f6f8fa; --card: #ffffff; --ink: #24292f;
  --quiet: #57606a; --line: #d8dee4; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --card: #161b22; --ink: #e6edf3; --quiet: #9da7b3; --line: #30363d;
    --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 60rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 0 0 .75rem; overflow-wrap: anywhere; }
p { margin: 0 0 1rem; max-width: 46rem; overflow-wrap: anywhere; }
.lead { font-size: 1.1rem; border-left: .25rem solid var(--accent); padding-left: .9rem;
  margin-bottom: 1.5rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1.25rem 1.4rem; margin: 0 0 1.25rem; }
section > :last-child { margin-bottom: 0; }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .94rem; }
th, td { padding: .35rem 1.5rem .35rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--quiet); font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1rem; background: #ffffff; border-radius: .4rem; padding: .4rem; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: .4rem; }
footer { color: var(--quiet); font-size: .85rem; padding-bottom: 2rem; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
@media (max-width: 40rem) { header, main, footer { padding-left: .7rem; padding-right: .7rem; }
  section { padding: 1rem .9rem; } }
@media print { body { background: none; } section { break-inside: avoid; } }
"""


class Section(NamedTuple):
    """One part of a report; what is empty or None is left out.

    Text is split into paragraphs at blank lines. A table is its column names and its rows of cells,
    all text. A figure is the bytes of a PNG and must come with `figure_alt`, which says in words
    what it shows.
    """

    heading: str
    text: str = ""
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    figure_png: bytes | None = None
    figure_alt: str = ""


def write_report(
    path: str | os.PathLike[str], title: str, lead: str, sections: Sequence[Section]
) -> None:
    """Write the report to `path`, all of it or nothing; `lead` is the one sentence on top.

    Raises `ValueError` for a figure that is no PNG or has no `figure_alt`, and for a table's row
    of the wrong length; `OSError` where the file cannot be written.
    """
    body = "\n".join(_section(section) for section in sections)
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
</header>
<main>
{body}
</main>
<footer><p>Written by tiltflow. This file is complete in itself and loads nothing.</p></footer>
</body>
</html>
"""
    # A lone surrogate (from an undecodable file name, say) must not lose the report.
    write_atomically(path, page.encode("utf-8", errors="replace"))


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    paragraphs = (paragraph.strip() for paragraph in section.text.split("\n\n"))
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs if paragraph]
    if section.table is not None:
        parts.append(_table(section.heading, *section.table))
    if section.figure_png is not None:
        parts.append(_figure(section))
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
