# SPDX-License-Identifier: Apache-2.0
"""A page of pictures, in one HTML file that opens from disk and refers to nothing outside its folder.

gallery.css and the scripts are copied into the page, which needs no network, and no JavaScript to show all its pictures
(of slides, the last).
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

STYLE = Path(__file__).with_name("gallery.css")
SCRIPT = Path(__file__).with_name("gallery.js")
SLIDES_SCRIPT = Path(__file__).with_name("slides.js")

TOOLS = """<div class="tools">
<label class="js">Filter by name <input type="search" id="filter" autocomplete="off" spellcheck="false"></label>
<output class="js" id="count" for="filter"></output>
<label><input type="checkbox" id="outlines" autocomplete="off" checked> Outlines of the instances</label>
{links}</div>
<p class="js">Drag the handle between two pictures, or move it with the arrow keys, to show the input over its
translation; click a picture to enlarge it.</p>"""

VIEWER = """<dialog id="viewer" aria-label="One picture, enlarged">
<p><button type="button" id="previous">← Previous</button> <button type="button" id="next" autofocus>Next →</button>
<button type="button" id="toggle">Outlines</button> <button type="button" id="close">Close</button></p>
<div id="enlarged"></div></dialog>"""

_PICTURES = ("before", "after", "outlines_before", "outlines_after")


@dataclass(frozen=True)
class Row:
    """One row of the page: a title, and (caption, path of a picture relative to the page) for each cell."""

    title: str
    cells: Sequence[Tuple[str, str]]


class Link(NamedTuple):
    """A link to a file: a caption, its path relative to the page, and the colour of its instance ("#rrggbb" or empty)
    in the pictures."""

    caption: str
    path: str
    colour: str = ""


@dataclass(frozen=True)
class Comparison:
    """A picture and its translation: its name, which the page can filter by, a title, and paths relative to the page.

    `outlines_before` and `outlines_after` are transparent pictures of the same proportions (`outline_masks`), shown
    over the input `before` and the translation `after`; empty where there are none. `files` are links below the
    pictures, such as to each mask.
    """

    name: str
    title: str
    before: str
    after: str
    outlines_before: str
    outlines_after: str
    files: Sequence[Link] = ()

    def under(self, folder: str) -> Comparison:
        """The same comparison for a page in the parent of the folder named `folder`."""
        return replace(
            self,
            files=[link._replace(path=f"{folder}/{link.path}") for link in self.files],
            **{name: f"{folder}/{path}" for name in _PICTURES if (path := getattr(self, name))},
        )


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph (may be empty), a table whose first row is its header, rows of pictures (large if `wide`),
    and pictures to compare.

    `slides` are (caption, path) of pictures of one size that are shown one at a time, the last one first; `commands`
    are (label, command). A table that is `folded` is shown by a click.
    """

    heading: str
    text: str
    rows: Sequence[Row] = ()
    wide: bool = False
    table: Sequence[Sequence[str]] = ()
    comparisons: Sequence[Comparison] = ()
    slides: Sequence[Tuple[str, str]] = ()
    commands: Sequence[Tuple[str, str]] = ()
    folded: bool = False


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page; all text from outside, such as file names, is escaped."""
    style = "\n" + STYLE.read_text("utf-8")
    has_comparisons = any(section.comparisons for section in sections)
    has_slides = any(section.slides for section in sections)
    needed = [script for script, is_needed in ((SCRIPT, has_comparisons), (SLIDES_SCRIPT, has_slides)) if is_needed]
    scripts = ["\n" + script.read_text("utf-8") for script in needed]
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    # a second line of defence: no other script runs, and only pictures beside the page are loaded
    policy = f"default-src 'none'; img-src 'self' file:; style-src {_hash(style)}; script-src {allowed}"
    body = [
        line for i, section in enumerate(sections) for line in _section(Path(path).parent, f"section{i}", section)
    ]
    page = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}; base-uri 'none'; form-action 'none'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{style}</style></head>\n<body>\n<h1>{escape(title)}</h1>",
        TOOLS.format(links=_links(sections)) if has_comparisons else "",
        *body,
        VIEWER if has_comparisons else "",
        *(f"<script>{script}</script>" for script in scripts),
        "</body></html>\n",
    ]
    files.write_text(path, "\n".join(filter(None, page)))


def write_comparisons(path: Path, comparisons: Dict[str, Comparison]) -> None:
    """Write comparisons by name as JSON, for `read_comparisons`."""
    records = {name: asdict(comparison) for name, comparison in comparisons.items()}
    files.write_text(path, json.dumps(records, indent=1))


def read_comparisons(path: Path) -> Dict[str, Comparison]:
    """Read comparisons by name from a file of `write_comparisons`.

    Raises:
        UserError: where it is damaged, refers to a file outside its folder, or is of an earlier version.
    """
    try:
        records = json.loads(path.read_text("utf-8"))
        if any("cells" in record for record in records.values()):
            raise UserError(f"{path} was written by an earlier version; give another --output, or delete {path.parent}")
        return {name: _comparison(record) for name, record in records.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged; delete it, or give another --output") from None


def _comparison(record: Dict[str, Any]) -> Comparison:
    """Raises ValueError, LookupError, TypeError or AttributeError where the record is of another form."""
    comparison = Comparison(**{**record, "files": [Link(*link) for link in record["files"]]})
    paths = [*(getattr(comparison, name) for name in _PICTURES), *(link.path for link in comparison.files)]
    for text in [comparison.name, comparison.title, *paths, *(text for link in comparison.files for text in link)]:
        text.encode("utf-8")  # raises for lone surrogates, which cannot be written into a page
    if any(path.startswith("/") or ".." in PurePosixPath(path).parts for path in paths):
        raise ValueError("a path that leads out of the folder")
    return comparison


def _hash(text: str) -> str:
    """The name of an inline style or script in a Content-Security-Policy."""
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
    if section.slides:
        lines.append(_slides(folder, section))
    table = _table(section.table)
    lines += ["<details><summary>Show the table</summary>", *table, "</details>"] if section.folded else table
    lines += [_row(folder, row, section.wide) for row in section.rows]
    lines += [_command(*command) for command in section.commands]
    if section.comparisons:
        cards = [_card(folder, comparison) for comparison in section.comparisons]
        lines += ['<div class="gallery">', *cards, "</div>"]
    return [*lines, "</section>"]


def _slides(folder: Path, section: Section) -> str:
    """The last of a section's slides, with a slider for the others."""
    name = escape(section.heading)
    last = len(section.slides) - 1
    caption, path = section.slides[last]
    slides = escape(json.dumps([(one, quote(source)) for one, source in section.slides]))
    slider = (
        f'<input class="js" type="range" min="0" max="{last}" value="{last}" autocomplete="off" '
        f'aria-label="{name}: which one is shown" aria-valuetext="{escape(caption)}">'
    )
    return (
        f'<div class="row slides" data-name="{name}" data-slides="{slides}"><figure><a href="{_url(path)}">'
        f"{_image(folder, path, f'{section.heading}, {caption}')}</a>"
        f"<figcaption>{escape(caption)}</figcaption></figure>{slider if last else ''}</div>"
    )


def _command(label: str, command: str) -> str:
    return f'<div class="row"><h3>{escape(label)}</h3><pre><code>{escape(command)}</code></pre></div>'


def _table(rows: Sequence[Sequence[str]]) -> List[str]:
    """Lines of HTML; none for an empty table."""
    if not rows:
        return []
    header = _table_row(rows[0], "th")
    lines = [_table_row(cells, "td") for cells in rows[1:]]
    return [f'<div class="table"><table><thead>{header}</thead>', *lines, "</table></div>"]


def _table_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _row(folder: Path, row: Row, wide: bool) -> str:
    kind = "cells wide" if wide else "cells"
    cells = ""
    for caption, path in row.cells:
        image = _image(folder, path, ": ".join(filter(None, (row.title, caption))))
        cells += f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
    heading = f"<h3>{escape(row.title)}</h3>" if row.title else ""
    return f'<div class="row">{heading}<div class="{kind}">{cells}</div></div>'


def _card(folder: Path, comparison: Comparison) -> str:
    name = escape(comparison.name)
    title = escape(comparison.title)
    slider = (
        '<input class="js" type="range" min="0" max="100" value="0" autocomplete="off" '
        f'aria-label="Part of the input shown over the translation of {name}, in percent">'
        '<span class="handle js"></span>'
    )
    before = _figure(
        folder, f"{comparison.name}: input", "input", comparison.before, comparison.outlines_before
    )
    after = _figure(
        folder, f"{comparison.name}: translation", "translation", comparison.after, comparison.outlines_after, slider
    )
    links = " ".join(_link(link) for link in comparison.files)
    footer = f'<p class="files">{links}</p>' if links else ""
    return (
        f'<article data-name="{name}"><h3 dir="auto" title="{title}">{title}</h3>'
        f'<div class="pair">{before}{after}</div>{footer}</article>'
    )


def _link(link: Link) -> str:
    return f'<a href="{_url(link.path)}">{_chip(link.colour)}{escape(link.caption)}</a>'


def _chip(colour: str) -> str:
    """A spot of a colour, as SVG because the page's policy forbids style attributes."""
    if not colour:
        return ""
    square = f'<rect x="1" y="1" width="8" height="8" rx="2" fill="{escape(colour)}"/>'
    return f'<svg viewBox="0 0 10 10" aria-hidden="true">{square}</svg>'


def _figure(folder: Path, alt: str, caption: str, source: str, outlines: str, slider: str = "") -> str:
    over = f'<img class="outlines" src="{_url(outlines)}" alt="" loading="lazy">' if outlines else ""
    return (
        f'<figure><div class="picture"><a href="{_url(source)}">{_image(folder, source, alt)}{over}</a>{slider}</div>'
        f'<figcaption><a href="{_url(source)}">{caption}</a></figcaption></figure>'
    )


def _image(folder: Path, source: str, alt: str) -> str:
    """A picture that is loaded when it scrolls near; its size is given, so that nothing moves when it arrives."""
    try:
        height, width = pictures.size_of(folder / source)
        size = f' width="{width}" height="{height}"'
    except (UserError, OSError):
        size = ""  # the browser shows that it is missing
    return f'<img src="{_url(source)}" alt="{escape(alt)}"{size} loading="lazy">'
