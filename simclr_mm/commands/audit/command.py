"""Find duplicates, leaks, broken, constant and tiny images before training.

Copies are found also if they are resized, re-encoded, cropped or mirrored. OUT/audit.html
shows them side by side, OUT/findings.csv lists them, OUT/subset.csv names K images that
differ most. The exit code is 0 for clean folders, 1 for more findings than --allow,
2 for a mistake.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simclr_mm.commands import command_line
from simclr_mm.commands.audit.findings import KINDS, Audit, audit, diverse
from simclr_mm.commands.audit.page import page, rows_of
from simclr_mm.commands.command_line.encoder_flags import (
    ENCODER,
    ENCODER_FLAGS,
    inferencer_of,
    or_default,
)
from simclr_mm.datasets import shard_dataset
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import write_csv, write_text
from simclr_mm.files.walk import printable, require_folder

_FINDINGS, _MISTAKE = 1, 2


def main(argv: Sequence[str] | None = None) -> None:
    try:
        _main(argv)
    except SystemExit as end:
        if not isinstance(end.code, str):
            raise
        print(end.code, file=sys.stderr)  # the one line of a mistake
        raise SystemExit(_MISTAKE) from end


@command_line.command
def _main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, *ENCODER_FLAGS, '--workers')
    add, positive = parser.add_argument, command_line.at_least(1)
    add('folder', help='any folder of images, at any depth')
    add('--test', metavar='DIR', help='test images, which must not stand in FOLDER')
    add('--checkpoint', help=f'the encoder that finds candidates, {ENCODER}')
    add('--subset', type=positive, metavar='K', help='write K images that differ most')
    add('--neighbours', type=positive, default=5, help='images that each image is compared with')
    add('--min-side', type=positive, default=16, help='pixels; smaller images are tiny')
    allowed = f'images that may be found of a kind, as KIND=N; kinds: {" ".join(KINDS)}; default: 0'
    add('--allow', nargs='+', action=command_line.KeyValues, default={}, help=allowed)
    add('--out', metavar='DIR', help='default: work_dirs/audit/<name of the folder>')
    args = parser.parse_args(argv)
    args.checkpoint = or_default(args.checkpoint)

    allow = _allowed(args.allow)
    folders = [args.folder, *([args.test] if args.test else [])]
    for folder in folders:
        require_folder(folder)
        if shard_dataset(folder):
            raise UserError(f'{folder} is a pack: audit the folder that it was packed from')
    if args.test and Path(args.test).resolve() == Path(args.folder).resolve():
        raise UserError(f'--test {args.test} is the folder itself: name other images')
    inferencer = inferencer_of(args)
    inferencer.encoder.require_rgb('an audit')
    default = Path('work_dirs', 'audit', Path(args.folder).resolve().name)
    out = command_line.out_folder(args.out or default)
    found = audit(inferencer, folders, out, args.neighbours, args.min_side, args.workers)
    subset = _subset(found, args.subset or 0, out)
    counts = found.counts()
    over = [kind for kind in KINDS if counts[kind] > allow[kind]]
    images = ' and '.join(
        f'{count} images of {printable(folder)}'
        for folder, count in zip(folders, (np.sum(~found.in_test), np.sum(found.in_test)))
    )
    numbers = ', '.join(f'{counts[kind]} {kind}' for kind in KINDS)
    verdict = f'{images}: {numbers}. ' + (
        f'More than allowed: {", ".join(over)}.' if over else 'Nothing beyond what is allowed.'
    )
    columns = 'finding', 'image', 'other', 'kind', 'likeness'
    write_csv(out / 'findings.csv', columns, rows_of(found))
    write_text(out / 'audit.html', page(found, verdict, _facts(args, allow), subset))
    print(verdict)
    print(f'{printable(str(out / "audit.html"))} shows them, findings.csv beside it lists them.')
    if over:
        raise SystemExit(_FINDINGS)


def _allowed(given: dict[str, object]) -> dict[str, int]:
    """The limit of each kind of finding."""
    for kind, most in given.items():
        if kind not in KINDS:
            raise UserError(f'--allow {kind}={most}: the kinds are {", ".join(KINDS)}')
        if type(most) is not int or most < 0:
            raise UserError(f'--allow {kind}={most}: give a whole number from 0')
    return {kind: int(str(given.get(kind, 0))) for kind in KINDS}


def _facts(args: argparse.Namespace, allow: dict[str, int]) -> str:
    limits = ', '.join(f'{kind} {most}' for kind, most in allow.items())
    return (
        f'Candidates: {args.neighbours} neighbours of each image, by the features of '
        f'{printable(args.checkpoint)} and by 8 x 8 pixels. Counted are leaks: test images; '
        f'duplicates: copies beyond the first. Allowed: {limits}.'
    )


def _subset(found: Audit, k: int, out: Path) -> np.ndarray:
    """Rows of the diverse subset, and its file. Copies and useless images have no place in it."""
    rows = found.sound() if k else np.empty(0, np.int64)
    rows = rows[~found.in_test[rows]]
    if k > len(rows):
        raise UserError(
            f'--subset {k}: there are {len(rows)} different images of use: ask for fewer'
        )
    if not k:
        return rows
    chosen, distances = diverse(found.features[rows], k)
    lines = [
        (rank, printable(found.paths[row]), f'{distance:.4f}')
        for rank, (row, distance) in enumerate(zip(rows[chosen].tolist(), distances), start=1)
    ]
    write_csv(out / 'subset.csv', ('rank', 'image', 'distance'), lines)
    return rows[chosen]
