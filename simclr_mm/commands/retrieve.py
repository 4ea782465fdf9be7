"""Print the images of an embedded folder that are nearest to a query, and draw them.

The folder is embedded once, by tools/embed.py CHECKPOINT FOLDER --out DIR.
"""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.encoder_flags import add_encoder_flags, inferencer_of
from simclr_mm.commands.embed.retrieval import FeatureIndex, retrieve
from simclr_mm.errors import UserError
from simclr_mm.visualization.gallery import plot_gallery


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('query', nargs='+', help='image files')
    parser.add_argument('--index', metavar='DIR', required=True, help='what tools/embed.py wrote')
    parser.add_argument('-k', type=int, default=10, help='images for each query')
    parser.add_argument(
        '--out', metavar='PNG', default='work_dirs/plots/retrieval.png', help='gallery to write'
    )
    parser.add_argument('--checkpoint', help='default: the one that the index was made with')
    add_encoder_flags(parser)
    return parser.parse_args(argv)


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    index = FeatureIndex(args.index)
    origin = index.record['origin']
    args.checkpoint = args.checkpoint or origin.get('checkpoint')
    args.config = args.config or origin.get('config')
    if args.checkpoint is None:
        raise UserError(
            f'{args.index} does not say which checkpoint it was made with: '
            'give it with --checkpoint'
        )
    found = retrieve(inferencer_of(args), index, args.query, args.k)
    for query, hits in zip(args.query, found):
        table = Table('rank', 'cosine', 'image', title=f'nearest to {query}')
        for rank, hit in enumerate(hits, start=1):
            table.add_row(str(rank), f'{hit.similarity:.4f}', hit.name)
        Console(soft_wrap=True).print(table)
    plot_gallery(
        args.out,
        args.query,
        [[hit.name for hit in hits] for hits in found],
        [[hit.path for hit in hits] for hits in found],
        [[hit.similarity for hit in hits] for hits in found],
        f'The {args.k} nearest of {index.record["images"]} images in '
        f'{index.folder.name}, by cosine similarity',
    )
    print(f'{args.out} shows them.')
