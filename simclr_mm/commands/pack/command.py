"""Pack a folder of images into shards: few large files instead of many small ones.

OUT/shard-*.tar are tar files in WebDataset's layout; other formats are Parquet files or
one LMDB database. OUT/index.json lists the shards. OUT/unreadable.jsonl lists unreadable
images, which are left out. Train with simclr-mm train --data OUT. After an interruption
the same command continues. The processes of torchrun share the shards.
"""

import os

from simclr_mm.commands import command_line
from simclr_mm.commands.pack.folder import pack_folder
from simclr_mm.commands.pack.plan import PackSettings
from simclr_mm.cores import core_count
from simclr_mm.datasets.pack_index import FORMATS, UNREADABLE
from simclr_mm.errors import UserError


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, shared=True)
    add, at_least = parser.add_argument, command_line.at_least
    classes = 'the folders directly below it are classes if no image lies beside them'
    add('folder', help=f'images at any depth; {classes}')
    add('out', help='new folder of the shards')
    add('--format', choices=FORMATS, default='tar', help='default: tar')
    reduced = 'reduce larger images to this shorter side, as JPEG; 256 suits crops of 224 pixels'
    reduced = f'{reduced}. Default: keep the files'
    add('--short-side', type=at_least(1, 1 << 16), metavar='PIXELS', help=reduced)
    quality = f'JPEG quality of reduced images, default: {PackSettings.quality}'
    add('--quality', type=at_least(1, 100), help=quality)
    size, images = PackSettings.shard_images, 'images in a shard, default: %(default)s'
    add('--shard-size', type=at_least(1), metavar='IMAGES', default=size, help=images)
    names = 'class names, one a line, in the order of their labels; default: all, sorted'
    add('--classes', metavar='FILE', help=names)
    add('--no-labels', action='store_true', help='write no labels')
    processes = 'processes that read and encode images, default: one for each core'
    cores = max(1, core_count() // int(os.environ.get('LOCAL_WORLD_SIZE', 1)))
    add('--processes', type=at_least(1, 1 << 10), default=cores, help=processes)
    add('--restart', action='store_true', help='replace another pack in OUT')
    args = parser.parse_args(argv)

    if args.quality is None:
        args.quality = PackSettings.quality
    elif args.short_side is None:
        raise UserError(
            f'--quality {args.quality} is for images reduced by --short-side, and other images '
            'are kept as they are: give both, or leave it out.'
        )
    if args.no_labels and args.classes is not None:
        raise UserError('--no-labels and --classes exclude each other: leave one out.')
    settings = PackSettings(args.format, args.short_side, args.quality, args.shard_size)
    how = args.classes, not args.no_labels, args.processes, args.restart
    out = command_line.out_folder(args.out)
    index = pack_folder(args.folder, out, settings, *how, command_line.ranks())
    classes = f'{len(index["classes"])} classes' if index['labels'] else 'no labels'
    size = sum(path.stat().st_size for path in out.iterdir())
    print(
        f'{out}: {index["images"]} images, {classes}, '
        f'{len(index["shards"]) or 1} files of {size / 2**20:.1f} MiB in all'
    )
    if index['unreadable']:
        print(
            f'{index["unreadable"]} images cannot be read and are left out: '
            f'{out / UNREADABLE} names them'
        )
