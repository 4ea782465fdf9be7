"""Training loops that continue from any iteration as if they had never stopped."""

import functools

from mmengine.dataset import default_collate, pseudo_collate
from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from simclr_mm.datasets import ResumableSampler
from simclr_mm.errors import UserError
from simclr_mm.registry import LOOPS

from .allocator import start_worker

# Keys in the message hub, and so in checkpoints.
DATA_LAYOUT, SAMPLER_SEED = 'data_layout', 'sampler_seed'


def data_layout(runner: Runner) -> str:
    """What has to stay the same for a resumed run to continue the one before."""
    loader = runner.train_dataloader
    order = ''
    if loader.sampler.shards_at_once is not None:
        order = f', {loader.sampler.shards_at_once} shards at once'
    return (
        f'{len(loader.dataset)} images in {len(loader)} steps of '
        f'{runner.world_size} x {loader.batch_size}{order}'
    )


def _remember_data(runner: Runner) -> None:
    runner.message_hub.update_info(DATA_LAYOUT, data_layout(runner))
    runner.message_hub.update_info(SAMPLER_SEED, runner.train_dataloader.sampler.seed)


def build_train_dataloader(runner: Runner, dataloader: dict) -> DataLoader:
    """Build ``train_dataloader`` and refuse one that could not train or resume.

    Args:
        runner: The runner whose seed and processes are used.
        dataloader: The config's ``train_dataloader``.

    Returns:
        A dataloader with a :class:`~simclr_mm.datasets.ResumableSampler` whose dataset
        replaces unreadable images.

    Raises:
        ValueError: Another sampler, a collate function that cannot take a whole batch,
            a dataset smaller than one global batch, or ``diff_rank_seed``, with which
            ranks would not share one permutation.
    """
    if runner._randomness_cfg.get('diff_rank_seed', False):
        raise UserError(
            'randomness.diff_rank_seed = True: the ranks could not share one '
            'permutation of the images. Views differ by image anyway; leave it out.'
        )
    dataset = dict(type='simclr_mm.ReplaceUnreadable', dataset=dataloader['dataset'])
    loader = runner.build_dataloader({**dataloader, 'dataset': dataset}, seed=runner.seed)
    loader.worker_init_fn = functools.partial(start_worker, loader.worker_init_fn)
    if not isinstance(loader.sampler, ResumableSampler):
        raise UserError(
            f'train_dataloader.sampler is {type(loader.sampler).__name__}: the loops '
            "of simclr_mm need dict(type='simclr_mm.ResumableSampler')."
        )
    collate = getattr(loader.collate_fn, 'func', loader.collate_fn)
    if loader.dataset.batched and collate in (default_collate, pseudo_collate):
        raise UserError(
            f'train_dataloader.collate_fn is {collate.__name__}, which puts single '
            "samples together: write dict(type='simclr_mm.collate') for a dataset with "
            'batched=True.'
        )
    images = len(loader.dataset)
    global_batch = loader.batch_size * runner.world_size
    if len(loader) == 0:
        raise UserError(
            f'the training dataset has {images} images, fewer than one batch: '
            f'train_dataloader.batch_size = {loader.batch_size} on '
            f'{runner.world_size} process(es) takes {global_batch}. Lower '
            'train_dataloader.batch_size or add images.'
        )
    used = (
        len(loader) * global_batch
        if loader.drop_last
        else (len(loader.sampler) * runner.world_size)
    )
    runner.logger.info(
        f'{images} images: {len(loader)} steps an epoch of {runner.world_size} x '
        f'{loader.batch_size} images, {images - used} others left out in each epoch.'
    )
    return loader


@LOOPS.register_module()
class EpochBasedTrainLoop(_EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which also resumes inside an epoch.

    Args:
        runner: The runner.
        dataloader: The config's ``train_dataloader``.
        **kwargs: ``max_epochs``, ``val_begin``, ``val_interval`` and
            ``dynamic_intervals`` of MMEngine's loop.

    Raises:
        ValueError: See :func:`build_train_dataloader`.
    """

    def __init__(self, runner: Runner, dataloader: dict, **kwargs) -> None:
        super().__init__(runner, build_train_dataloader(runner, dataloader), **kwargs)

    def run(self):
        _remember_data(self.runner)
        return super().run()

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._iter - self._epoch * len(self.dataloader)
        # After the hook, because DistSamplerSeedHook sets the epoch too.
        self.dataloader.sampler.set_epoch(self._epoch, first * self.dataloader.batch_size)
        for step, batch in enumerate(self.dataloader, start=first):
            self.run_iter(step, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class IterBasedTrainLoop(_IterBasedTrainLoop):
    """MMEngine's loop over iterations, in whole epochs of the dataset.

    Args:
        runner: The runner.
        dataloader: The config's ``train_dataloader``.
        **kwargs: ``max_iters``, ``val_begin``, ``val_interval`` and
            ``dynamic_intervals`` of MMEngine's loop.

    Raises:
        ValueError: See :func:`build_train_dataloader`.
    """

    def __init__(self, runner: Runner, dataloader: dict, **kwargs) -> None:
        super().__init__(runner, build_train_dataloader(runner, dataloader), **kwargs)
        # It would go on from the first image; in mmengine 0.10 it has begun already.
        del self.dataloader_iterator

    def run(self):
        _remember_data(self.runner)
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        while self._iter < self._max_iters and not self.stop_training:
            self._run_rest_of_epoch()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _run_rest_of_epoch(self) -> None:
        epoch, first = divmod(self._iter, len(self.dataloader))
        self.dataloader.sampler.set_epoch(epoch, first * self.dataloader.batch_size)
        for batch in self.dataloader:
            self.runner.model.train()
            self.run_iter(batch)
            self._decide_current_val_interval()
            last = self._iter == self._max_iters
            if (
                self.runner.val_loop is not None
                and self._iter >= self.val_begin
                and (last or self._iter % self.val_interval == 0)
            ):
                self.runner.val_loop.run()
            if last or self.stop_training:
                return
