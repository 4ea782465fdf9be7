"""Training loops that resume at any iteration as if they had never stopped."""

from collections.abc import Iterator, Sized
from typing import Any, cast

from mmengine.dataset import default_collate, pseudo_collate
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner, set_random_seed
from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from simclr_mm.datasets import ResumableSampler
from simclr_mm.errors import UserError
from simclr_mm.models import SimCLR
from simclr_mm.registry import LOOPS, type_name
from simclr_mm.transforms import TwoViews
from simclr_mm.transforms.random_streams import view_streams

from .allocator import prepare_workers
from .ranks import require_same, share_statistics
from .resume import LAYOUT
from .signals import held_back

# Keys in the message hub, and so in checkpoints. MMEngine logs those that begin with 'val'.
SAMPLER_SEED = 'sampler_seed'
EARLY_STOPPING, VALIDATED = 'early_stopping', 'iter_of_validation'
_OF_THE_MODEL = 2**36  # the view number of a step's draws, which no view has


def plain_model(runner: Runner) -> nn.Module:
    """The model without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


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
    _check_views(dataloader.dataset)
    _check_sizes(runner, dataloader)
    return dataloader


def views_in(dataset: Any) -> Iterator[TwoViews]:
    """Every TwoViews of a dataset and of the datasets in it."""
    for part in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
        if part is not None:
            yield from views_in(part)
    for each in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if isinstance(each, TwoViews):
            yield each


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


def _say_sizes(runner: Runner, loader: DataLoader, epochs: int) -> None:
    """Log which epochs have views of which size, if they grow, and refuse too few epochs."""
    views = next(views_in(loader.dataset), None)
    if views is None or not views.milestones:
        return
    firsts = (1, *(number + 1 for number in views.milestones))
    stages = ', '.join(f'{size} px from epoch {k}' for size, k in zip(views.sizes, firsts))
    if epochs <= views.milestones[-1]:
        steps = getattr(getattr(loader.dataset, 'pipeline', None), 'transforms', [])
        place = steps.index(views) if views in steps else '<its place>'
        raise UserError(
            f'TwoViews: milestones = {views.milestones} are not within training, which ends after '
            f'epoch {epochs}. So no view would have {views.sizes[-1]} px. Lower them, for example '
            f'with --cfg-options train_dataloader.dataset.pipeline.{place}.milestones="[...]"'
        )
    runner.logger.info(f'Views of {stages}.')


class _Resumable(BaseLoop):
    """The common part of both loops: data, and validations that a kill prevented."""

    makes_up_validation = True  # a checkpoint is saved before the validation of its step

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs) -> None:
        super().__init__(runner, build_train_dataloader(runner, dataloader), **kwargs)

    def _begin(self) -> None:
        info = self.runner.message_hub
        info.update_info(LAYOUT, data_layout(self.runner))
        info.update_info(SAMPLER_SEED, self.dataloader.sampler.seed)
        epochs = -(-self.max_iters // len(self.dataloader))
        _say_sizes(self.runner, self.dataloader, epochs)
        self.runner.call_hook('before_train')

    def run_iter(self, *args, **kwargs) -> None:
        # What the model draws, as dropout and Mixup do, is a function of the step. So resuming does
        # not change it.
        seed, step, rank = self.dataloader.sampler.seed, self.runner.iter, self.runner.rank
        (stream,) = view_streams(seed, step, rank, _OF_THE_MODEL, 1)
        set_random_seed(stream.next_word())
        super().run_iter(*args, **kwargs)

    def _validate_if_due(self, done: int, length: int) -> None:
        """Validate after ``done`` epochs or iterations, unless the checkpoint records it."""
        self._decide_current_val_interval()
        due = done >= self.val_begin and (done == length or done % self.val_interval == 0)
        validated = self.runner.message_hub.runtime_info.get(VALIDATED) == self.runner.iter
        if due and not validated and self.runner.val_loop is not None:
            averages = [hook.ema_model for hook in self.runner.hooks if isinstance(hook, EMAHook)]
            for model in (self.runner.model, *averages):
                share_statistics(model)
            self.runner.val_loop.run()


@LOOPS.register_module()
class EpochBasedTrainLoop(_Resumable, _EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which can also resume inside an epoch.

    Its arguments are those of MMEngine's loop. The dataloader has to pass
    :func:`build_train_dataloader`.
    """

    def run(self) -> nn.Module:
        self._begin()
        if self._epoch > 0 and self._iter == self._epoch * len(self.dataloader):
            self._validate_if_due(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._iter - self._epoch * len(self.dataloader)
        # After the hook, because DistSamplerSeedHook sets the epoch too.
        self.dataloader.sampler.set_epoch(self._epoch, first * self.dataloader.batch_size)
        with held_back():
            batches = iter(self.dataloader)
        for step, batch in enumerate(batches, start=first):
            self.run_iter(step, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class IterBasedTrainLoop(_Resumable, _IterBasedTrainLoop):
    """MMEngine's loop over iterations, in whole epochs of the dataset.

    Its arguments are those of MMEngine's loop. The dataloader has to pass
    :func:`build_train_dataloader`.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs) -> None:
        super().__init__(runner, dataloader, **kwargs)
        # It would start at the first image. In mmengine 0.10 it has started already.
        del self.dataloader_iterator

    def run(self) -> nn.Module:
        self._begin()
        self.runner.call_hook('before_train_epoch')
        if self._iter > 0:
            self._validate_if_due(self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self._run_rest_of_epoch()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _run_rest_of_epoch(self) -> None:
        epoch, first = divmod(self._iter, len(self.dataloader))
        self.dataloader.sampler.set_epoch(epoch, first * self.dataloader.batch_size)
        with held_back():
            batches = iter(self.dataloader)
        for batch in batches:
            self.runner.model.train()
            self.run_iter(batch)
            self._validate_if_due(self._iter, self._max_iters)
            if self._iter == self._max_iters or self.stop_training:
                return
