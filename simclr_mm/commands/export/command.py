"""Export the encoder of a checkpoint for another library.

The file is loaded there and compared with the encoder before it gets its name. A model
card stands beside it.
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from simclr_mm.commands import command_line
from simclr_mm.commands.export.source import read_source
from simclr_mm.commands.export.targets import TARGETS
from simclr_mm.commands.export.verified import export
from simclr_mm.commands.publish.model_card import export_card
from simclr_mm.errors import UserError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='checkpoint of a training, a path or a URL')
    parser.add_argument(
        'out', nargs='?', help='file to write; default: {checkpoint}_{target} beside the checkpoint'
    )
    parser.add_argument('--to', required=True, choices=sorted(TARGETS), help='what shall load it')
    parser.add_argument(
        '--config', help='config file or model name; default: the config stored in the checkpoint'
    )
    command_line.add_cfg_options(parser)
    command_line.add_trust_flag(parser)
    # OUT may stand behind --to, as it reads best.
    return parser.parse_intermixed_args(argv)


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    source = read_source(args.checkpoint, args.config, args.cfg_options)
    suffix = TARGETS[args.to].suffix
    beside = Path(args.checkpoint).parent if '://' not in args.checkpoint else Path()
    default = beside / f'{Path(source.file).stem}_{args.to}{suffix}'
    path = Path(args.out) if args.out else default
    if path.suffix != suffix:
        raise UserError(f'{path}: --to {args.to} writes {suffix} files')
    code, proof = export(source, args.to, path)
    card = path.with_suffix('.md')
    card.write_text(export_card(source, args.to, path, code, proof))

    print(f'{path} holds the encoder of {args.checkpoint} for {args.to}; {card} describes it')
    print(f'verified: {proof}')
    if source.left_out:
        print('left out: ' + '; '.join(f'{k} ({v})' for k, v in source.left_out.items()))
    print(f'pictures: {source.preprocessing.sentence()}; in the file, too')
    print('use:\n' + textwrap.indent(code, '    '))
