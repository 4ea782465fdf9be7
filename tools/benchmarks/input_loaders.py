"""Loaders of two views, ours and mmpretrain's, and rounds of their batches."""

import copy
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch
from input_peers import imagenet_simclr
from mmengine.config import Config
from mmpretrain.registry import MODELS
from timing import wait
from torch.utils.data import DataLoader, Sampler

from simclr_mm.datasets import SampleIndex
from simclr_mm.engine import Runner
from simclr_mm.registry import MODELS as OUR_MODELS
from simclr_mm.registry import type_name

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CIFAR = CONFIGS / 'simclr_r18_1xb512-coslr-100e_cifar10.py'


def their_loader(ours: dict, size: int) -> dict:
    """A train_dataloader like ours with mmpretrain's SimCLR views, image by image.

    At 32 pixels they have the paper's changes for CIFAR-10: strength 0.5 and no blur (Sec. B.9).
    """
    view = imagenet_simclr().view_pipeline
    view[0].scale = size
    if size == 32:
        view = view[:-1]
        view[2].transforms = [
            dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        ]
    views = [dict(type='MultiView', num_views=2, transforms=[view]), dict(type='PackInputs')]
    files = type_name(ours.dataset.pipeline[0]) == 'LoadImageFromFile'
    dataset = {key: value for key, value in ours.dataset.items() if key != 'batched'}
    dataset['pipeline'] = [dict(type='LoadImageFromFile'), *views] if files else views
    return dict(
        batch_size=ours.batch_size,
        num_workers=ours.num_workers,
        persistent_workers=ours.num_workers > 0,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )


class Round:
    """The last ``count`` batches, each given to ``step``, timed without a pause.

    The batches before them are not timed: workers start and fill their queues. So nothing runs in
    the background of what is timed next. The device may compute while the host waits for data.
    So on a GPU compare the time with that of batches in memory instead.
    """

    def __init__(self, batches: Collection[dict], count: int, step: Callable[[dict], object]):
        self.batches, self.step = batches, step
        self.before = len(batches) - count
        self.waits: list[float] = []  # share of each round that the steps wait for data
        self.peak = 0.0  # MB

    def __call__(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start = before = time.perf_counter()
        waited = 0.0
        for done, batch in enumerate(self.batches, start=1):
            waited += time.perf_counter() - before
            self.step(batch)
            if done == self.before:
                wait()
                start, waited = time.perf_counter(), 0.0
            before = time.perf_counter()
        wait()
        seconds = time.perf_counter() - start
        self.waits.append(waited / seconds)
        if torch.cuda.is_available():
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() / 1e6)
        return seconds


class Cycle(Sampler):
    """Images in random order, repeated until the batches are full.

    The batches are spread over the epochs of a training, for views that grow with them.
    """

    def __init__(self, batches: int, batch_size: int, epochs: int) -> None:
        self.batches, self.batch_size, self.epochs = batches, batch_size, epochs

    def __iter__(self) -> Iterator[SampleIndex]:
        order = torch.randperm(self.length).tolist()
        for place in range(len(self)):
            epoch = place // self.batch_size * self.epochs // self.batches
            yield SampleIndex(order[place % self.length], epoch=epoch)

    def __len__(self) -> int:
        return self.batches * self.batch_size


def cut(loader: dict, batches: int, epochs: int = 1) -> DataLoader:
    """Build a loader whose epoch has these batches, after others that fill its queues."""
    batches += 2 * loader['num_workers']  # torch's prefetch_factor
    sampler = Cycle(batches, loader['batch_size'], epochs)
    built = Runner.build_dataloader(dict(loader, sampler=sampler), seed=0)
    built.sampler.length = len(built.dataset)
    return built


def cifar_loaders(folder: Path, images: int, workers: int) -> tuple[dict[str, Round], int]:
    """Rounds of batches of 512, preprocessed on the CPU, and the number of images of a round.

    Images are rounded up to whole batches for each worker of mmpretrain's loader.
    """
    batches = -(-images // 512 // workers) * workers
    cfg = Config.fromfile(CIFAR)
    ours = cfg.train_dataloader
    ours.dataset.data_root = str(folder)
    theirs = their_loader(ours, 32)
    each = copy.deepcopy(ours)
    each.dataset.pop('batched', None)
    each.collate_fn = dict(type='default_collate')
    our_preprocessor = OUR_MODELS.build(cfg.data_preprocessor)
    their_preprocessor = MODELS.build(
        dict(cfg.data_preprocessor, type='mmpretrain.SelfSupDataPreprocessor')
    )
    rounds = {'simclr_mm, its config': Round(cut(ours, batches), batches, our_preprocessor)}
    loaders = {
        f'simclr_mm, image by image, {workers} workers': (each, our_preprocessor),
        f'mmpretrain, {workers} workers, arrays': (theirs, their_preprocessor),
    }
    if (folder / 'train').is_dir():
        pipeline = [dict(type='LoadImageFromFile'), *theirs['dataset']['pipeline']]
        files = dict(type='CustomDataset', data_root=str(folder / 'train'), with_label=False)
        loader = dict(theirs, dataset=dict(files, pipeline=pipeline))
        loaders[f'mmpretrain, {workers} workers, JPEG files'] = loader, their_preprocessor
    for name, (loader, preprocessor) in loaders.items():
        loader = dict(loader, num_workers=workers, persistent_workers=True, pin_memory=False)
        rounds[name] = Round(cut(loader, batches), batches, preprocessor)
    return rounds, 512 * batches
