"""Make a publishable file from a checkpoint: weights, config and preprocessing.

Writes OUT_DIR/{config}_{date}-{SHA-256}.pth, a model card beside it, and the entry of a
model index.
"""

import re
from pathlib import Path

from simclr_mm.apis.loading import open_checkpoint
from simclr_mm.commands import command_line
from simclr_mm.commands.publish.checkpoint import publish
from simclr_mm.commands.publish.metafile import entry_of, entry_text, put_entry
from simclr_mm.errors import MissingFileError, UserError


def config_path(config: str, root: Path | None) -> str:
    """The path of a config, given by name or file, in an index."""
    if not config.endswith('.py'):
        config = f'configs/{config}.py'
    if root is None:
        return config
    for path in (Path(config).resolve(), root / config):
        if root in path.parents and path.is_file():
            return str(path.relative_to(root))
    raise UserError(
        f'the index in {root} cannot name {config}, which is not in this folder: '
        'name a config in it with --config'
    )


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, 'checkpoint', '--config', '--trust-checkpoint')
    add = parser.add_argument
    add('out_dir', help='folder of the published file')
    add('--name', help="name of the model; default: the config's")
    add('--weights-url', metavar='URL', help='where OUT_DIR can be downloaded from')
    add('--metafile', metavar='FILE', help='put the entry into this file; default: print it')
    args = parser.parse_args(argv)

    root = None  # the folder that an index's paths start from, which contains configs/
    if args.metafile:
        if not Path(args.metafile).is_file():
            raise MissingFileError(f'--metafile: there is no file {args.metafile}')
        root = Path(args.metafile).resolve().parents[1]
    url = args.weights_url
    if url and not re.match(r'https?://[^/\s]+(/\S*)?$', url):
        raise UserError(f'--weights-url {url}: give an address that begins with https://')
    opened = open_checkpoint(args.checkpoint, args.config)
    config = config_path(args.config or opened.name, root)
    done = publish(opened, Path(args.out_dir), args.name)
    print(
        f'{done.path} and {done.card.name} are written; left out: '
        f'{", ".join(done.left_out) or "nothing"}'
    )
    weights = f'{url.rstrip("/")}/{done.path.name}' if url else None
    entry = entry_of(done, config, weights)
    if args.metafile is None:
        print(entry_text(entry), end='')
        return
    replaced = put_entry(Path(args.metafile), entry)
    print(f'{args.metafile}: the entry {done.name} is {"replaced" if replaced else "added"}')
