"""Write one HTML page on which an embedded folder is looked at.

The page has a zoomable map of the images, coloured by folder, a thumbnail under the mouse,
the neighbours of a clicked image, near-duplicates and outliers. It is one file; it needs no
server and no network.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from simclr_mm.commands import command_line
from simclr_mm.commands.embed.retrieval import FeatureIndex
from simclr_mm.commands.explore.neighbourhoods import nearest
from simclr_mm.commands.explore.page import Shown, page
from simclr_mm.commands.explore.thumbnails import sheets
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import write_text
from simclr_mm.files.installed import optional_package
from simclr_mm.files.walk import printable
from simclr_mm.visualization.scatter import METHODS, NAMES, project
from simclr_mm.visualization.style import plain


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, '--seed')
    add, at_least = parser.add_argument, command_line.at_least
    add('index', help='folder that simclr-mm embed wrote')
    add('--method', choices=METHODS, default='tsne', help='of the map; pca is the fastest')
    drawn = 'more are drawn from at random; the page has up to 2 kB an image'
    add('--max-images', type=at_least(4), default=10_000, help=drawn)
    add('-k', type=at_least(1), default=12, help='neighbours of an image')
    add('--out', metavar='HTML', help='default: explore.html in the folder')
    args = parser.parse_args(argv)

    optional_package('bokeh', 'explore', 'simclr-mm explore')
    index = FeatureIndex(args.index)
    out = command_line.out_file(args.out or Path(args.index, 'explore.html'))
    if out.suffix.lower() not in ('.html', '.htm'):
        raise UserError(f'{out}: the page is HTML, name it .html')
    readable = np.flatnonzero(np.isfinite(index.features).all(axis=1))
    if len(readable) < 4:
        raise UserError(f'{args.index} holds {len(readable)} readable images: a map needs 4')
    most = min(len(readable), args.max_images)
    rows = np.sort(np.random.default_rng(args.seed).choice(readable, most, replace=False))
    features = np.array(index.features[rows])  # (n, C)
    points = project(features, args.method, args.seed)
    pictures = (index.picture(row) for row in track(rows.tolist(), 'thumbnails'))
    shown = Shown(
        title=plain(printable(index.folder.name)),
        about=_about(index, len(rows), args.method),
        names=[plain(printable(index.names[row])) for row in rows],
        points=points,
        neighbours=nearest(features, min(args.k, len(rows) - 1)),
        sheets=sheets(pictures, len(rows)),
    )
    write_text(out, page(shown))
    missing = len(shown.sheets.unreadable)
    if missing:
        print(f'{missing} of the images cannot be read any more: they have no thumbnail')
    print(f'{printable(str(out))}: {shown.about}; {out.stat().st_size / 1e6:.1f} MB')


def _about(index: FeatureIndex, shown: int, method: str) -> str:
    """What is shown, and what is not."""
    total, unreadable = len(index.features), index.record['unreadable']
    parts = [f'{shown:,} of {total:,} images' if shown < total else f'{total:,} images']
    if unreadable:
        parts.append(f'{unreadable:,} unreadable')
    width = index.features.shape[1]
    return ', '.join([*parts, f'{width:,} features each, placed by {NAMES[method]}'])
