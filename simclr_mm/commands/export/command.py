"""Export the encoder of a checkpoint for another library.

The other library loads the file, and its features are compared with the encoder's,
before the file gets its name. A model card is written beside it. --to hf writes a folder
that timm and transformers open.
"""

import textwrap
from pathlib import Path

import torch

from simclr_mm.apis.encoder import Encoder
from simclr_mm.commands import command_line
from simclr_mm.commands.export.backbone import file_of, read_backbone
from simclr_mm.commands.export.verified import CARD, TARGETS, Proof, export
from simclr_mm.commands.model_card import FRONT, model_card, results
from simclr_mm.errors import UserError
from simclr_mm.files.hashes import content_hash
from simclr_mm.files.storage import is_url
from simclr_mm.version import __version__


@command_line.command
def main(argv: list[str] | None = None) -> None:
    flags = ('checkpoint', '--config', '--cfg-options', '--trust-checkpoint')
    parser = command_line.parser_of(__doc__, *flags)
    add = parser.add_argument
    default = '{checkpoint}_{target} beside the checkpoint; of a URL or a name here'
    add('out', nargs='?', help=f'file to write; default: {default}')
    add('--to', required=True, choices=sorted(TARGETS), help='the library that loads it')
    # OUT may also follow --to.
    args = parser.parse_intermixed_args(argv)

    encoder, left_out = read_backbone(args.checkpoint, args.config, args.cfg_options)
    suffix = TARGETS[args.to].suffix
    given = None if is_url(args.checkpoint) else Path(args.checkpoint).expanduser()
    beside = given.parent if given is not None and given.is_file() else Path()
    file = Path(file_of(encoder))
    path = Path(args.out) if args.out else beside / f'{file.stem}_{args.to}{suffix}'
    if suffix and path.suffix != suffix:
        raise UserError(f'{path}: --to {args.to} writes {suffix} files')
    card = path / CARD if not suffix else path.with_suffix('.md')
    if suffix and card.exists() and not card.read_text(errors='replace').startswith(FRONT):
        raise UserError(f'{card} is no model card and stays: give OUT another name')
    if suffix and given is not None and _are_one(path, given):
        raise UserError(f'{path} is the checkpoint itself and stays: give OUT another name')
    code, proof = export(encoder, args.to, path)
    card.write_text(_card(encoder, args.to, code, proof, left_out))

    print(f'{path} holds the encoder of {args.checkpoint} for {args.to}; {card} describes it')
    print(f'verified: {proof}')
    if left_out:
        print('left out: ' + '; '.join(f'{k} ({v})' for k, v in left_out.items()))
    print(f'preprocessing: {encoder.preprocessing.sentence()}; it is also in the file')
    print('use:\n' + textwrap.indent(code, '    '))


def _are_one(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def _card(encoder: Encoder, target: str, code: str, proof: Proof, left_out: dict[str, str]) -> str:
    file = Path(encoder.source).expanduser()
    origin = f'`{file_of(encoder)}`'
    if not is_url(encoder.source) and file.is_file():
        origin += f', SHA-256 `{content_hash(file)}`'
    verified = (
        f'Loaded by {target} on this machine: {proof}. PyTorch {torch.__version__}, '
        f'simclr_mm {__version__}.'
    )
    lost = '\n'.join(f'- {name}: {count}' for name, count in left_out.items())
    return model_card(
        encoder,
        encoder.name,
        f'The encoder of {origin}, for {target}.',
        code,
        results(encoder),
        'timm' if target == 'hf' else target,  # the hub knows libraries by name
        {'Verified': verified, 'Left out': lost or 'Nothing.'},
    )
