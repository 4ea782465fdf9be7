"""The statistics as a config, which may complete another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from simclr_mm.errors import UserError
from simclr_mm.registry import type_name
from simclr_mm.transforms.load_bands import LoadBands

from .statistics import SHARES, BandStatistics

# Arguments of transforms that are a number for each band.
_NUMBERS = dict(BandJitter=dict(std='std'), BandNoise=dict(std='std'), BandDrop=dict(fill='mean'))


def config_text(
    measured: BandStatistics,
    places: str,
    loading: dict[str, Any],
    base: Path | None,
    completion: list[str],
) -> str:
    """The statistics as comments, and the settings that follow from them."""
    exact = 'ends of bins, at most 1/512 off' if len(measured.bins) else 'exact'
    heads = 'band', 'min', *(f'{share} %' for share in SHARES), 'max', 'mean', 'std'
    columns = measured.lowest, *measured.percentiles(), measured.highest
    rows = [
        (str(band), *(f'{value:.6g}' for value in (*values, mean, std)))
        for band, (*values, mean, std) in enumerate(zip(*columns, measured.mean, measured.std))
    ]
    table = '\n'.join('# ' + ' '.join(f'{cell:>10}' for cell in row) for row in (heads, *rows))
    lines = [
        f'# {measured.count} pixels of each band, in the units of the files; percentiles: {exact}.',
        f'# {places}',
        table,
    ]
    if base:
        lines.append(f'_base_ = {str(base)!r}')
    std = np.where(measured.std > 0, measured.std, 1.0)
    lines += [
        'data_preprocessor = dict(',
        f'    mean={_numbers(measured.mean)},',
        f'    std={_numbers(std)},',
        '    to_rgb=False,',
        ')',
        f'model = dict(backbone=dict(in_channels={len(measured.mean)}))',
    ]
    if loading:
        settings = ', '.join(f'{key}={value!r}' for key, value in loading.items())
        lines.append(f"load_bands = dict(type='simclr_mm.LoadBands', {settings})")
    return '\n'.join([*lines, *completion]) + '\n'


def completion_of(base: Path, loading: bool) -> tuple[list[str], dict[str, Any]]:
    """Lines that complete a config, and the settings of its LoadBands.

    The lines give the steps of its pipelines the numbers that depend on the bands, and its
    LoadBands the flags' settings if there are any (``loading``).
    """
    cfg, lines, found = Config.fromfile(base), [], []
    for phase in ('train', 'val', 'test'):
        place = f'{phase}_dataloader.dataset.pipeline'
        steps = (cfg.get(f'{phase}_dataloader') or {}).get('dataset', {}).get('pipeline', [])
        for path, step in _steps(steps, place):
            name = type_name(step)
            if name == 'LoadBands':
                found.append({key: value for key, value in step.items() if key != 'type'})
                if loading:
                    lines.append(f'_base_.{path} = load_bands')
            for key, value in _NUMBERS.get(name, {}).items():
                lines.append(f'_base_.{path}.{key} = data_preprocessor[{value!r}]')
    if not found:
        raise UserError(f'--base {base}: no pipeline of it has simclr_mm.LoadBands: name another')
    first, *others = (vars(LoadBands(**settings)) for settings in found)  # with the defaults
    if others and any(settings != first for settings in others):
        raise UserError(
            f'--base {base}: its pipelines read bands in different ways: give every LoadBands the '
            'same settings'
        )
    return lines, found[0]


def _steps(steps: list, place: str) -> Iterator[tuple[str, dict]]:
    """Each step of a pipeline, also of those inside a step, with its place in the config."""
    for number, step in enumerate(steps):
        if isinstance(step, dict):
            yield f'{place}[{number}]', step
            yield from _steps(step.get('transforms', []), f'{place}[{number}].transforms')
        elif isinstance(step, list):
            yield from _steps(step, f'{place}[{number}]')


def _numbers(values: np.ndarray) -> list[float]:
    """With nine digits, which tell any two float32 apart."""
    return [float(f'{value:.9g}') for value in values]
