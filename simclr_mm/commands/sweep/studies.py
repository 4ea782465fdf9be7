"""The paper's studies as tables: the varied settings and their values.

Source: SimCLR, arXiv:2002.05709. Each study names its figure or table there.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from simclr_mm.errors import UserError
from simclr_mm.evaluation import Value

from . import cells
from .cells import Cell


class Axis(NamedTuple):
    """A setting that a study varies."""

    name: str  # for command lines, file names and tables
    label: str  # for figures, with the unit
    values: tuple[Value, ...]  # the paper's; names are limited to these, numbers are not
    whole: bool = True  # whether numbers have to be whole


class Study(NamedTuple):
    """A table of runs."""

    title: str  # its subject, and its place in the paper
    axes: tuple[Axis, ...]  # one or two settings that vary
    # Takes the config and the values of each axis; leaves out combinations without meaning
    cells: Callable[..., Iterator[Cell]]
    figure: str  # 'heat map', 'lines' or 'bars'


_NAMES = tuple(cells.TRANSFORMATIONS)
_BATCHES = Axis('batch', 'batch size', (256, 512, 1024, 2048, 4096, 8192))
STUDIES = {
    'augmentations': Study(
        'Composition of two augmentations (Fig. 5)',
        (Axis('first', '1st transformation', _NAMES), Axis('second', '2nd transformation', _NAMES)),
        cells.augmentations,
        'heat map',
    ),
    'color-strength': Study(
        'Strength of colour distortion (Table 1)',
        (Axis('strength', 'strength s of the colour distortion', tuple(cells.STRENGTHS)),),
        cells.color_strength,
        'bars',
    ),
    'head': Study(
        'Projection head (Fig. 8)',
        (
            Axis('head', 'projection head', ('none', 'linear', 'nonlinear')),
            Axis('width', 'width of the projection', (32, 64, 128, 256, 512, 1024, 2048)),
        ),
        cells.head,
        'bars',
    ),
    'depth-width': Study(
        'Depth and width (Fig. 7)',
        (
            Axis('width', "times the config's channels", (1, 2, 4), whole=False),
            Axis('depth', 'depth of the ResNet', (18, 34, 50, 101, 152)),
        ),
        cells.depth_width,
        'lines',
    ),
    'batch-epochs': Study(
        'Batch size and length of training (Fig. 9)',
        (_BATCHES, Axis('epochs', 'epochs', (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000))),
        cells.batch_epochs,
        'bars',
    ),
    'temperature': Study(
        'Temperature with and without L2 norm (Table 5)',
        (
            Axis('norm', 'projections', ('l2-norm', 'no-norm')),
            Axis('temperature', 'temperature', (0.05, 0.1, 0.5, 1, 10, 100), whole=False),
        ),
        cells.temperature,
        'bars',
    ),
    'objective': Study(
        'Objectives (Table 4)',
        (
            Axis('objective', 'objective', tuple(cells.OBJECTIVES)),
            Axis('setting', 'temperature or margin', cells.TEMPERATURES + cells.MARGINS),
        ),
        cells.objective,
        'heat map',
    ),
    'lr-scaling': Study(
        'Learning rate by batch (Appendix B.1)',
        (Axis('rule', 'scaling', ('linear', 'square-root')), _BATCHES),
        cells.lr_scaling,
        'lines',
    ),
}


def values_of(study: Study, asked: Mapping[str, object]) -> list[list[Value]]:
    """The values of each axis without repetitions: the requested ones, or the paper's."""
    names = [axis.name for axis in study.axes]
    for name in set(asked) - set(names):
        raise UserError(f'--values {name}: the axes of this study are {" and ".join(names)}')
    values = []
    for axis in study.axes:
        some = asked.get(axis.name, axis.values)
        some = some if isinstance(some, (list, tuple)) else [some]
        values.append(list(dict.fromkeys(_value(axis, value) for value in some)))
    return values


def _value(axis: Axis, value: object) -> Value:
    named = f'--values {axis.name}={value}'
    if isinstance(axis.values[0], str):
        if str(value) in axis.values:
            return str(value)
        raise UserError(f'{named}: choose from {", ".join(map(str, axis.values))}')
    allowed = int if axis.whole else (int, float)
    if isinstance(value, allowed) and not isinstance(value, bool) and 0 < value < math.inf:
        return value
    raise UserError(f'{named}: give {"whole numbers" if axis.whole else "numbers"} above 0')
