"""Convert another library's SimCLR or ResNet checkpoint to simclr_mm.

Supported are mmselfsup and mmpretrain, lightly, solo-learn, VISSL, sthalles, Spijkervet,
Atanov, MoCo-like, torchvision and timm ResNets, and google-research's checkpoints of
TensorFlow 1 and 2. Every weight is checked. OUT.keys.txt lists the use of each key.
"""

from pathlib import Path

from simclr_mm.commands import command_line
from simclr_mm.commands.command_line import read_config
from simclr_mm.errors import UserError, listed
from simclr_mm.files.storage import is_url

from .conversion import Converted, convert, save

_SHOWN = 10  # keys of a kind on the terminal; all are in OUT.keys.txt


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, '--trust-checkpoint')
    add = parser.add_argument
    add('source', help='a path or URL; for TensorFlow NAME of NAME.index, or the folder')
    add('out', help='the checkpoint to write, ending in .pth')
    trained = "the encoder was trained with, where it is not what the library's own code has"
    for flag in ('--mean', '--std'):
        explained = f'{flag[2:]} of the pixels in [0, 255] that {trained}'
        add(flag, nargs=3, type=float, metavar=('R', 'G', 'B'), help=explained)
    wrote = 'what simclr-mm band-statistics wrote: widen the stem to these bands, with their mean'
    add('--bands', metavar='PY', help=f'{wrote} and std')
    args = parser.parse_args(argv)

    if args.bands and (args.mean or args.std):
        raise UserError(f'--bands {args.bands} has the mean and std: leave --mean and --std out')
    bands = read_config(args.bands, 'data_preprocessor') if args.bands else None
    if not is_url(args.source) and Path(args.out).exists() and Path(args.source).exists():
        if Path(args.out).samefile(args.source):
            raise UserError(f'{args.out} is SOURCE itself and stays: give another OUT')
    converted = convert(args.source, args.mean, args.std, bands)
    checkpoint, config, keys = save(converted, args.out)
    report(converted)
    print(
        f'wrote {checkpoint}, {config} and {keys}; use it as\n'
        f"  get_model('{config}', pretrained='{checkpoint}')"
    )


def report(converted: Converted) -> None:
    """Print the library, the normalisation and the use of the keys."""
    settings = dict(converted.config.model.backbone)
    normalise = converted.checkpoint['meta']['normalise']
    renamed = sum(key != ours for key, ours in converted.used.items())
    print(f'layout: {converted.layout}; backbone: {settings}')
    rgb = converted.config.data_preprocessor.to_rgb
    units = 'RGB in [0, 255]' if rgb else 'bands in the units of their files'
    print(f'pixels: {units}, mean {normalise["mean"]}, std {normalise["std"]}')
    print(f'used {len(converted.used)} keys, {renamed} of them renamed')
    filled = {key: how for key, how in converted.filled.items() if not key.endswith('_tracked')}
    if len(filled) < len(converted.filled):
        print(f'filled {len(converted.filled) - len(filled)} counters of batches with 0')
    for kind, keys in (('left', converted.left), ('filled', filled)):
        print(f'{kind} {len(keys)}: {listed((f"{k} ({why})" for k, why in keys.items()), _SHOWN)}')
