"""A checkpoint of another library as one of ours: every weight checked, every key accounted for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from simclr_mm.apis import get_model
from simclr_mm.checkpoints import load_state
from simclr_mm.checkpoints.foreign.weights import foreign_weights, neck_config, read_weights
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.installed import CONFIGS
from simclr_mm.files.storage import file_name

from .pixels import STEMS, check_pixels, stored_pixels, widen

_KEPT = ('backbone.', 'neck.')
_SMALL = 'ResNet_CIFAR', 'simclr_mm.SoloResNet', 'simclr_mm.LightlyResNet'
_BANDS = 'simclr_r18_1xb256-adam-100e_bands-128px'
_MADE = '# Written by simclr-mm convert.\n'  # the first line of OUT.py


class Converted(NamedTuple):
    """A converted checkpoint."""

    checkpoint: dict[str, Any]  # ``state_dict``, and ``meta`` with the config as in MMEngine
    config: Config
    layout: str  # name of the library
    used: dict[str, str]  # our keys by the keys in the file
    left: dict[str, str]  # for each unused key in the file, the reason
    filled: dict[str, str]  # for each of our keys that the file lacks, its value in words


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
    check_pixels('mean', mean, 0)
    check_pixels('std', std, 1)
    source = str(source)
    loaded = read_weights(source)
    done = foreign_weights(loaded, source)
    state = {key: value for key, value in done.state.items() if key.startswith(_KEPT)}
    left = dict(done.left)
    for key in [key for key in done.state if key not in state]:
        left[done.names[key]] = 'a head, which a SimCLR encoder does not need'
    given = dict(mean=mean, std=std)
    stored, bgr = stored_pixels(loaded, source)
    if bgr:
        for key in {*STEMS} & {*state}:
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
        widen(state, len(normalise['mean']), source)
    config = _config(done.backbone, neck_config(state), normalise, bands)
    load_state(get_model(config), state, source)
    meta = dict(
        cfg=config.pretty_text,
        converted_from=dict(layout=done.layout, file=file_name(source)),
        backbone=done.backbone,
        normalise={key: list(map(float, value)) for key, value in normalise.items()},
    )
    used = {done.names[key]: key for key in state if key in done.names}
    return Converted(
        dict(state_dict=state, meta=meta), config, done.layout, used, left, done.filled
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
