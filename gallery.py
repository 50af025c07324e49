# SPDX-License-Identifier: Apache-2.0
"""A page of pictures, in one HTML file that opens from disk and refers to nothing outside its folder."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import List, Sequence, Tuple
from urllib.parse import quote

import atomic

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
       color: #222; background: #fafafa; }
h1, h2 { line-height: 1.2; }
section.row { margin: 1rem 0; padding: .8rem 1rem; background: #fff; border: 1px solid #ddd; border-radius: 8px; }
section.row h3 { margin: 0 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
div.cells { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 10rem; max-width: 20rem; }
figure img { width: 100%; image-rendering: auto; border-radius: 4px; display: block; }
figure.wide { flex-basis: 22rem; max-width: 36rem; }
div.table { overflow-x: auto; }
table { border-collapse: collapse; background: #fff; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
figcaption { font-size: .85rem; color: #666; }
"""


@dataclass(frozen=True)
class Row:
    """One row of the page: a title, and (caption, path of a picture relative to the page) for each cell."""

    title: str
    cells: Sequence[Tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph below it (may be empty), a table whose first row is its header, and rows of pictures;
    `wide` shows these larger."""

    heading: str
    text: str
    rows: Sequence[Row]
    wide: bool = False
    table: Sequence[Sequence[str]] = ()


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page. Everything that comes from outside, file names too, is escaped."""
    body: List[str] = [f"<h1>{escape(title)}</h1>"]
    for section in sections:
        body.append(f"<h2>{escape(section.heading)}</h2>")
        if section.text:
            body.append(f"<p>{escape(section.text)}</p>")
        body += _table(section.table)
        body += [_row(row, section.wide) for row in section.rows]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    atomic.write_text(path, page)


def _table(rows: Sequence[Sequence[str]]) -> List[str]:
    """Lines of HTML; none for an empty table."""
    if not rows:
        return []
    header, *lines = (
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
        for tag, cells in zip(["th", *["td"] * len(rows)], rows)
    )
    return [f'<div class="table"><table><thead>{header}</thead>', *lines, "</table></div>"]


def _row(row: Row, wide: bool) -> str:
    kind = ' class="wide"' if wide else ""
    cells = "".join(
        f'<figure{kind}><img src="{escape(quote(source))}" alt="{escape(row.title)}: {escape(caption)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, source in row.cells
    )
    heading = f"<h3>{escape(row.title)}</h3>" if row.title else ""
    return f'<section class="row">{heading}<div class="cells">{cells}</div></section>'
