"""Write the features of every image in a folder to a file.

OUT/features.npy has one row for each image, OUT/paths.json names the images in the same
order, OUT/errors.jsonl lists unreadable images (their rows are NaN), and
OUT/embedding.json records the encoder and its settings. After an interruption the same
command continues.
"""

import time
from pathlib import Path

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.encoder_flags import ENCODER_FLAGS, inferencer_of, origin_of
from simclr_mm.commands.command_line.errors import require
from simclr_mm.commands.embed.embed_folder import embed_folder
from simclr_mm.commands.embed.embedding_record import ERRORS
from simclr_mm.commands.embed.parquet import write_parquet
from simclr_mm.files.walk import printable


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, *ENCODER_FLAGS)
    add = parser.add_argument
    add('checkpoint', help='a path, a URL or the name of a model with weights')
    add('folder', help='any folder of images, at any depth, or a pack')
    add('--out', metavar='DIR', help='default: work_dirs/embed/<name of the folder>')
    add('--batch-size', type=command_line.at_least(1), default=64, help='images at a time')
    add('--workers', type=command_line.at_least(0), default=2, help='processes that read images')
    add('--restart', action='store_true', help='begin again, whatever OUT holds')
    add('--parquet', action='store_true', help='also write OUT/features.parquet (needs pyarrow)')
    args = parser.parse_args(argv)

    if args.parquet:
        require(('pyarrow',), '--parquet')
    out = Path(args.out or Path('work_dirs', 'embed', Path(args.folder).resolve().name))
    started = time.time()
    record = embed_folder(
        inferencer_of(args),
        args.folder,
        out,
        args.batch_size,
        args.workers,
        args.restart,
        origin_of(args),
    )
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
