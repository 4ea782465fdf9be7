"""Print and draw the images of an embedded folder that are nearest to a query.

Embed the folder once with simclr-mm embed CHECKPOINT FOLDER --out DIR.
"""

import argparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.checkpoints.stored_config import stored_config
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line.encoder_flags import ENCODER_FLAGS, inferencer_of
from simclr_mm.commands.embed.embedding_record import RECORD
from simclr_mm.commands.embed.retrieval import FeatureIndex, retrieve
from simclr_mm.errors import UserError
from simclr_mm.files.walk import printable
from simclr_mm.visualization.gallery import plot_gallery


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, *ENCODER_FLAGS)
    add = parser.add_argument
    add('query', nargs='+', help='image files')
    add('--index', metavar='DIR', required=True, help='what simclr-mm embed wrote')
    add('-k', type=command_line.at_least(1), default=10, help='images for each query')
    add('--out', metavar='PNG', default='work_dirs/plots/retrieval.png', help='gallery to write')
    add('--checkpoint', help='default: the one that the index was made with')
    args = parser.parse_args(argv)

    command_line.out_picture(args.out)
    index = FeatureIndex(args.index)
    found = retrieve(_inferencer(args, index), index, args.query, args.k)
    queries = [printable(query) for query in args.query]
    names = [[printable(hit.name) for hit in hits] for hits in found]
    for query, row, hits in zip(queries, names, found):
        table = Table('rank', 'cosine', 'image', title=Text(f'nearest to {query}'))
        for rank, (name, hit) in enumerate(zip(row, hits), start=1):
            table.add_row(str(rank), f'{hit.similarity:.4f}', Text(name))
        Console(soft_wrap=True).print(table)
    plot_gallery(
        args.out,
        args.query,
        names,
        [[index.picture(hit.row) for hit in hits] for hits in found],
        [[hit.similarity for hit in hits] for hits in found],
        f'The {args.k} nearest of {index.record["images"]} images in '
        f'{printable(index.folder.name)}, by cosine similarity',
    )
    print(f'{printable(args.out)} shows them.')


def _inferencer(args: argparse.Namespace, index: FeatureIndex) -> FeatureInferencer:
    """The encoder of the index, unless flags name another checkpoint or config."""
    origin, settings = index.record['origin'], index.record.get('config')
    args.checkpoint = args.checkpoint or origin.get('checkpoint')
    if args.checkpoint is None:
        raise UserError(f'{args.index} does not name its checkpoint: give it with --checkpoint')
    named = origin.get('config')
    if args.config is None and named is not None:
        # A config file is Python code that the user did not choose, so it is not run. The
        # settings in the index are read as data instead.
        if not named.endswith('.py'):
            args.config = named  # the name of a model
        elif settings is None:
            raise UserError(
                f'{args.index}: its config is not run unless you name it: add --config {named}'
            )
        else:
            text = '\n'.join(f'{key} = {value!r}' for key, value in settings.items())
            args.config = stored_config(text, str(index.directory / RECORD))
    return inferencer_of(args)
