"""Pack a folder of images into shards: few large files instead of many small ones.

OUT/shard-*.tar are tar files in WebDataset's layout (or Parquet files, or one LMDB
database), OUT/index.json says what they hold, OUT/unreadable.jsonl lists images that
are left out because they cannot be read. Train on them with tools/train.py --data OUT.
Stopped, the same command goes on where it was.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from simclr_mm.commands import command_line
from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.datasets.pack_index import FORMATS, UNREADABLE


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'folder',
        help='images at any depth; the folders directly below it are classes if no '
        'image lies beside them',
    )
    parser.add_argument('out', help='new folder of the shards')
    parser.add_argument('--format', choices=FORMATS, default='tar', help='default: tar')
    parser.add_argument(
        '--short-side',
        type=int,
        metavar='PIXELS',
        help='reduce larger images to this shorter side, as JPEG; 256 suits crops of '
        '224 pixels. Default: files go in as they are',
    )
    parser.add_argument(
        '--quality',
        type=int,
        default=PackSettings.quality,
        help='JPEG quality of reduced images, default: %(default)s',
    )
    parser.add_argument(
        '--shard-size',
        type=int,
        metavar='IMAGES',
        default=PackSettings.shard_images,
        help='images in a shard, default: %(default)s',
    )
    parser.add_argument(
        '--classes',
        metavar='FILE',
        help='class names, one a line, in the order of their labels; default: all '
        'class folders, sorted',
    )
    parser.add_argument('--no-labels', action='store_true', help='write no labels')
    parser.add_argument(
        '--processes',
        type=int,
        default=os.cpu_count(),
        help='that read and encode images, default: one for each core',
    )
    parser.add_argument('--restart', action='store_true', help='replace another pack in OUT')
    return parser.parse_args(argv)


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = PackSettings(args.format, args.short_side, args.quality, args.shard_size)
    index = pack_folder(
        args.folder,
        args.out,
        settings,
        args.classes,
        not args.no_labels,
        args.processes,
        args.restart,
    )
    classes = 'no labels'
    if index['labels']:
        classes = f'{len(index["classes"])} classes'
    size = sum(path.stat().st_size for path in Path(args.out).iterdir())
    print(
        f'{args.out}: {index["images"]} images, {classes}, '
        f'{len(index["shards"]) or 1} files of {size / 2**20:.1f} MiB in all'
    )
    if index['unreadable']:
        print(
            f'{index["unreadable"]} images cannot be read and are left out: '
            f'{Path(args.out, UNREADABLE)} names them'
        )
