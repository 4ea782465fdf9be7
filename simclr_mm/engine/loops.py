"""Training loops that resume at any iteration as if they had never stopped."""

from mmengine.hooks import EMAHook
from mmengine.runner import BaseLoop, Runner, set_random_seed
from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from simclr_mm.registry import LOOPS
from simclr_mm.transforms.random_streams import view_streams

from .dataloaders import build_train_dataloader, data_layout, say_sizes
from .ranks import share_statistics
from .resume import LAYOUT, SAMPLER_SEED, VALIDATED
from .signals import held_back

_OF_THE_MODEL = 2**36  # the view number of a step's draws, which no view has


class _Resumable(BaseLoop):
    """The common part of both loops: data, and validations that a kill prevented."""

    makes_up_validation = True  # a checkpoint is saved before the validation of its step

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs) -> None:
        super().__init__(runner, build_train_dataloader(runner, dataloader), **kwargs)

    def _begin(self) -> None:
        info = self.runner.message_hub
        if getattr(self.runner, '_resume', False):  # MMEngine's runner restores its own seed alone
            sampler = self.dataloader.sampler
            sampler.seed = info.runtime_info.get(SAMPLER_SEED, sampler.seed)
        info.update_info(LAYOUT, data_layout(self.runner))
        info.update_info(SAMPLER_SEED, self.dataloader.sampler.seed)
        epochs = -(-self.max_iters // len(self.dataloader))
        say_sizes(self.runner, self.dataloader, epochs)
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
