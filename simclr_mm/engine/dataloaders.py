"""Dataloaders that can be built here, and those that could not train or resume."""

from collections.abc import Sized
from typing import Any, cast

import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.runner import Runner
from mmpretrain.models.backbones import ResNet
from torch import nn
from torch.utils.data import DataLoader

from simclr_mm.datasets import ResumableSampler
from simclr_mm.datasets.nested import transforms_of, views_in
from simclr_mm.errors import UserError
from simclr_mm.models import SimCLR
from simclr_mm.registry import type_name

from .loader_workers import prepare_workers
from .ranks import plain_model, require_same

_SMALL = 32  # pixels of a view


def fitting(dataloader: dict) -> dict:
    """A dataloader's config without options that PyTorch refuses if there are no workers."""
    if not torch.cuda.is_available():
        dataloader = {**dataloader, 'pin_memory': False}  # it would only warn
    if dataloader.get('num_workers', 0) > 0:
        return dataloader
    of_workers = ('persistent_workers', 'prefetch_factor', 'multiprocessing_context')
    return {key: value for key, value in dataloader.items() if key not in of_workers}


def data_roots(dataset: object, key: str = '{val,test}_dataloader.dataset') -> list[str]:
    """Command-line options that set the image folders of a dataset."""
    if not isinstance(dataset, dict):  # it is built
        return []
    if dataset['type'] == 'simclr_mm.ReplaceUnreadable':  # our loops put it there
        return data_roots(dataset['dataset'], 'train_dataloader.dataset')
    roots = [f'{key}.data_root=DIR'] if 'data_root' in dataset else []
    for part in ('dataset', 'gallery', 'query'):
        if part in dataset:
            roots += data_roots(dataset[part], f'{key}.{part}')
    return roots


def data_layout(runner: Runner) -> str:
    """What has to stay the same for a resumed run to continue the interrupted one."""
    loader = runner.train_dataloader
    ranks, batch_size = loader.sampler.dealt or (runner.world_size, loader.batch_size)
    order = ''
    if loader.sampler.shards_at_once is not None:
        order = f', {loader.sampler.shards_at_once} shards at once'
    if loader.sampler.groups is not None:
        order = f', groups {loader.sampler.groups}'
    return f'{len(loader.dataset)} images in {len(loader)} steps of {ranks} x {batch_size}{order}'


def build_train_dataloader(runner: Runner, dataloader: DataLoader | dict) -> DataLoader:
    """Build the config's ``train_dataloader`` and refuse one that could not train or resume.

    A dataset built here replaces unreadable images.

    Raises:
        UserError: The sampler is no :class:`~simclr_mm.datasets.ResumableSampler`, the
            collate function cannot take a whole batch, the dataset is smaller than one batch of
            all ranks or not the same on all, a batch has one image, or ``diff_rank_seed``.
    """
    if runner._randomness_cfg.get('diff_rank_seed', False):
        raise UserError(
            'randomness.diff_rank_seed = True: the ranks could not share one '
            'permutation of the images. Views differ by image anyway; leave it out.'
        )
    if isinstance(dataloader, dict):
        dataset = dict(type='simclr_mm.ReplaceUnreadable', dataset=dataloader['dataset'])
        dataloader = runner.build_dataloader({**dataloader, 'dataset': dataset}, seed=runner.seed)
    sampler = getattr(dataloader, 'sampler', dataloader)
    if not isinstance(dataloader, DataLoader) or not isinstance(sampler, ResumableSampler):
        raise UserError(
            f'train_dataloader.sampler is {type_name(type(sampler))}: the loops of simclr_mm '
            "need dict(type='simclr_mm.ResumableSampler') in a config or a DataLoader."
        )
    prepare_workers(dataloader)
    dealt = getattr(runner, 'dealt', None)
    if dealt is not None:
        sampler.deal_as(*dealt)
        _check_last_batch(runner, dataloader, *dealt)
    collate = getattr(dataloader.collate_fn, 'func', dataloader.collate_fn)
    batched = getattr(dataloader.dataset, 'batched', False)
    if batched and collate in (default_collate, pseudo_collate):
        raise UserError(
            f'train_dataloader.collate_fn is {collate.__name__}, which needs single samples: '
            "write dict(type='simclr_mm.collate') for a dataset with batched=True."
        )
    if collate is pseudo_collate and not all(v.on_device for v in views_in(dataloader.dataset)):
        raise UserError(
            'train_dataloader.collate_fn is pseudo_collate, which leaves the views of each image '
            "apart: write collate_fn=dict(type='default_collate')."
        )
    _check_views(dataloader.dataset)
    _check_stem(runner, dataloader.dataset)
    _check_sizes(runner, dataloader)
    return dataloader


def _check_views(dataset: Any) -> None:
    """Datasets in one share batches, so their views have to fit together."""
    for what, number in (
        ('num_views', lambda views: views.num_views),
        ('size', lambda views: views.sizes if views.milestones else views.sizes[0]),
        ('milestones', lambda views: tuple(views.milestones)),
        ('augment', lambda views: 'device' if views.on_device else 'worker'),
        ('number of transforms', lambda views: views.on_device and max(map(len, views.pipelines))),
    ):
        found = {number(views) for views in views_in(dataset)}
        if len(found) > 1:
            raise UserError(
                f'train_dataloader.dataset: TwoViews differ in {what}, '
                f'{" and ".join(sorted(map(str, found)))}, and a batch takes one: give all the same'
            )


def _check_stem(runner: Runner, dataset: Any) -> None:
    """Say that the stem of a network for photographs leaves little of a small view."""
    side = max((max(views.sizes) for views in views_in(dataset)), default=_SMALL + 1)
    if side > _SMALL:
        return
    backbone = getattr(plain_model(runner), 'backbone', None)
    pool = getattr(backbone, 'maxpool', nn.Identity())  # ResNet_CIFAR has none
    if isinstance(backbone, ResNet) and not isinstance(pool, nn.Identity):
        runner.logger.warning(
            f'{type(backbone).__name__} divides the side of a view by 4 before its first block, '
            f'and views have {side} px: take ResNet_CIFAR, whose stem keeps it.'
        )


def _check_sizes(runner: Runner, loader: DataLoader) -> None:
    """Compare images and batch before the first step, and log the size of an epoch."""
    images, ranks = len(cast(Sized, loader.dataset)), runner.world_size
    batch, mine = cast(int, loader.batch_size), len(cast(Sized, loader.sampler))
    require_same(
        {'images in train_dataloader.dataset': images}, 'every rank needs the same training data.'
    )
    key = f'train_dataloader.batch_size = {batch} on {ranks} process(es)'
    if len(loader) == 0:
        raise UserError(
            f'the training dataset has {images} images, fewer than one batch: {key} takes '
            f'{batch * ranks}. Lower train_dataloader.batch_size or add images.'
        )
    last = batch if loader.drop_last else mine - (len(loader) - 1) * batch
    if last * ranks == 1 and isinstance(plain_model(runner), SimCLR):
        raise UserError(
            f'{images} images with {key} and train_dataloader.drop_last = {loader.drop_last} '
            'leave a batch of one image, which has no negatives. Set '
            'train_dataloader.drop_last=True or another batch_size.'
        )
    used = (len(loader) - 1) * batch * ranks + last * ranks
    runner.logger.info(
        f'{images} images: {len(loader)} steps an epoch of {ranks} x {batch} images, '
        f'{images - used} others left out in each epoch.'
    )


def _check_last_batch(runner: Runner, loader: DataLoader, ranks: int, batch_size: int) -> None:
    """Refuse ranks that cannot share the smaller last batch of an epoch equally."""
    last = ranks * (len(cast(Sized, loader.dataset)) // ranks % batch_size)
    if not loader.drop_last and last % runner.world_size:
        raise UserError(
            f'--resume: the last batch of an epoch has {last} images, which {runner.world_size} '
            f'processes cannot share equally: take a number of processes that divides {last}.'
        )


def say_sizes(runner: Runner, loader: DataLoader, epochs: int) -> None:
    """Log which epochs have views of which size, if they grow, and refuse too few epochs."""
    views = next(views_in(loader.dataset), None)
    if views is None or not views.milestones:
        return
    firsts = (1, *(number + 1 for number in views.milestones))
    stages = ', '.join(f'{size} px from epoch {k}' for size, k in zip(views.sizes, firsts))
    if epochs <= views.milestones[-1]:
        steps = transforms_of(loader.dataset)
        place = steps.index(views) if views in steps else '<its place>'
        raise UserError(
            f'TwoViews: milestones = {views.milestones} are not within training, which ends after '
            f'epoch {epochs}. So no view would have {views.sizes[-1]} px. Lower them, for example '
            f'with --cfg-options train_dataloader.dataset.pipeline.{place}.milestones="[...]"'
        )
    runner.logger.info(f'Views of {stages}.')
