"""Convert another library's SimCLR or ResNet checkpoint to simclr_mm.

Supported are mmselfsup and mmpretrain, lightly, solo-learn, VISSL, sthalles, Spijkervet,
Atanov, MoCo-like, torchvision and timm ResNets, and google-research's checkpoints of
TensorFlow 1 and 2. Every weight is checked. OUT.keys.txt lists the use of each key.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from simclr_mm.apis import get_model
from simclr_mm.apis.encoder import pipeline_of
from simclr_mm.checkpoints import load_state
from simclr_mm.checkpoints.foreign.weights import foreign_weights, neck_config, read_weights
from simclr_mm.checkpoints.stored_config import parse_settings
from simclr_mm.commands import command_line
from simclr_mm.commands.command_line import read_config
from simclr_mm.errors import CheckpointError, UserError, listed
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.installed import CONFIGS
from simclr_mm.files.storage import is_url
from simclr_mm.registry import type_name

_KEPT = ('backbone.', 'neck.')
_STEMS = 'backbone.conv1.weight', 'backbone.stem.0.conv.weight'  # first convolution: plain, deep
_SMALL = 'ResNet_CIFAR', 'simclr_mm.SoloResNet', 'simclr_mm.LightlyResNet'
_BANDS = 'simclr_r18_1xb256-adam-100e_bands-128px'
_MADE = '# Written by simclr-mm convert.\n'  # the first line of OUT.py
_SHOWN = 10  # keys of a kind on the terminal; all are in OUT.keys.txt


class Converted(NamedTuple):
    """A converted checkpoint."""

    checkpoint: dict[str, Any]  # ``state_dict``, and ``meta`` with the config as in MMEngine
    config: Config
    layout: str  # name of the library
    used: dict[str, str]  # our keys by the keys in the file
    left: dict[str, str]  # for each unused key in the file, the reason
    filled: dict[str, str]  # for each of our keys that the file lacks, its value in words


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


def convert(
    source: str | Path,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bands: Config | None = None,
) -> Converted:
    """Convert a checkpoint and check that its model takes every weight.

    Args:
        source: A path or URL; for TensorFlow NAME, NAME.index or their folder.
        mean: Three means of RGB in [0, 255]. None: those in the config that OpenMMLab stores in a
            checkpoint, or else in the library's own code. Give them if the training used others,
            as solo-learn does on CIFAR.
        std: Three standard deviations of RGB in [0, 255], or None.
        bands: The config that ``band-statistics`` wrote. The stem then takes its bands, see
            :func:`widened`. None: RGB.
    """
    _check_pixels('mean', mean, 0)
    _check_pixels('std', std, 1)
    source = str(source)
    loaded = read_weights(source)
    done = foreign_weights(loaded, source)
    state = {key: value for key, value in done.state.items() if key.startswith(_KEPT)}
    left = dict(done.left)
    for key in [key for key in done.state if key not in state]:
        left[done.names[key]] = 'a head, which a SimCLR encoder does not need'
    given = dict(mean=mean, std=std)
    stored, bgr = _stored_pixels(loaded, source)
    if bgr:
        for key in {*_STEMS} & {*state}:
            state[key] = state[key].flip(1)
        print_log(
            f'{source}: its encoder takes BGR, by the stored config; the first convolution and '
            'mean and std are turned around, so it takes RGB'
        )
    usual = {key: stored.get(key, value) for key, value in done.normalise.items()}
    normalise = {key: given[key] or value for key, value in usual.items()}
    if bands is not None:
        normalise = {key: list(bands.data_preprocessor[key]) for key in ('mean', 'std')}
        done.backbone['in_channels'] = len(normalise['mean'])
        _widen(state, len(normalise['mean']), source)
    config = _config(done.backbone, neck_config(state), normalise, bands)
    load_state(get_model(config), state, source)
    meta = dict(
        cfg=config.pretty_text,
        converted_from=dict(layout=done.layout, file=Path(source).name),
        backbone=done.backbone,
        normalise={key: list(map(float, value)) for key, value in normalise.items()},
    )
    used = {done.names[key]: key for key in state if key in done.names}
    return Converted(
        dict(state_dict=state, meta=meta), config, done.layout, used, left, done.filled
    )


def _stored_pixels(loaded: Any, source: str) -> tuple[dict[str, list[float]], bool]:
    """Mean and std of RGB in the config that a checkpoint of OpenMMLab holds, and if it takes BGR.

    Nothing is built from the config, so it may name classes that are not installed.
    """
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    text = (meta.get('cfg') or meta.get('config')) if isinstance(meta, dict) else None  # 1.x, 0.x
    if not isinstance(text, str):
        return {}, False
    try:
        config = parse_settings(text)
        model = config.get('model') or {}
        places = model.get('data_preprocessor'), config.get('data_preprocessor')
        settings: dict[str, Any] = next(
            (each for each in (*places, config.get('img_norm_cfg')) if each), {}
        )
        pixels = {key: [float(value) for value in settings[key]] for key in ('mean', 'std')}
        if {*map(len, pixels.values())} != {3}:
            raise ValueError('mean and std are not of three colours')
        steps = (pipeline_of(config, 'train') or []) if any(places) else []
        from_files = any(type_name(step) == 'LoadImageFromFile' for step in steps)
    except Exception as error:  # the text may be anything
        print_log(
            f'{source}: no mean and std are found in the stored config ({error!r:.200}), so those '
            'of the library are taken; if others are right, give --mean and --std',
            level=logging.WARNING,
        )
        return {}, False
    if max(pixels['mean']) <= 1 and not any(places):  # torchvision's Normalize
        pixels = {key: [255 * value for value in pixels[key]] for key in pixels}
    bgr = from_files and not (settings.get('to_rgb') or settings.get('bgr_to_rgb'))
    if bgr:
        pixels = {key: values[::-1] for key, values in pixels.items()}
    return pixels, bgr


def _widen(state: dict[str, Tensor], bands: int, source: str) -> None:
    """Let the stem in a state take bands instead of RGB, with a line in the log."""
    stems = [key for key in _STEMS if key in state and state[key].shape[1] == 3]
    if not stems:
        raise CheckpointError(
            f'{source}: --bands widens a first convolution of RGB, {" or ".join(_STEMS)}, and '
            'there is none: leave --bands out'
        )
    (key,) = stems
    before, state[key] = state[key], widened(state[key], bands)
    print_log(
        f'{key} {tuple(before.shape)} became {tuple(state[key].shape)}: the filters of red, green '
        f'and blue in turn, times 3 / {bands}'
    )


def widened(weight: Tensor, bands: int) -> Tensor:
    """A stem's weights (k, 3, h, w) for n bands, (k, n, h, w).

    Bands get the filters of red, green and blue in turn, times 3 / n; a single band gets their
    sum. So equal bands give the output of three equal channels if n is 1 or a multiple of 3, and
    about that otherwise. Filters that compare colours then compare bands; with the mean over
    RGB they would be zero.

    Source: timm, ``timm/models/_manipulate.py``, ``adapt_input_conv``.
    """
    if bands == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, -(-bands // 3), 1, 1)[:, :bands] * (3 / bands)


def _check_pixels(name: str, values: Sequence[float] | None, lowest: int) -> None:
    """Refuse what is outside [lowest, 255], and a mean that is one of pixels in [0, 1]."""
    if values is None:
        return
    inside = all(lowest <= value <= 255 for value in values)  # False for NaN
    if not inside or 0 < max(values) < 1:
        raise UserError(
            f'--{name} {" ".join(map(str, values))}: give numbers from {lowest} to 255, '
            'for pixels in [0, 255]; those for pixels in [0, 1] times 255'
        )


def save(converted: Converted, out: str | Path) -> list[Path]:
    """Write the checkpoint, its config (``.py``), and the use of every key (``.keys.txt``)."""
    out = Path(out)
    if out.suffix != '.pth':
        raise UserError(f'OUT must end in .pth, got {out}')
    files = [out, out.with_suffix('.py'), out.with_suffix('.keys.txt')]
    if files[1].exists() and not files[1].read_text(errors='replace').startswith(_MADE):
        raise UserError(f'{files[1]} is not from simclr-mm convert and stays: give another OUT')
    with atomic_file(out) as file:
        torch.save(converted.checkpoint, file)
    files[1].write_text(_MADE + converted.config.pretty_text)
    files[2].write_text('\n'.join(key_lines(converted)) + '\n')
    return files


def key_lines(converted: Converted) -> list[str]:
    """The use of every key, one a line: used, left, filled."""
    lines = [
        f'used    {key}' + (f' -> {ours}' if ours != key else '')
        for key, ours in converted.used.items()
    ]
    lines += [f'left    {key}: {why}' for key, why in converted.left.items()]
    return lines + [f'filled  {key}: {how}' for key, how in converted.filled.items()]


def _config(
    backbone: dict[str, Any],
    neck: dict[str, Any] | None,
    normalise: dict[str, Any],
    bands: Config | None,
) -> Config:
    """A config of this package with this model, for the image size of its stem."""
    small = backbone['type'] in _SMALL or backbone.get('small_images')
    name = 'simclr_r18_1xb512-coslr-100e_cifar10' if small else 'simclr_r50_16xb256-coslr-200e_in1k'
    if bands is not None:
        name = 'simclr_r18-w16_1xb64-adam-30e_bands-32px' if small else _BANDS
    config = Config.fromfile(CONFIGS / f'{name}.py')
    if bands is not None:
        views = config.train_dataloader.dataset.pipeline[1]
        views.transforms[0].std = normalise['std']  # of BandJitter
        for phase in ('train', 'val', 'test') if 'load_bands' in bands else ():
            config[f'{phase}_dataloader'].dataset.pipeline[0] = bands.load_bands
    config.model.backbone = backbone
    config.model.neck = neck
    if neck is None:
        config.model.head = None
    config.data_preprocessor.update(normalise)
    if backbone['type'] == 'simclr_mm.GoogleResNet':
        for loader in (config.val_dataloader, config.test_dataloader):
            for step in loader.dataset.pipeline:
                if step.type == 'ResizeEdge':
                    step.interpolation = 'bicubic'  # data_util.py:325
    return config
