"""Shared parts of all pictures: colours, fonts, names and writing the file."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from simclr_mm.errors import UserError, escaped
from simclr_mm.files.atomic import atomic_file

# Okabe and Ito, "Color Universal Design", 2008: distinct for any colour vision. Two more
# make ten: wine, from Paul Tol's "muted" scheme, and a grey.
COLOURS = (
    *('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9'),
    *('#D55E00', '#F0E442', '#000000', '#882255', '#999999'),
)
MARKERS = ('o', '^', 's')


def mark(index: int) -> tuple[str, str]:
    """Colour and marker of a class. 30 classes look different, and neighbours differ in both."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def plain(name: str) -> str:
    """A user's name, such as a folder's, as one line of text for a picture.

    A control character or a byte that is not UTF-8 becomes its escape. Legends leave out
    names that begin with an underscore, so these get a space in front.
    """
    shown = escaped(name)
    return f' {shown}' if shown.startswith('_') else shown


def format_of(file: str | Path) -> str:
    """The ending of a picture without its dot, or ''.

    Raises:
        UserError: No picture is written with this ending.
    """
    ending = Path(file).suffix[1:].lower()
    if ending not in {'', *FigureCanvasBase.get_supported_filetypes()}:
        raise UserError(f'{file}: .{ending} is no picture format: use .png, .svg or .pdf')
    return ending


@contextmanager
def picture(
    file: str | Path | BytesIO, width: float, height: float, title: str = '', dpi: int = 110
) -> Iterator[Figure]:
    """A figure, in inches, that is written when the block ends, by default as PNG.

    The ending of ``file`` is the format. Its folder is created. No text is read as a formula.
    """
    ending = '' if isinstance(file, BytesIO) else format_of(file)
    if not isinstance(file, BytesIO) and Path(file).is_dir():
        raise UserError(
            f'{Path(file)} is a folder: name a file in it, such as {Path(file, "picture.png")}'
        )
    with matplotlib.rc_context(
        {
            'font.size': 11,
            'axes.titlesize': 12,
            'figure.titlesize': 14,
            'legend.fontsize': 10,
            'text.parse_math': False,
        }
    ):
        figure = Figure(figsize=(width, height), layout='constrained')  # without overlaps
        figure.suptitle(title)
        yield figure
        with nullcontext(file) if isinstance(file, BytesIO) else atomic_file(file) as target:
            figure.savefig(target, dpi=dpi, format=ending or 'png')
