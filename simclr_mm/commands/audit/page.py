"""The findings of an audit as a page to look at, and as rows of a table."""

import html

import numpy as np

from simclr_mm.errors import UnreadableImage
from simclr_mm.files.walk import printable
from simclr_mm.visualization.gallery import thumbnail
from simclr_mm.visualization.page import jpeg_address, page_of, table_of
from simclr_mm.visualization.style import plain

from .duplicates import Pair
from .findings import KINDS, Audit

_SIDE = 128  # pixels of a picture on the page
_SHOWN = 100  # pairs or images of a kind on the page; the CSV has all

_TITLES = dict(
    leaks='Test images that also stand in the training images',
    duplicates='Copies within a folder',
    broken='Unreadable files',
    constant='Images that show nothing',
    tiny='Images of few pixels',
)
_LOOK = """
.verdict { font-size: 1.3em; } .note { color: #555; max-width: 60em; }
.pairs { display: flex; flex-wrap: wrap; gap: 1em; }
.pair { border: 1px solid #ccc; padding: .6em; } .pair p { margin: .4em 0 0; font-size: .85em; }
.sides { display: flex; gap: .6em; }
figure { margin: 0; width: 130px; }
figure img { height: 128px; width: 128px; object-fit: contain; background: #eee; }
figcaption { font-size: .75em; overflow-wrap: anywhere; color: #555; }
"""


def page(audit: Audit, verdict: str, facts: str, subset: np.ndarray) -> str:
    """One HTML file: what was found, pair by pair side by side."""
    counts = audit.counts()
    numbers = [[_TITLES[kind], str(counts[kind])] for kind in KINDS]
    body = [
        f'<p class="verdict">{html.escape(verdict)}</p>\n',
        f'<p class="note">{html.escape(facts)}</p>\n',
        table_of(['finding', 'images'], numbers, ['images']),
    ]
    for kind in ('leaks', 'duplicates'):
        pairs = audit.pairs_of(kind)
        shown = ''.join(_pair(audit, pair) for pair in pairs[:_SHOWN])
        body.append(_section(kind, len(pairs), 'pairs', shown))
    broken = audit.pictures.unreadable
    if broken:
        rows = [[_name(audit, row), plain(printable(why))] for row, why in broken.items()]
        body.append(
            _section('broken', len(rows), 'files', table_of(['file', 'reason'], rows[:_SHOWN]))
        )
    for kind, images in (('constant', audit.constant), ('tiny', audit.tiny)):
        shown = ''.join(_figure(audit, row) for row in images[:_SHOWN])
        body.append(_section(kind, len(images), 'images', shown))
    if len(subset):
        shown = ''.join(_figure(audit, row) for row in subset[:_SHOWN].tolist())
        body.append(
            f'<h2>A diverse subset of {len(subset)}</h2>\n<p class="note">The first '
            f'{min(_SHOWN, len(subset))}, in order; subset.csv has all.</p>\n'
            f'<div class="pairs">{shown}</div>\n'
        )
    return page_of('Audit of images', ''.join(body), _LOOK)


def _section(kind: str, count: int, what: str, shown: str) -> str:
    if not count:
        return ''
    more = f', of which {_SHOWN} are shown; findings.csv has all' if count > _SHOWN else ''
    return (
        f'<h2>{_TITLES[kind]}</h2>\n<p class="note">{count} {what}{more}</p>\n'
        f'<div class="pairs">{shown}</div>\n'
    )


def _pair(audit: Audit, pair: Pair) -> str:
    sides = _figure(audit, pair.first) + _figure(audit, pair.second)
    return (
        f'<div class="pair"><div class="sides">{sides}</div>'
        f'<p>{pair.kind}, likeness {pair.likeness:.3f}</p></div>\n'
    )


def _figure(audit: Audit, row: int) -> str:
    """The image with its name, folder and size, all without a link to a file."""
    name = html.escape(('test: ' if audit.in_test[row] else '') + _name(audit, row))
    width, height = audit.pictures.sizes[row]
    try:
        source = jpeg_address(thumbnail(audit.paths[row], _SIDE), quality=85)
    except UnreadableImage:  # changed meanwhile
        source = ''
    return (
        f'<figure><img alt="{name}" src="{source}">'
        f'<figcaption>{name}<br>{width} x {height}</figcaption></figure>'
    )


def _name(audit: Audit, row: int) -> str:
    return plain(printable(audit.names[row]))


def rows_of(audit: Audit) -> list[tuple[str, ...]]:
    """A row for each finding: finding, image, other, kind and likeness."""
    lines: list[tuple[str, ...]] = []
    for kind in ('leaks', 'duplicates'):
        for pair in audit.pairs_of(kind):
            ends = audit.paths[pair.first], audit.paths[pair.second]
            lines.append((kind, *map(printable, ends), pair.kind, f'{pair.likeness:.4f}'))
    for row, reason in audit.pictures.unreadable.items():
        lines.append(('broken', printable(audit.paths[row]), '', printable(reason), ''))
    for row in audit.constant:
        contrast = f'standard deviation {audit.pictures.contrast[row]:.2f}'
        lines.append(('constant', printable(audit.paths[row]), '', contrast, ''))
    for row in audit.tiny:
        width, height = audit.pictures.sizes[row]
        lines.append(('tiny', printable(audit.paths[row]), '', f'{width} x {height}', ''))
    return lines
