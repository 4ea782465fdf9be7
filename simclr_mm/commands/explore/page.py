"""The page: data, Bokeh's map and one template, in one file.

Names of files and folders are hostile text. They stand in one place, a JSON block without '<',
and the script writes them as text, never as HTML. Bokeh gets numbers only, and the page's
policy lets nothing be fetched.
"""

import base64
import html
import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from simclr_mm.visualization.style import COLOURS

from .neighbourhoods import Neighbours, far_from_all, most_alike
from .thumbnails import Sheets

_TEMPLATE = Path(__file__).with_name('page.html')
_LISTED = 60  # pairs, and outliers
_TOP = '(top)'  # the name of the embedded folder itself


class Shown(NamedTuple):
    """What the page shows, n images in one order."""

    title: str
    about: str  # one line
    names: list[str]  # of the images, below the embedded folder
    points: np.ndarray  # (n, 2)
    neighbours: Neighbours
    sheets: Sheets


def page(shown: Shown) -> str:
    """The HTML of the page."""
    from bokeh.resources import Resources

    alike = most_alike(shown.neighbours, _LISTED)
    data = dict(
        names=shown.names,
        groupings=_groupings(shown.names),
        colours=COLOURS,
        sheets=shown.sheets._asdict(),
        k=shown.neighbours.rows.shape[1],
        neighbours=_base64(shown.neighbours.rows.astype('<i4')),
        cosines=_base64(shown.neighbours.cosines.astype('<f4')),
        alike=[(first, second, round(cosine, 4)) for first, second, cosine in alike],
        far=[(row, round(mean, 4)) for row, mean in far_from_all(shown.neighbours, _LISTED)],
        map=_map(shown.points),
    )
    parts = dict(
        title=html.escape(shown.title),
        about=html.escape(shown.about),
        bokeh=Resources(mode='inline', components=['bokeh', 'bokeh-gl']).render_js(),
        data=json.dumps(data).replace('<', '\\u003c'),
    )
    # In one pass, so that nothing in a part is taken for the name of another.
    return re.sub(r'\{\{(\w+)\}\}', lambda found: parts[found[1]], _TEMPLATE.read_text())


def _groupings(names: list[str]) -> list[dict[str, Any]]:
    """Ways to colour the images: by their folder and, if folders are nested, the outer one."""
    parents = [PurePosixPath(name).parent.parts for name in names]
    found = [_grouping('folder', ['/'.join(parts) or _TOP for parts in parents])]
    if any(len(parts) > 1 for parts in parents):
        found.append(_grouping('outer folder', [(*parts, _TOP)[0] for parts in parents]))
    return found


def _grouping(name: str, groups: list[str]) -> dict[str, Any]:
    """Groups from the largest to the smallest, and the group of each image."""
    labels = sorted(counts := Counter(groups), key=lambda group: (-counts[group], group))
    place = {label: i for i, label in enumerate(labels)}
    return dict(name=name, labels=labels, of=[place[group] for group in groups])


def _map(points: np.ndarray) -> Any:
    """Bokeh's plot as JSON data. The script of the page colours it and listens to it."""
    from bokeh.embed import json_item
    from bokeh.models import ColumnDataSource, CustomJS, HoverTool, TapTool
    from bokeh.plotting import figure

    n = len(points)
    source = ColumnDataSource(
        dict(
            x=points[:, 0].astype(np.float32),
            y=points[:, 1].astype(np.float32),
            colour=['#999999'] * n,
            alpha=np.full(n, 0.8, np.float32),
        ),
        name='images',
    )
    rings = ColumnDataSource(dict(x=[], y=[], colour=[]), name='rings')
    plot = figure(
        sizing_mode='stretch_both',
        output_backend='webgl',
        tools='pan,wheel_zoom,box_zoom,reset',
        active_scroll='wheel_zoom',
        match_aspect=True,
        toolbar_location='above',
    )
    plot.toolbar.logo = None
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = None
    size = float(np.clip(500 / np.sqrt(n), 5, 13))  # pixels
    look: dict[str, Any] = dict(color='colour', line_color='#333333', line_width=0.3)
    look.update(fill_alpha='alpha', line_alpha='alpha')
    dots = plot.scatter('x', 'y', source=source, size=size, **look)
    dots.nonselection_glyph = dots.selection_glyph = None
    ring: dict[str, Any] = dict(fill_color=None, line_color='colour', line_width=2.5)
    plot.scatter('x', 'y', source=rings, size=size + 9, **ring)
    hover = CustomJS(code='explore.hover(cb_data.index.indices, cb_data.geometry)')
    plot.add_tools(HoverTool(renderers=[dots], tooltips=None, callback=hover))
    plot.add_tools(TapTool(renderers=[dots]))
    source.selected.js_on_change('indices', CustomJS(code='explore.tapped(cb_obj.indices)'))
    return json_item(plot)


def _base64(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode()
