"""Measure the bands of images, and write their mean and std as a config.

Percentiles, extremes, mean and std of each band, in the units of the files: TIFF, NumPy,
DICOM, PNG and others of any depth. One image at a time is in memory. After an
interruption the same command continues.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from simclr_mm.apis.model_zoo import config_file
from simclr_mm.commands import command_line
from simclr_mm.commands.embed.images import ImageOrReason
from simclr_mm.datasets import ImageList
from simclr_mm.errors import UserError, listed
from simclr_mm.files.atomic import atomic_file, write_text
from simclr_mm.files.hashes import listing_hash
from simclr_mm.files.walk import printable
from simclr_mm.registry import type_name
from simclr_mm.transforms.load_bands import LAYOUTS, LoadBands

SHARES = (1, 25, 50, 75, 99)  # percentiles
# Arguments of transforms that are a number for each band.
_NUMBERS = dict(BandJitter=dict(std='std'), BandNoise=dict(std='std'), BandDrop=dict(fill='mean'))
_SAVE_EVERY = 10.0  # seconds of work that a kill may cost
_LOWEST, _HIGHEST = -(2**15), 2**16 - 1  # of whole numbers that are counted one by one
_DROPPED = 14  # last bits of a float32's 32 that a bin leaves out; 9 bits of its digits stay


@command_line.command
def main(argv: list[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__, '--workers')
    add = parser.add_argument
    add('data', nargs='+', help='folders of images, at any depth, and lists or tables of paths')
    add('--out', metavar='PY', default='bands.py', help='the config to write; default: bands.py')
    completed = 'a config for bands, which OUT then completes: train OUT'
    add('--base', metavar='CONFIG', help=completed)
    add('--bands', nargs='+', type=int, metavar='B', help='bands to take, from 0, in this order')
    add('--layout', choices=LAYOUTS, help='the axis of bands in arrays; default: auto')
    window = "cut values as DICOM's window does, in the units of the files"
    add('--window', nargs=2, type=float, metavar=('CENTRE', 'WIDTH'), help=window)
    add('--nan', type=float, help='the number that takes the place of NaN')
    add('--restart', action='store_true', help='begin again, whatever an earlier call has counted')
    args = parser.parse_args(argv)

    out = Path(args.out)
    if out.suffix != '.py':
        raise UserError(f'--out must end in .py, got {out}')
    command_line.out_file(out)
    base = config_file(args.base).resolve() if args.base else None
    given = dict(bands=args.bands, layout=args.layout, window=args.window, nan=args.nan)
    loading = {key: value for key, value in given.items() if value is not None}
    # Before the measuring, which may take hours.
    completion, of_base = _completion(base, bool(loading)) if base else ([], {})
    reading = {**of_base, **loading}
    measured, unreadable = measure(args.data, reading, out, args.workers, args.restart)
    places = ' '.join(' '.join(map(printable, args.data)).split())  # one line, of a comment
    text = config_text(measured, places, reading if loading else {}, base, completion)
    write_text(out, text)
    print(text, end='')
    constant = np.flatnonzero(measured.std == 0).tolist()
    if constant:
        print(f'constant bands, with std 1 in the config: {listed(constant, 20)}; see --bands')
    if unreadable:
        print(f'{len(unreadable)} unreadable images are left out: {listed(unreadable)}')
    print(f'{printable(str(out))}: mean and std of {len(measured.mean)} band(s)')


class BandStatistics:
    """Count, extremes, moments and histograms of C bands, image by image.

    Moments are exact to float64's rounding: each image has its own mean, and two sets are
    joined by the formulas of Chan, Golub and LeVeque. Percentiles are exact for whole numbers
    from -32,768 to 65,535. Of sets with other values they are ends of bins that are at most
    1/512 of the value wide.

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 37 (1983), eq. (2.1).
    """

    def __init__(self, bands: int) -> None:
        self.count = 0  # pixels
        self.mean = np.zeros(bands)
        self.squares = np.zeros(bands)  # sums of squared differences from the mean
        self.lowest, self.highest = np.full(bands, np.inf), np.full(bands, -np.inf)
        self.whole = np.zeros((bands, _HIGHEST - _LOWEST + 1), np.int64)
        self.bins = np.zeros((0, 2 ** (32 - _DROPPED)), np.int64)  # once there are fractions

    def add(self, img: np.ndarray) -> None:
        """Add an image, (H, W, C)."""
        values = img.reshape(-1, img.shape[2]).T  # (C, HW)
        exact = values.astype(np.float64)
        count, mean = exact.shape[1], exact.mean(1)
        squares = np.square(exact - mean[:, None]).sum(1)
        total, step = self.count + count, mean - self.mean
        self.mean = self.mean + step * (count / total)
        self.squares = self.squares + squares + step**2 * (self.count * count / total)
        self.count = total
        self.lowest = np.minimum(self.lowest, exact.min(1))
        self.highest = np.maximum(self.highest, exact.max(1))
        inside = exact.min() >= _LOWEST and exact.max() <= _HIGHEST
        if inside and (values.dtype == np.uint8 or (exact == np.floor(exact)).all()):
            for counts, band in zip(self.whole, exact.astype(np.int64) - _LOWEST):
                counts += np.bincount(band, minlength=len(counts))
            return
        if not len(self.bins):
            self.bins = np.zeros((len(mean), self.bins.shape[1]), np.int64)
        for counts, band in zip(self.bins, _bin_of(values.astype(np.float32))):
            counts += np.bincount(band, minlength=len(counts))

    @property
    def std(self) -> np.ndarray:
        """(C,) of all pixels, as NumPy's ``std``."""
        return np.sqrt(self.squares / self.count)

    def percentiles(self) -> np.ndarray:
        """(len(SHARES), C): the smallest value that at least this share of pixels does not exceed.

        It is NumPy's percentile with ``method='inverted_cdf'``.
        """
        numbers = np.arange(_LOWEST, _HIGHEST + 1, dtype=np.float32)
        counts = self.whole
        if len(self.bins):
            bins = self.bins.copy()
            for row, band in zip(bins, self.whole):
                np.add.at(row, _bin_of(numbers), band)
            numbers, counts = _start_of(np.arange(bins.shape[1])), bins
        sums = counts.cumsum(1)  # (C, bins)
        ranks = [np.ceil(share / 100 * self.count).clip(1) for share in SHARES]
        found = [[numbers[np.searchsorted(band, rank)] for band in sums] for rank in ranks]
        return np.clip(np.array(found, np.float64), self.lowest, self.highest)


def _bin_of(values: np.ndarray) -> np.ndarray:
    """Numbers of bins, in the order of the values: a float32's first bits, made monotone."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32)  # + 0: no -0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))
    return (ordered >> _DROPPED).astype(np.int64)


def _start_of(bins: np.ndarray) -> np.ndarray:
    """The value in a bin that is nearest to zero or, below zero, farthest from it."""
    ordered = bins.astype(np.uint32) << _DROPPED
    bits = np.where(ordered >> 31, ordered & np.uint32(2**31 - 1), ~ordered)
    return bits.view(np.float32)


def measure(
    places: list[str], loading: dict[str, Any], out: Path, workers: int = 0, restart: bool = False
) -> tuple[BandStatistics, list[str]]:
    """The statistics of all images of the places, and the reasons of unreadable ones.

    A state beside ``out`` lets a later call continue an interrupted one. It goes at the end.

    Args:
        loading: Settings of ``simclr_mm.LoadBands``.

    Raises:
        UserError: A place holds no readable image, a file has other bands than the first, or the
            state is that of other images or settings.
    """
    # ignore_empty would measure another image in place of an unreadable one.
    reading = dict(loading, type='simclr_mm.LoadBands', ignore_empty=False)
    images = ImageList(places, [reading])
    paths = [images.get_data_info(row)['img_path'] for row in range(len(images))]
    key = json.dumps([listing_hash('', paths), loading])
    state = out.with_name(f'.{out.name}.npz')
    statistics, unreadable, done, first = _restored(state, key, restart)
    rest = Subset(ImageOrReason(images), range(done, len(images)))
    # With tuple nothing is converted to tensors.
    loader = DataLoader(rest, batch_size=None, num_workers=workers, collate_fn=tuple)
    saved = time.monotonic()
    for row, sample, reason in track(loader, 'measuring', len(images), done, transient=True):
        done += 1
        if sample is None:
            unreadable.append(reason)
        else:
            img = sample['img']
            if statistics is None:
                statistics, first = BandStatistics(img.shape[2]), paths[row]
            if img.shape[2] != len(statistics.mean):
                raise UserError(
                    f'{paths[row]} has {img.shape[2]} band(s), but {first} has '
                    f'{len(statistics.mean)}: give files with the same bands'
                )
            statistics.add(img)
        if time.monotonic() - saved > _SAVE_EVERY:
            _save(state, statistics, key=key, unreadable=unreadable, done=done, first=first)
            saved = time.monotonic()
    state.unlink(missing_ok=True)
    if statistics is None:
        raise UserError(f'none of {len(images)} images can be read; the last: {unreadable[-1]}')
    return statistics, unreadable


def _save(state: Path, statistics: BandStatistics | None, **progress: Any) -> None:
    with atomic_file(state) as file:
        arrays = vars(statistics) if statistics else {}
        np.savez_compressed(file, progress=np.array(json.dumps(progress)), **arrays)


def _restored(
    state: Path, key: str, restart: bool
) -> tuple[BandStatistics | None, list[str], int, str]:
    """Statistics, reasons, the number of images that are counted, and the path of the first."""
    if restart or not state.is_file():
        return None, [], 0, ''
    try:
        with np.load(state, allow_pickle=False) as file:
            arrays = dict(file)
        progress = json.loads(str(arrays.pop('progress')))
        same = progress['key'] == key
    except Exception as error:  # a damaged file gives errors of many types
        raise UserError(f'{state} is damaged ({error}): begin again with --restart') from error
    if not same:
        raise UserError(
            f'{state} has {progress["done"]} images of an interrupted call with other images or '
            'settings: give another --out, or begin again with --restart'
        )
    statistics = None
    if arrays:
        statistics = BandStatistics(len(arrays['mean']))
        vars(statistics).update(arrays, count=int(arrays['count']))
    print(f'continuing behind {progress["done"]} images')
    return statistics, progress['unreadable'], progress['done'], progress['first']


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


def _completion(base: Path, loading: bool) -> tuple[list[str], dict[str, Any]]:
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
