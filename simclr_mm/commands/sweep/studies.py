"""The paper's studies as tables: what is varied, and over which values.

Source: SimCLR, arXiv:2002.05709. Each study names its figure or table there.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from simclr_mm.errors import UserError
from simclr_mm.evaluation import Value

from .cells import (
    MARGINS,
    OBJECTIVES,
    STRENGTHS,
    TEMPERATURES,
    TRANSFORMATIONS,
    Cell,
    augmentations,
    batch_epochs,
    color_strength,
    depth_width,
    head,
    lr_scaling,
    objective,
    temperature,
)


class Axis(NamedTuple):
    """One thing that a study varies.

    Args:
        name: For command lines, file names and tables.
        label: For figures, with the unit.
        values: The paper's. Of names these are all; other numbers may be asked for.
        whole: Numbers have to be whole ones.
    """

    name: str
    label: str
    values: tuple[Value, ...]
    whole: bool = True


class Study(NamedTuple):
    """A table of runs.

    Args:
        title: What is studied, and where the paper shows it.
        axes: What is varied, one or two.
        cells: Takes the config and the values of each axis, and gives the cells. It
            leaves out the combinations that make no sense.
        figure: 'heat map', 'lines' or 'bars'.
    """

    title: str
    axes: tuple[Axis, ...]
    cells: Callable[..., Iterator[Cell]]
    figure: str


_NAMES = tuple(TRANSFORMATIONS)
_BATCHES = Axis('batch', 'batch size', (256, 512, 1024, 2048, 4096, 8192))
STUDIES = {
    'augmentations': Study(
        'Composition of two augmentations (Fig. 5)',
        (Axis('first', '1st transformation', _NAMES), Axis('second', '2nd transformation', _NAMES)),
        augmentations,
        'heat map',
    ),
    'color-strength': Study(
        'Strength of colour distortion (Table 1)',
        (Axis('strength', 'strength s of the colour distortion', tuple(STRENGTHS)),),
        color_strength,
        'bars',
    ),
    'head': Study(
        'Projection head (Fig. 8)',
        (
            Axis('head', 'projection head', ('none', 'linear', 'nonlinear')),
            Axis('width', 'width of the projection', (32, 64, 128, 256, 512, 1024, 2048)),
        ),
        head,
        'bars',
    ),
    'depth-width': Study(
        'Depth and width (Fig. 7)',
        (
            Axis('width', "times the config's channels", (1, 2, 4), whole=False),
            Axis('depth', 'depth of the ResNet', (18, 34, 50, 101, 152)),
        ),
        depth_width,
        'lines',
    ),
    'batch-epochs': Study(
        'Batch size and length of training (Fig. 9)',
        (_BATCHES, Axis('epochs', 'epochs', (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000))),
        batch_epochs,
        'bars',
    ),
    'temperature': Study(
        'Temperature with and without L2 norm (Table 5)',
        (
            Axis('norm', 'projections', ('l2-norm', 'no-norm')),
            Axis('temperature', 'temperature', (0.05, 0.1, 0.5, 1, 10, 100), whole=False),
        ),
        temperature,
        'bars',
    ),
    'objective': Study(
        'Objectives (Table 4)',
        (
            Axis('objective', 'objective', tuple(OBJECTIVES)),
            Axis('setting', 'temperature or margin', TEMPERATURES + MARGINS),
        ),
        objective,
        'heat map',
    ),
    'lr-scaling': Study(
        'Learning rate by batch (Appendix B.1)',
        (Axis('rule', 'scaling', ('linear', 'square-root')), _BATCHES),
        lr_scaling,
        'lines',
    ),
}


def values_of(study: Study, asked: Mapping[str, object]) -> list[list[Value]]:
    """The values of each axis, each once: what was asked for, by its name, or else the paper's."""
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
