"""Draw data_flow.png: what happens to a batch between the files and a checkpoint.

Usage: python docs/images/draw_data_flow.py
The photograph is scikit-learn's china.jpg (danielbuechele, CC BY 2.0).
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from sklearn.datasets import load_sample_image

from simclr_mm.datasets import SampleIndex
from simclr_mm.transforms import TwoViews

BLUE, ORANGE, GREEN, INK = '#2f6db5', '#bf5b17', '#33804a', '#22303c'
WIDTH, HEIGHT = 2.25, 1.25  # of a box
SEED = 29  # gives two views that both show what was done to them
TOP, LOW = 4.35, 0.9  # middle of the upper row, bottom of the boxes below
# Left edge, colour, title and text of the boxes in the lower row, and what leaves them.
BOXES = (
    (
        0.35,
        ORANGE,
        'ViewsPreprocessor',
        'colour, blur of ViewsToMake;\nBGR to RGB, mean and std',
        '(n, V, 3, S, S)\nfloat32 RGB',
    ),
    (
        3.45,
        ORANGE,
        'SimCLR',
        'backbone, pool, neck:\nall views in one pass',
        '(n, V, d)\nprojections',
    ),
    (
        6.55,
        ORANGE,
        'NTXentHead',
        'nt_xent: own views against\nthose of all ranks',
        'loss; to log: top1,\npos_sim, neg_sim',
    ),
    (9.65, GREEN, 'LARS', 'one step,\nsaved by CheckpointHook', ''),
)


def photograph() -> np.ndarray:
    """(H, W, 3) uint8 BGR."""
    return np.ascontiguousarray(load_sample_image('china.jpg')[..., ::-1])


def views() -> np.ndarray:
    """(2, 200, 200, 3) uint8 RGB."""
    transform = TwoViews(
        size=200,
        scale=(0.15, 0.5),
        transforms=[
            dict(type='ColorDistortion', strength=0.8, gray_prob=0.0),
            dict(type='RandomGaussianBlur'),
        ],
    )
    index = SampleIndex(0, seed=SEED)
    both = transform(dict(img=photograph(), sample_idx=index))['img']  # (2, 3, S, S)
    return both[:, ::-1].transpose(0, 2, 3, 1)


def box(axes: Axes, left: float, bottom: float, colour: str, title: str, text: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom),
            WIDTH,
            HEIGHT,
            boxstyle='round,pad=0,rounding_size=0.12',
            facecolor=colour,
            edgecolor='none',
        )
    )
    centre = left + WIDTH / 2
    style = dict(ha='center', va='center', color='white')
    axes.text(centre, bottom + 0.92, title, fontsize=13, weight='bold', **style)
    axes.text(centre, bottom + 0.43, text, fontsize=10.5, **style)


def arrow(axes: Axes, *points: tuple) -> None:
    """A line through the points with a head at the last."""
    axes.plot(*np.transpose(points[:-1]), color=INK, linewidth=1.6)
    axes.add_patch(
        FancyArrowPatch(
            points[-2],
            points[-1],
            arrowstyle='-|>',
            mutation_scale=17,
            color=INK,
            linewidth=1.6,
            shrinkA=0,
            shrinkB=0,
        )
    )


def picture(axes: Axes, image: np.ndarray, left: float, bottom: float, width: float) -> None:
    height = width * image.shape[0] / image.shape[1]
    axes.imshow(image, extent=(left, left + width, bottom, bottom + height), zorder=2)


def label(axes: Axes, x: float, y: float, text: str, **style) -> None:
    axes.text(
        x,
        y,
        text,
        ha='center',
        va='center',
        color=style.pop('color', INK),
        fontsize=style.pop('fontsize', 10.5),
        **style,
    )


def draw_worker(axes: Axes) -> None:
    picture(axes, photograph()[..., ::-1], 0.35, TOP - 0.75, 2.25)
    label(axes, 1.48, TOP + 1.0, 'file', fontsize=13, weight='bold')
    label(axes, 5.35, TOP + 1.55, 'TwoViews', fontsize=13, weight='bold')
    for view, bottom in zip(views(), (TOP + 0.06, TOP - 1.31)):
        picture(axes, view, 4.73, bottom, 1.25)
        arrow(axes, (2.7, TOP), (4.63, bottom + 0.62))
        arrow(axes, (6.08, bottom + 0.62), (7.75, TOP))
    label(axes, 3.45, TOP + 0.85, 'decode once')
    label(
        axes,
        3.25,
        TOP - 1.12,
        'crop, flip, colour, blur:\na function of (seed,\nepoch, image, view)',
    )
    box(axes, 7.85, TOP - HEIGHT / 2, BLUE, 'collate', 'one tensor with\na views axis')
    arrow(
        axes,
        (10.1, TOP),
        (11.05, TOP),
        (11.05, 2.52),
        (0.15, 2.52),
        (0.15, LOW + HEIGHT / 2),
        (0.35, LOW + HEIGHT / 2),
    )
    label(axes, 11.05, TOP + 0.4, '(n, V, 3, S, S)\nuint8 BGR', family='monospace')
    label(axes, 9.2, TOP - 1.2, "with augment='device': ViewsToMake,\ncrops and drawn numbers")


def draw_device(axes: Axes) -> None:
    middle = LOW + HEIGHT / 2
    for left, colour, title, text, leaves in BOXES:
        box(axes, left, LOW, colour, title, text)
        if leaves:
            arrow(axes, (left + WIDTH, middle), (left + 3.1, middle))
            label(axes, left + WIDTH + 0.42, LOW - 0.3, leaves, family='monospace')
    label(axes, 11.1, LOW - 0.3, 'epoch_k.pth\nbackbone.* neck.*', family='monospace')


def main() -> None:
    matplotlib.rcParams['font.size'] = 11
    figure = Figure(figsize=(12.2, 6.4), facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    for bottom, height, colour, name in (
        (2.72, 3.6, BLUE, 'loader workers'),
        (0.08, 2.24, ORANGE, 'CPU or GPU'),
    ):
        axes.add_patch(
            FancyBboxPatch(
                (0.05, bottom),
                12.1,
                height,
                boxstyle='round,pad=0,rounding_size=0.15',
                facecolor=colour,
                alpha=0.07,
                edgecolor='none',
            )
        )
        edge = bottom + height - 0.25 if colour == BLUE else bottom + 0.22
        axes.text(0.35, edge, name, va='center', color=colour, fontsize=12)
    draw_worker(axes)
    draw_device(axes)
    axes.set(xlim=(0, 12.2), ylim=(0, 6.4), aspect='equal')
    axes.axis('off')
    figure.savefig(Path(__file__).with_name('data_flow.png'), dpi=120)


if __name__ == '__main__':
    main()
