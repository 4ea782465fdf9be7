"""Write the features of every image in a folder to a file.

OUT/features.npy has one row for each image, OUT/paths.json names the images in the same
order, OUT/errors.jsonl lists unreadable images (their rows are NaN), and
OUT/embedding.json records the encoder and its settings. After an interruption the same
command continues.
"""

import json
import time
from pathlib import Path

import numpy as np

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.encoder_flags import (
    ENCODER,
    ENCODER_FLAGS,
    inferencer_of,
    or_default,
    origin_of,
)
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.embed.embedding_record import ERRORS, damaged
from simclr_mm.commands.embed.retrieval import FeatureIndex
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.installed import optional_package
from simclr_mm.files.walk import printable

_ROWS = 16384  # of a row group


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, *ENCODER_FLAGS, '--workers', shared=True)
    add = parser.add_argument
    add('checkpoint', nargs='?', help=ENCODER)
    add('folder', help='any folder of images, at any depth, or a pack')
    add('--out', metavar='DIR', help='default: work_dirs/embed/<name of the folder>')
    add('--batch-size', type=command_line.at_least(1), default=64, help='images at a time')
    add('--restart', action='store_true', help='begin again, whatever OUT holds')
    add('--parquet', action='store_true', help='also write OUT/features.parquet (needs pyarrow)')
    args = parser.parse_intermixed_args(argv)

    if args.parquet:
        optional_package('pyarrow.parquet', 'parquet', '--parquet')
    default = Path('work_dirs', 'embed', Path(args.folder).resolve().name)
    out = command_line.out_folder(args.out or default)
    started = time.time()
    reading = args.batch_size, args.workers, args.restart
    ranks = command_line.ranks()
    args.checkpoint = or_default(args.checkpoint)
    how = *reading, origin_of(args), ranks
    record = embed_folder(inferencer_of(args), args.folder, out, *how)
    ranks.only_first_goes_on()
    print(
        f'{printable(str(out))}/features.npy: {record["images"]} images of '
        f'{printable(args.folder)}, {record["width"]} numbers each; {time.time() - started:.1f} s'
    )
    if record['unreadable']:
        print(
            f'{record["unreadable"]} of them are unreadable: their rows are NaN, '
            f'reasons in {printable(str(out / ERRORS))}'
        )
    if args.parquet:
        print(f'{printable(str(write_parquet(out)))}: the same as a table')


def write_parquet(directory: str | Path) -> Path:
    r"""Write ``features.parquet`` beside ``features.npy``, block by block.

    Columns: ``path``, ``feature`` (a list of C float32, null for an unreadable image)
    and ``error`` (the reason, null for a readable image). Parquet stores UTF-8 only: other
    bytes of a name become ``\xff``. The table's metadata have ``embedding.json`` under
    the key ``simclr_mm``.
    """
    arrow = optional_package('pyarrow', 'parquet', '--parquet')
    parquet = optional_package('pyarrow.parquet', 'parquet', '--parquet')
    index = FeatureIndex(directory)
    lines = (index.directory / ERRORS).read_text().splitlines()
    try:
        errors = {entry['row']: printable(entry['reason']) for entry in map(json.loads, lines)}
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(index.directory / ERRORS, 'is damaged') from error
    # Not of fixed size: pyarrow 25, the last for Python 3.10, cannot read nulls of that type.
    feature = arrow.list_(arrow.float32())
    width = index.features.shape[1]
    schema = arrow.schema(
        [('path', arrow.string()), ('feature', feature), ('error', arrow.string())],
        metadata={'simclr_mm': json.dumps(index.record)},
    )
    path = index.directory / 'features.parquet'
    with atomic_file(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(index.features), _ROWS):
            block = index.features[start : start + _ROWS]  # (m, C)
            rows = range(start, start + len(block))
            reasons = arrow.array([errors.get(row) for row in rows], arrow.string())
            starts = arrow.array(width * np.arange(len(block) + 1, dtype=np.int32))
            features = arrow.ListArray.from_arrays(
                starts, arrow.array(block.reshape(-1)), mask=reasons.is_valid()
            )
            names = arrow.array([printable(index.names[row]) for row in rows])
            writer.write_table(arrow.table([names, features, reasons], schema=schema))
    return path
