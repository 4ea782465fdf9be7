"""An HTML page that needs no other file. Every text in it may come from a stranger."""

import base64
import html
import io
from collections.abc import Callable, Container, Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .style import picture

_SCRIPT = """
for (const head of document.querySelectorAll('th')) head.onclick = () => {
  const body = head.closest('table').tBodies[0], column = head.cellIndex;
  const up = head.dataset.up = head.dataset.up === '1' ? '0' : '1';
  const text = row => row.cells[column].textContent;
  const order = body.rows[0].cells[column].className === 'number'
    ? (a, b) => parseFloat(text(a)) - parseFloat(text(b))
    : (a, b) => text(a).localeCompare(text(b), 'en', {numeric: true});
  const rows = [...body.rows].sort((a, b) => up === '1' ? order(a, b) : order(b, a));
  body.append(...rows);
};
"""
_LOOK = """
body { font: 15px sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; } th { cursor: pointer; background: #eee; }
th, td { padding: .3em .7em; border: 1px solid #ccc; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number, td.time { white-space: nowrap; }
img { display: block; max-width: 100%; }
"""


def page_of(title: str, body: str, look: str = '') -> str:
    """The page. ``body`` is HTML, in which names are escaped already; ``title`` is a text.

    A click on the header of a table's column sorts by it.
    """
    name = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8">'
        f'<title>{name}</title><style>{_LOOK}{look}</style>\n<h1>{name}</h1>\n'
        f'{body}<script>{_SCRIPT}</script></html>\n'
    )


def table_of(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Container[str] = ()
) -> str:
    """A table of texts. Columns in ``numbers`` are aligned and sorted as numbers."""
    head = ''.join(f'<th>{html.escape(name)}</th>' for name in columns)
    kinds = ['number' if name in numbers else html.escape(name) for name in columns]
    body = ''
    for row in rows:
        cells = (f'<td class="{kind}">{html.escape(cell)}</td>' for kind, cell in zip(kinds, row))
        body += f'<tr>{"".join(cells)}</tr>\n'
    return f'<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n'


def markdown_of(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Container[str] = ()
) -> str:
    """The table of :func:`table_of` in GitHub's Markdown."""
    rule = ['--:' if name in numbers else ':--' for name in columns]
    cells = ([cell.replace('|', '\\|').replace('\n', ' ') for cell in row] for row in rows)
    return ''.join(f'| {" | ".join(line)} |\n' for line in (columns, rule, *cells))


def figure_of(draw: Callable[[Figure], None], width: float, height: float, description: str) -> str:
    """An image element with what ``draw`` draws into a figure of this size in inches."""
    target = io.BytesIO()
    with picture(target, width, height, dpi=90) as figure:
        draw(figure)
    return f'<img alt="{html.escape(description)}" src="{_address(target, "png")}">\n'


def jpeg_address(pixels: np.ndarray, quality: int) -> str:
    """(H, W, 3) uint8 RGB as an address that holds the whole picture."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, 'JPEG', quality=quality)
    return _address(target, 'jpeg')


def _address(content: io.BytesIO, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}'
