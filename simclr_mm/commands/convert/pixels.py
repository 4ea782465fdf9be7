"""What a converted encoder takes: mean, std and order of colours, or bands in place of RGB."""

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from simclr_mm.apis.encoder import pipeline_of
from simclr_mm.checkpoints import meta_of
from simclr_mm.checkpoints.stored_config import parse_settings
from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.registry import type_name

STEMS = 'backbone.conv1.weight', 'backbone.stem.0.conv.weight'  # first convolution: plain, deep


def stored_pixels(loaded: Any, source: str) -> tuple[dict[str, list[float]], bool]:
    """Mean and std of RGB in the config that a checkpoint of OpenMMLab holds, and if it takes BGR.

    Nothing is built from the config, so it may name classes that are not installed.
    """
    meta = meta_of(loaded)
    text = meta.get('cfg') or meta.get('config')  # 1.x, 0.x
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


def widen(state: dict[str, Tensor], bands: int, source: str) -> None:
    """Let the stem in a state take bands instead of RGB, with a line in the log."""
    stems = [key for key in STEMS if key in state and state[key].shape[1] == 3]
    if not stems:
        raise CheckpointError(
            f'{source}: --bands widens a first convolution of RGB, {" or ".join(STEMS)}, and '
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


def check_pixels(name: str, values: Sequence[float] | None, lowest: int) -> None:
    """Refuse what is outside [lowest, 255], and a mean that is one of pixels in [0, 1]."""
    if values is None:
        return
    inside = all(lowest <= value <= 255 for value in values)  # False for NaN
    if not inside or 0 < max(values) < 1:
        raise UserError(
            f'--{name} {" ".join(map(str, values))}: give numbers from {lowest} to 255, '
            'for pixels in [0, 255]; those for pixels in [0, 1] times 255'
        )
