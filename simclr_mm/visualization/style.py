"""What all pictures have in common: colours, fonts, names and how a file is written."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file

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


def mark(index: int) -> tuple[str, str]:
    """Colour and marker of a class; 30 classes look different, neighbours in both."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def plain(name: str) -> str:
    """A name that somebody else chose, such as a folder's, as one line of a picture.

    A control character or a byte that is not UTF-8 becomes its escape. A legend leaves out
    names that begin with an underscore, so these begin with a space.
    """
    shown = ''.join(
        letter if letter.isprintable() else letter.encode('unicode_escape').decode()
        for letter in name
    )
    return f' {shown}' if shown.startswith('_') else shown


@contextmanager
def picture(
    file: str | Path | BytesIO, width: float, height: float, title: str = '', dpi: int = 110
) -> Iterator[Figure]:
    """A figure to draw in, which is written when the block ends, by default as PNG.

    A dollar sign is a dollar sign: no text is read as a formula.

    Args:
        file: Its folder is made. Its ending says the format.
        width: In inches.
        height: In inches.
        title: Of the whole figure.
        dpi: Pixels an inch.

    Raises:
        UserError: The file is a folder, or its ending is that of no format.
    """
    ending = '' if isinstance(file, BytesIO) else Path(file).suffix[1:].lower()
    if ending not in {'', *FigureCanvasBase.get_supported_filetypes()}:
        raise UserError(f'{file}: no picture is written as .{ending}: take .png, .svg or .pdf')
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
        # This layout keeps the parts clear of each other.
        figure = Figure(figsize=(width, height), layout='constrained')
        figure.suptitle(title)
        yield figure
        with nullcontext(file) if isinstance(file, BytesIO) else atomic_file(file) as target:
            figure.savefig(target, dpi=dpi, format=ending or 'png')
