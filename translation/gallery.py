# SPDX-License-Identifier: Apache-2.0
"""A page of pictures, in one HTML file that opens from disk and refers to nothing outside its folder.

Its looks are in gallery.css and what moves in gallery.js; both are put into the page, which needs neither network nor
JavaScript to show all that there is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple
from urllib.parse import quote

from common import files
from common.errors import UserError
from data import pictures

STYLE, SCRIPT = (Path(__file__).with_name(f"gallery.{kind}") for kind in ("css", "js"))

TOOLS = """<div class="tools">
<label class="js">Filter by name <input type="search" id="filter" autocomplete="off" spellcheck="false"></label>
<output class="js" id="count" for="filter"></output>
<label><input type="checkbox" id="outlines" autocomplete="off" checked> Outlines of the instances</label>
{links}</div>
<p class="js">Drag the handle between two pictures, or move it with the arrow keys, to lay the input over its
translation; click a picture to see it large.</p>"""

VIEWER = """<dialog id="viewer" aria-label="One picture, large">
<p><button type="button" id="previous">← Previous</button> <button type="button" id="next" autofocus>Next →</button>
<button type="button" id="toggle">Outlines</button> <button type="button" id="close">Close</button></p>
<div id="shown"></div></dialog>"""


@dataclass(frozen=True)
class Row:
    """One row of the page: a title, and (caption, path of a picture relative to the page) for each cell."""

    title: str
    cells: Sequence[Tuple[str, str]]


class Link(NamedTuple):
    """What leads to a file: a caption, its path relative to the page, and its colour ("#rrggbb" or empty) on the
    pictures."""

    caption: str
    path: str
    colour: str = ""


@dataclass(frozen=True)
class Comparison:
    """A picture and its translation: the name that the filter looks at, a title, and paths relative to the page.

    `outlines_before` and `outlines_after` are transparent pictures of the same shape (`outline_masks`), to be
    laid over the input `before` and the translation `after`; empty where there are none. `files` are links
    below, such as to each mask.
    """

    name: str
    title: str
    before: str
    after: str
    outlines_before: str
    outlines_after: str
    files: Sequence[Link] = ()

    def under(self, folder: str) -> Comparison:
        """The same, for a page in the folder that `folder` is in."""
        return replace(
            self,
            files=[link._replace(path=f"{folder}/{link.path}") for link in self.files],
            **{name: f"{folder}/{path}" for name in _PICTURES if (path := getattr(self, name))},
        )


_PICTURES = ("before", "after", "outlines_before", "outlines_after")


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph below it (may be empty), a table whose first row is its header, rows of pictures (`wide`
    shows these larger), and pictures to compare."""

    heading: str
    text: str
    rows: Sequence[Row] = ()
    wide: bool = False
    table: Sequence[Sequence[str]] = ()
    comparisons: Sequence[Comparison] = ()


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page. Everything that comes from outside, file names too, is escaped."""
    style, script = (f"\n{file.read_text('utf-8')}" for file in (STYLE, SCRIPT))
    # whatever might get into the page: no other script runs, and nothing is loaded but pictures beside it
    policy = f"default-src 'none'; img-src 'self' file:; style-src {_hash(style)}; script-src {_hash(script)}"
    compared = any(section.comparisons for section in sections)
    page = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}; base-uri 'none'; form-action 'none'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{style}</style></head>\n<body>\n<h1>{escape(title)}</h1>",
        TOOLS.format(links=_links(sections)) if compared else "",
        *(line for i, section in enumerate(sections) for line in _section(Path(path).parent, f"section{i}", section)),
        f"{VIEWER}\n<script>{script}</script>" if compared else "",
        "</body></html>\n",
    ]
    files.write_text(path, "\n".join(filter(None, page)))


def write_comparisons(path: Path, comparisons: Dict[str, Comparison]) -> None:
    """Write comparisons by name as JSON, for `read_comparisons`."""
    files.write_text(path, json.dumps({name: asdict(one) for name, one in comparisons.items()}, indent=1))


def read_comparisons(path: Path) -> Dict[str, Comparison]:
    """The comparisons by name that were written to a file.

    Raises:
        UserError: where it is damaged, or refers to anything outside its folder, or comes from an earlier version.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        if any("cells" in one for one in found.values()):
            raise UserError(f"{path} was written by an earlier version; give another --output, or delete {path.parent}")
        return {name: _comparison(one) for name, one in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged; delete it, or give another --output") from None


def _comparison(record: Dict[str, Any]) -> Comparison:
    """Raises ValueError, LookupError, TypeError or AttributeError where the record is of another form."""
    found = Comparison(**{**record, "files": [Link(*link) for link in record["files"]]})
    paths = [*(getattr(found, name) for name in _PICTURES), *(link.path for link in found.files)]
    for text in [found.name, found.title, *paths, *(text for link in found.files for text in link)]:
        text.encode("utf-8")  # there are halves of characters that cannot be written
    if any(path.startswith("/") or ".." in PurePosixPath(path).parts for path in paths):
        raise ValueError("a path that leads out of the folder")
    return found


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _url(path: str) -> str:
    return escape(quote(path))


def _links(sections: Sequence[Section]) -> str:
    if len(sections) < 2:
        return ""
    links = (f'<a href="#section{i}">{escape(section.heading)}</a>' for i, section in enumerate(sections))
    return f"<nav>{' '.join(links)}</nav>\n"


def _section(folder: Path, anchor: str, section: Section) -> List[str]:
    lines = [f'<section id="{anchor}">\n<h2>{escape(section.heading)}</h2>']
    if section.text:
        lines.append(f"<p>{escape(section.text)}</p>")
    lines += _table(section.table)
    lines += [_row(folder, row, section.wide) for row in section.rows]
    if section.comparisons:
        lines += ['<div class="gallery">', *(_card(folder, one) for one in section.comparisons), "</div>"]
    return [*lines, "</section>"]


def _table(rows: Sequence[Sequence[str]]) -> List[str]:
    """Lines of HTML; none for an empty table."""
    if not rows:
        return []
    header, *lines = (
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
        for tag, cells in zip(["th", *["td"] * len(rows)], rows)
    )
    return [f'<div class="table"><table><thead>{header}</thead>', *lines, "</table></div>"]


def _row(folder: Path, row: Row, wide: bool) -> str:
    kind = "cells wide" if wide else "cells"
    cells = "".join(
        f"<figure>{_image(folder, path, f'{row.title}: {caption}')}<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, path in row.cells
    )
    heading = f"<h3>{escape(row.title)}</h3>" if row.title else ""
    return f'<div class="row">{heading}<div class="{kind}">{cells}</div></div>'


def _chip(colour: str) -> str:
    """A spot of a colour; drawn, since the page's policy forbids styles that are written beside the text."""
    spot = '<svg viewBox="0 0 10 10" aria-hidden="true"><rect x="1" y="1" width="8" height="8" rx="2" fill="{}"/></svg>'
    return spot.format(escape(colour)) if colour else ""


def _card(folder: Path, one: Comparison) -> str:
    name = escape(one.name)
    slider = (
        '<input class="js" type="range" min="0" max="100" value="0" autocomplete="off" '
        f'aria-label="Lay the input over the translation of {name}, in percent"><span class="handle js"></span>'
    )
    before = _figure(folder, f"{one.name}: input", "input", one.before, one.outlines_before)
    after = _figure(folder, f"{one.name}: translation", "translation", one.after, one.outlines_after, slider)
    files = " ".join(f'<a href="{_url(f.path)}">{_chip(f.colour)}{escape(f.caption)}</a>' for f in one.files)
    return (
        f'<article data-name="{name}"><h3 dir="auto" title="{escape(one.title)}">{escape(one.title)}</h3>'
        f'<div class="pair">{before}{after}</div>' + (f'<p class="files">{files}</p>' if files else "") + "</article>"
    )


def _figure(folder: Path, alt: str, caption: str, source: str, outlines: str, slider: str = "") -> str:
    over = f'<img class="outlines" src="{_url(outlines)}" alt="" loading="lazy">' if outlines else ""
    return (
        f'<figure><div class="picture"><a href="{_url(source)}">{_image(folder, source, alt)}{over}</a>{slider}</div>'
        f'<figcaption><a href="{_url(source)}">{caption}</a></figcaption></figure>'
    )


def _image(folder: Path, source: str, alt: str) -> str:
    """A picture that is loaded when it is near; with its size, so that nothing moves when it comes."""
    try:
        height, width = pictures.size_of(folder / source)
        size = f' width="{width}" height="{height}"'
    except (UserError, OSError):
        size = ""  # the page shows that it is missing
    return f'<img src="{_url(source)}" alt="{escape(alt)}"{size} loading="lazy">'
