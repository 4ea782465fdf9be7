"""What all pictures have in common: colours, fonts and how a file is written."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008: told apart with any colour vision. Two
# more make ten: wine, of Paul Tol's "muted" scheme, and a grey.
COLOURS = (
    '#0072B2',
    '#E69F00',
    '#009E73',
    '#CC79A7',
    '#56B4E9',
    '#D55E00',
    '#F0E442',
    '#000000',
    '#882255',
    '#999999',
)
MARKERS = ('o', '^', 's')
FONT = {'font.size': 11, 'axes.titlesize': 12, 'figure.titlesize': 14, 'legend.fontsize': 10}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts keep clear of each other."""
    return Figure(figsize=(width, height), layout='constrained')


def mark(index: int) -> tuple[str, str]:
    """Colour and marker of a class; 30 classes look different, neighbours in both."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure, by default as PNG, and make its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def style() -> matplotlib.RcParams:
    """A context in which pictures have their fonts."""
    return matplotlib.rc_context(FONT)
