"""Whole loaders of CIFAR-10: ours with its config, and mmpretrain's transforms."""

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mmpretrain
import torch
from input_peers import repair_hue
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch.utils.data import DataLoader, Sampler

from simclr_mm.datasets import SampleIndex
from simclr_mm.engine import Runner
from simclr_mm.registry import MODELS as OUR_MODELS
from simclr_mm.registry import type_name

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CIFAR = CONFIGS / 'simclr_r18_1xb512-coslr-100e_cifar10.py'


def their_views(size: int) -> list[dict]:
    """mmpretrain's SimCLR views; at 32 pixels with the paper's changes for CIFAR-10.

    These are strength 0.5 and no blur (Sec. B.9).
    """
    base = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / '_base_'
    cfg = Config.fromfile(base / 'datasets' / 'imagenet_bs32_simclr.py')
    view = cfg.view_pipeline
    view[0].scale = size
    if size == 32:
        view = view[:-1]
        view[2].transforms = [
            dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
        ]
    return [dict(type='MultiView', num_views=2, transforms=[view]), dict(type='PackInputs')]


def their_loader(ours: dict, size: int) -> dict:
    """A train_dataloader like ours with mmpretrain's views, image by image."""
    dataset = {key: value for key, value in ours.dataset.items() if key != 'batched'}
    loading = [dict(type='LoadImageFromFile')]
    files = type_name(ours.dataset.pipeline[0]) == 'LoadImageFromFile'
    dataset['pipeline'] = (loading if files else []) + their_views(size)
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
    """The last batches of a loader from :func:`cut`, taken without a pause and preprocessed.

    An epoch of the loader is a round and what comes before it, while workers start and
    fill their queues: nothing runs in the background of what is timed next.
    """

    def __init__(self, loader: DataLoader, preprocessor: Callable, batches: int):
        self.loader, self.preprocessor = loader, preprocessor
        self.before = len(loader) - batches

    def __call__(self) -> float:
        start = time.perf_counter()
        for done, batch in enumerate(self.loader, start=1):
            self.preprocessor(batch)
            if done == self.before:
                start = time.perf_counter()
        return time.perf_counter() - start


class Cycle(Sampler):
    """Images in random order, repeated until their number is reached."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.epoch = 0

    def __iter__(self) -> Iterator[SampleIndex]:
        self.epoch += 1
        order = torch.randperm(self.length).tolist()
        for place in range(self.images):
            yield SampleIndex(order[place % self.length], epoch=self.epoch)

    def __len__(self) -> int:
        return self.images


def cut(loader: dict, batches: int) -> DataLoader:
    """Build a loader whose epoch has these batches, after others that fill its queues."""
    batches += 2 * loader['num_workers']  # torch's prefetch_factor
    sampler = Cycle(batches * loader['batch_size'])
    built = Runner.build_dataloader(dict(loader, sampler=sampler), seed=0)
    built.sampler.length = len(built.dataset)
    return built


def cifar_loaders(folder: Path, images: int, workers: int) -> tuple[dict[str, Callable], int]:
    """Rounds of batches of 512, preprocessed on the CPU, and the number of images of a round.

    Images are rounded up to whole batches for each worker of mmpretrain's loader.
    """
    batches = -(-images // 512 // workers) * workers
    cfg = Config.fromfile(CIFAR)
    ours = cfg.train_dataloader
    ours.dataset.data_root = str(folder)
    preprocessor = OUR_MODELS.build(cfg.data_preprocessor)
    rounds = {'simclr_mm, its config': Round(cut(ours, batches), preprocessor, batches)}
    with_workers = dict(num_workers=workers, persistent_workers=True, pin_memory=False)
    each = copy.deepcopy(ours)
    each.dataset.pop('batched', None)
    each.update(with_workers, collate_fn=dict(type='default_collate'))
    rounds[f'simclr_mm, image by image, {workers} workers'] = Round(
        cut(each, batches), preprocessor, batches
    )
    repair_hue()
    their_preprocessor = MODELS.build(
        dict(cfg.data_preprocessor, type='mmpretrain.SelfSupDataPreprocessor')
    )
    theirs = dict(their_loader(ours, 32), **with_workers)
    loaders = {'arrays': theirs}
    if (folder / 'train').is_dir():
        pipeline = [dict(type='LoadImageFromFile'), *theirs['dataset']['pipeline']]
        loaders['JPEG files'] = dict(
            theirs,
            dataset=dict(
                type='CustomDataset',
                data_root=str(folder / 'train'),
                with_label=False,
                pipeline=pipeline,
            ),
        )
    for name, loader in loaders.items():
        rounds[f'mmpretrain, {workers} workers, {name}'] = Round(
            cut(loader, batches), their_preprocessor, batches
        )
    return rounds, 512 * batches
