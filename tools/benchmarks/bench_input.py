"""Two views of an image: images per second of every implementation, and times of our steps.

    python tools/benchmarks/bench_input.py --data FOLDER --out work_dirs/bench_input
    python tools/benchmarks/bench_input.py --cifar FOLDER --out work_dirs/bench_input

--data takes photographs and one core. It compares our worker and device paths, decoding
alone, and mmpretrain, lightly, albumentations, torchvision and kornia, if installed,
each with its own SimCLR defaults. --cifar takes CIFAR-10, as its archive or as JPEGs. It
compares whole loaders with their batches: ours with its config, in memory, and
mmpretrain's transforms with two workers. All run in turn, round after round.
"""

import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from input_loaders import CONFIGS, cifar_loaders
from input_peers import PEERS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.utils import register_all_modules
from rich.console import Console
from rich.table import Table
from timing import draw_bars, interleaved, ratio, save, spread, table_of, version
from torch.utils.data import default_collate

from simclr_mm.commands.command_line import parser_of
from simclr_mm.datasets import SampleIndex
from simclr_mm.engine.allocator import keep_freed_memory
from simclr_mm.evaluation import hardware
from simclr_mm.files.walk import image_paths
from simclr_mm.transforms import TwoViews, color
from simclr_mm.transforms.blur import gaussian_blur

IMAGENET = CONFIGS / 'simclr_r50_16xb256-coslr-200e_in1k.py'
WORKER, DEVICE = 'simclr_mm, worker', 'simclr_mm, for the device'
DECODE = 'decode alone'
FACTORS = dict(brightness=1.3, contrast=0.7, saturation=1.4, hue=0.1)


def main() -> None:
    parser = parser_of(__doc__)
    add = parser.add_argument
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument('--data', type=Path, help='folder of photographs, at any depth')
    data.add_argument('--cifar', type=Path, help='folder of CIFAR-10')
    add('--images', type=int, help='in a round of each path; 64, with --cifar 4096')
    add('--repeats', type=int, default=5, help='rounds')
    add('--peers', nargs='*', choices=PEERS, default=PEERS, help='with --data; all')
    add('--workers', type=int, default=2, help="of mmpretrain's loader with --cifar")
    add('--out', type=Path, help='folder for bench_input_{data,cifar}.{json,png}')
    args = parser.parse_args()
    console = Console(width=150)
    register_all_modules()  # of mmpretrain, with its scope
    stages: dict[str, float] = {}
    if args.data:
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        keep_freed_memory()  # as in our workers, here for all implementations
        kind, title = 'data', 'Two views of 224 px from photographs, one core'
        files = image_paths(args.data)
        files = files[:: max(1, len(files) // (args.images or 64))][: args.images or 64]
        images = len(files)
        paths = available_paths(args.peers, console)
        calls = {name: functools.partial(seconds_of, path, files) for name, path in paths.items()}
    else:
        torch.set_num_threads(2)
        kind, title = 'cifar', 'Two views of 32 px, batches of 512, two cores'
        calls, images = cifar_loaders(args.cifar, args.images or 4096, args.workers)
    title += f' ({hardware("cpu")})'
    seconds = interleaved(calls, args.repeats)
    rates = {name: [images / s for s in values] for name, values in seconds.items()}
    console.print(rate_table(rates, title))
    if args.data:
        rounds = [one_round(files) for _ in range(3)]
        stages = {stage: min(times[stage] for times in rounds) for stage in rounds[0]}
        console.print(stage_table(stages))
    console.print(
        f'{args.repeats} rounds of {images} images, interleaved; '
        f'torch {torch.__version__}, cv2 {cv2.__version__}'
    )
    if args.out:
        path = save(args.out, f'bench_input_{kind}', title=title, rates=rates, stages=stages)
        draw_bars(rates, title, 'images per second', path.with_suffix('.png'))
        console.print(f'Written to {path} and .png')


def available_paths(peers: list[str], console: Console) -> dict[str, Callable]:
    """Our paths and those of the installed peers; each takes an image file."""
    worker, index = Compose(steps('worker')), itertools.count()
    device, decoding = Compose(steps('device')), Compose(steps('worker')[:1])

    def views(pipeline: Compose, path: str) -> dict:
        # Another index each time, because it determines the views.
        return pipeline(dict(img_path=path, sample_idx=SampleIndex(next(index))))

    paths: dict[str, Callable] = {
        WORKER: functools.partial(views, worker),
        DEVICE: functools.partial(views, device),
        DECODE: functools.partial(views, decoding),
    }
    for name in peers:
        make, distributions = PEERS[name]
        try:
            path = make()
        except ImportError as error:
            console.print(f'{name}: not importable ({error})')
            continue
        paths[name] = path
        console.print(f'{name}: {", ".join(map(version, distributions))}')
    return paths


def steps(augment: str) -> list[dict]:
    """The transforms of the ImageNet config."""
    cfg = Config.fromfile(IMAGENET).train_dataloader.dataset.pipeline
    cfg[1].augment = augment
    return cfg


def seconds_of(path: Callable, files: list[str]) -> float:
    """Seconds for all files, after a few files that fill the caches."""
    for file in files[:8]:
        path(file)
    start = time.perf_counter()
    for file in files:
        path(file)
    return time.perf_counter() - start


def one_round(files: list[str]) -> dict[str, float]:
    """Milliseconds per image of our steps, for two views, weighted by their probability."""
    decoder, crop, _ = Compose(steps('worker')).transforms
    crop = TwoViews(crop.size, interpolation=crop.interpolation)
    operations = {
        name: (functools.partial(getattr(color, f'adjust_{name}'), factor=factor), 0.8)
        for name, factor in FACTORS.items()
    }
    operations['grayscale'] = color.to_gray, 0.2
    operations['blur'] = functools.partial(gaussian_blur, kernel=23, sigma=1.0), 0.5
    spent: dict[str, float] = {}

    def timed(stage: str, weight: float, call: Callable, *args):
        start = time.perf_counter()
        value = call(*args)
        elapsed = 1000 * weight * (time.perf_counter() - start) / len(files)
        spent[stage] = spent.get(stage, 0.0) + elapsed
        return value

    samples = []
    for index, file in enumerate(files):
        timed('read', 1, Path(file).read_bytes)
        img = timed('read and decode', 1, decoder, dict(img_path=file))['img']
        both = timed('crop', 1, crop, dict(img=img, sample_idx=SampleIndex(index)))['img']
        view = cv2.merge(list(both[0]))
        for stage, (operation, share) in operations.items():
            timed(stage, 2 * share, operation, view)
        samples.append(torch.from_numpy(both))
    timed('collate', 1, default_collate, samples)
    return spent


def rate_table(rates: dict[str, list[float]], title: str) -> Table:
    """Rates, and how often ours, the first one, has them."""
    rows, caption, reference = [], '', next(iter(rates))
    for name, values in rates.items():
        times = '' if name == reference else f'{ratio(rates[reference], values):.2f}x'
        rows.append((name, spread(values), times))
    if DECODE in rates:
        share = ratio(rates[DEVICE], rates[DECODE])
        caption = f'For the device: {share:.2f} of the rate of decoding alone'
    columns = ('', 'images/s, median (lowest-highest)', f'{reference} has')
    return table_of(title, columns, rows, caption)


def stage_table(stages: dict[str, float]) -> Table:
    rows = [(stage, f'{milliseconds:.2f}') for stage, milliseconds in stages.items()]
    caption = (
        'Two views; the lowest of three rounds over the same images. An operation is '
        'timed on one view at one strength: twice that, times how often it is applied.'
    )
    return table_of('ms an image', ('', WORKER), rows, caption)


if __name__ == '__main__':
    main()
