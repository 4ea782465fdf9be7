"""Measure the bands of images, and write their mean and std as a config.

Percentiles, extremes, mean and std of each band, in the units of the files: TIFF, NumPy,
DICOM, PNG and others of any depth. One image at a time is in memory. After an
interruption the same command continues.
"""

from pathlib import Path

import numpy as np

from simclr_mm.apis.model_zoo import config_file
from simclr_mm.commands import command_line
from simclr_mm.errors import UserError, listed
from simclr_mm.files.atomic import write_text
from simclr_mm.files.walk import printable
from simclr_mm.transforms.load_bands import LAYOUTS

from .bands_config import completion_of, config_text
from .measuring import measure


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, '--workers')
    add = parser.add_argument
    add('data', nargs='+', help='folders of images, at any depth, and lists or tables of paths')
    add('--out', metavar='PY', default='bands.py', help='the config to write; default: bands.py')
    completed = 'a config for bands, which OUT then completes: train OUT'
    add('--base', metavar='CONFIG', help=completed)
    add('--bands', nargs='+', type=int, metavar='B', help='bands to take, from 0, in this order')
    add('--layout', choices=LAYOUTS, help='the axis of bands in arrays; default: auto')
    window = "cut values as DICOM's window does, in the units of the files"
    add('--window', nargs=2, type=float, metavar=('CENTRE', 'WIDTH'), help=window)
    add('--nan', type=float, help='the number that takes the place of NaN')
    add('--restart', action='store_true', help='begin again, whatever an earlier call has counted')
    args = parser.parse_args(argv)

    out = Path(args.out)
    if out.suffix != '.py':
        raise UserError(f'--out must end in .py, got {out}')
    command_line.out_file(out)
    base = config_file(args.base).resolve() if args.base else None
    given = dict(bands=args.bands, layout=args.layout, window=args.window, nan=args.nan)
    loading = {key: value for key, value in given.items() if value is not None}
    # Before the measuring, which may take hours.
    completion, of_base = completion_of(base, bool(loading)) if base else ([], {})
    reading = {**of_base, **loading}
    measured, unreadable = measure(args.data, reading, out, args.workers, args.restart)
    places = ' '.join(' '.join(map(printable, args.data)).split())  # one line, of a comment
    text = config_text(measured, places, reading if loading else {}, base, completion)
    write_text(out, text)
    print(text, end='')
    constant = np.flatnonzero(measured.std == 0).tolist()
    if constant:
        print(f'constant bands, with std 1 in the config: {listed(constant, 20)}; see --bands')
    if unreadable:
        print(f'{len(unreadable)} unreadable images are left out: {listed(unreadable)}')
    print(f'{printable(str(out))}: mean and std of {len(measured.mean)} band(s)')
