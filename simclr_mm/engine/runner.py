"""MMEngine's runner with CPU ranks, strict loading and exact resuming."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, is_distributed
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIMIZERS, DefaultScope
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as _Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from simclr_mm.checkpoints import (
    forget,
    install_safe_loading,
    model_state,
    read_checkpoint,
    weights_hash,
)
from simclr_mm.datasets import ResumableSampler
from simclr_mm.datasets.unreadable import refuse_drops
from simclr_mm.errors import CheckpointError, MissingFileError, UserError
from simclr_mm.evaluation.gather import install_gathering
from simclr_mm.files.atomic import require_local
from simclr_mm.files.storage import is_url
from simclr_mm.files.walk import printable
from simclr_mm.models import SimCLR
from simclr_mm.registry import RUNNERS

from . import console, signals
from .allocator import keep_freed_memory
from .arguments import check_config
from .config_errors import building_from, check_type
from .dataloaders import data_layout, data_roots, fitting
from .hang_watch import MARGIN, TIMEOUT, HangWatch
from .hooks.checkpoint_hook import CheckpointHook
from .hooks.free_cores import FreeCoresHook
from .hooks.progress_bar import ProgressBarHook
from .learning_rate import check_schedules, scale_or_warn, scales_linearly
from .loader_workers import prepare_workers
from .optim_wrapper import check_clipping
from .ranks import meet, on_first_rank, plain_model, require_same, versions
from .resume import (
    EARLY_STOPPING,
    LAYOUT,
    SAMPLER_SEED,
    TEACHER,
    check_resumable,
    check_teacher,
    former_ranks,
    latest_checkpoint,
    shared_settings,
)
from .work_dir_lock import WorkDirLock

_MMENGINE_HOOKS = 'runtime_info timer sampler_seed logger param_scheduler checkpoint'.split()
_built = itertools.count(1)  # runners of this process


@RUNNERS.register_module()
class Runner(_Runner):
    """The runner of every config of this package, named by ``runner_type='simclr_mm.Runner'``.

    Its arguments are those of MMEngine's Runner.

    Raises:
        UserError: Settings that a resumed run cannot change are changed or differ between
            ranks, another run trains in the work dir, or a part cannot be built.
        CheckpointError: A checkpoint's keys or shapes differ from the model's, it cannot be
            resumed, or it is another file on another rank.

    Differs from MMEngine's Runner:
        - ranks also run on CPUs, with gloo; BN then stays local, with a warning;
        - missing and unexpected keys are errors, and checkpoints cannot run code;
        - a batch that differs from ``auto_scale_lr.base_batch_size``, and gradient
          accumulation, which adds no negatives, give a warning;
        - a schedule that ends after the run is an error, and so is ``compile``, which would
          compile SimCLR's training step with its data and loss;
        - ``resume='auto'`` resumes the latest checkpoint, and loads ``load_from`` if there is none;
        - rank 0 chooses the checkpoint to resume from, and all ranks compare what they read;
        - ranks that wait for each other for ``env_cfg.dist_cfg.timeout`` seconds, by default 600,
          end with exit code 124 and the name of the rank that they wait for;
        - a run can be resumed on another number of ranks, which share its batches; ranks that
          find no checkpoint to resume save one before the first step;
        - metrics are gathered through the process group, not through files;
        - None in ``default_hooks`` switches off every hook, not only MMEngine's six;
        - convolution weights on a GPU are channels-last, like the images.
    """

    def __init__(self, *args, **kwargs) -> None:
        install_safe_loading()
        install_gathering()
        self._resumed_from: str | None = None
        self._only_evaluated = False  # what is loaded was loaded by val() or test()
        self._watch: HangWatch | None = None
        self.dealt: tuple[int, int] | None = None  # ranks and batch of the run that is resumed
        self.saves_start = False  # ranks that are started again may be fewer and need the batch
        if not torch.cuda.is_available():
            keep_freed_memory()
        cfg = kwargs.get('cfg') or {}
        number = next(_built)
        if number > 1:  # MMEngine shares logger and scope between runs of one name and second
            name = kwargs.get('experiment_name') or Path(getattr(cfg, 'filename', '') or '').stem
            kwargs['experiment_name'] = f'{name}_{number}'.lstrip('_')
        with building_from(cfg):
            super().__init__(*args, **kwargs)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        console.set_up(logger)
        return logger

    @classmethod
    def from_cfg(cls, cfg: Config) -> _Runner:
        check_work_dir(cfg.get('work_dir') or '')
        check_config(cfg)
        return super().from_cfg(cfg)

    def setup_env(self, env_cfg: dict) -> None:
        dist_cfg = env_cfg.get('dist_cfg') or {}
        waiting = dist_cfg.get('timeout', TIMEOUT)
        if not isinstance(waiting, (int, float)) or not waiting > 0:
            raise UserError(f'env_cfg.dist_cfg.timeout = {waiting!r}: give seconds above 0.')
        if self.distributed and not torch.cuda.is_available() and not is_distributed():
            if self.launcher != 'pytorch':
                raise UserError(
                    f'--launcher {self.launcher} needs GPUs: start ranks on CPUs with '
                    'tools/dist_train.sh or torchrun and --launcher pytorch.'
                )
            meet(waiting + MARGIN)
        if dist_cfg.get('init_backend') != 'colossalai':  # it takes no time-out
            dist_cfg = {**dist_cfg, 'timeout': waiting + MARGIN}
        super().setup_env({**env_cfg, 'dist_cfg': dist_cfg})
        if self.distributed and {'MASTER_ADDR', 'MASTER_PORT'} <= set(os.environ):
            self._watch = HangWatch(
                self.rank, self.world_size, waiting, self.timestamp, self._progress
            )
            self._watch.start()
        require_same(versions(), 'install the same packages for every rank.')
        require_same(shared_settings(self.cfg), 'give every rank the same config.')

    def _progress(self) -> str:
        loop = getattr(self, '_train_loop', None)
        return f'iteration {loop.iter + 1}' if isinstance(loop, BaseLoop) else 'before training'

    def register_default_hooks(self, hooks: dict[str, Hook | dict | None] | None = None) -> None:
        kept = {}
        for name, hook in (hooks or {}).items():
            if hook is None:
                self.logger.info(f'Switched off: default_hooks.{name}.')
            if hook is not None or name in _MMENGINE_HOOKS:  # MMEngine leaves out its own
                kept[name] = hook
        super().register_default_hooks(kept)

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args, **kwargs) -> DataLoader:
        if isinstance(dataloader, DataLoader):
            return dataloader
        # Outside a run the scope is unset or MMEngine's, which lacks mmpretrain's names.
        current = DefaultScope.get_current_instance()
        named = current is not None and current.scope_name != 'mmengine'
        try:
            with DefaultScope.overwrite_default_scope(None if named else 'mmpretrain'):
                loader = _Runner.build_dataloader(fitting(dataloader), *args, **kwargs)
        except FileNotFoundError as error:
            options = ' '.join(data_roots(dataloader['dataset']))
            if not options:
                raise
            raise MissingFileError(
                f'{str(error).removesuffix(".")}. Put the data there, or give their folder: --data '
                f'DIR, or --cfg-options {options}'
            ) from error
        prepare_workers(loader)
        return loader

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if torch.cuda.is_available():
            # Else cuDNN reorders each weight in each pass. The values stay the same.
            model = model.to(memory_format=torch.channels_last)
        if not self.distributed or torch.cuda.is_available():
            return super().wrap_model(model_wrapper_cfg, model)
        if model_wrapper_cfg is not None:
            raise UserError(
                'model_wrapper_cfg needs GPUs: on CPU ranks the model is '
                'wrapped in MMDistributedDataParallel. Leave it out.'
            )
        if any(isinstance(m, _NormBase) for m in model.modules()):
            self.logger.warning(
                'BatchNorm uses the statistics of each process alone: SyncBN exists on GPUs only.'
            )
        return MMDistributedDataParallel(
            module=revert_sync_batchnorm(model),
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get('find_unused_parameters', False),
        )

    def _maybe_compile(self, target: str) -> None:
        if self.cfg.get('compile') and isinstance(plain_model(self), SimCLR):
            raise UserError(
                f'compile = {self.cfg.compile} compiles {target} with its data and its '
                'loss, which is slow or fails. Leave it out and compile the backbone: '
                f'model.compile_backbone={self.cfg.compile}'
            )
        super()._maybe_compile(target)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        loop = super().build_train_loop(loop)
        check_schedules(self.param_schedulers, loop)
        return loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        loop = super().build_val_loop(loop)
        refuse_drops(loop.dataloader.dataset)
        images = {'images in val_dataloader.dataset': len(loop.dataloader.dataset)}
        require_same(images, 'every rank needs the same validation data.')
        return loop

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        loop = super().build_test_loop(loop)
        refuse_drops(loop.dataloader.dataset)
        return loop

    def build_optim_wrapper(
        self, optim_wrapper: Optimizer | OptimWrapper | dict
    ) -> OptimWrapper | OptimWrapperDict:
        optimizer = optim_wrapper.get('optimizer') if isinstance(optim_wrapper, dict) else None
        if isinstance(optimizer, dict):  # MMEngine's error does not name it
            check_type(OPTIMIZERS, optimizer.get('type'), 'optim_wrapper.optimizer.type')
        elif isinstance(optimizer, str):
            wanted = 'give a dict with its type and lr'
            raise UserError(f'optim_wrapper.optimizer = {optimizer!r}: {wanted}')
        wrapper = super().build_optim_wrapper(optim_wrapper)
        check_clipping(wrapper)
        count = getattr(wrapper, '_accumulative_counts', 1)
        if count > 1 and isinstance(plain_model(self), SimCLR):
            batch = self.train_dataloader.batch_size
            self.logger.warning(
                f'optim_wrapper.accumulative_counts = {count} adds no negatives: the '
                f'loss still compares the {batch} images of one batch. To compare '
                f'{count * batch} in the same memory set train_dataloader.batch_size='
                f'{count * batch} and model.micro_batch_size={batch} instead.'
            )
        return wrapper

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        if not auto_scale_lr:
            return
        if scales_linearly(auto_scale_lr):
            super().scale_lr(optim_wrapper, auto_scale_lr)
            return
        batch = self.train_dataloader.batch_size * self.world_size
        scale_or_warn(optim_wrapper, auto_scale_lr, batch, self.logger)

    def train(self) -> nn.Module:
        try:
            with WorkDirLock(self.work_dir, self.logger), building_from(self.cfg):
                self._has_loaded: bool
                if self._only_evaluated:  # training initialises the weights anew
                    self._has_loaded = self._only_evaluated = False
                self._choose_checkpoint()
                self._take_over_batches()
                return super().train()
        finally:
            signals.restore()
            if self._watch is not None:
                self._watch.stop()
            for hook in self.hooks:
                if isinstance(hook, (FreeCoresHook, ProgressBarHook)):
                    hook.stop()

    def val(self) -> dict:
        with self._weights_alone(), building_from(self.cfg):
            return super().val()

    def test(self) -> dict:
        with self._weights_alone(), building_from(self.cfg):
            return super().test()

    @contextmanager
    def _weights_alone(self) -> Iterator[None]:
        """Evaluate ``load_from`` with the config of a run that is resumed, by ``train()`` later."""
        self._resume: bool | str
        resume, loaded = self._resume, self._has_loaded
        self._resume = resume and self._load_from is None
        try:
            yield
        finally:
            self._resume = resume
            self._only_evaluated |= self._has_loaded and not loaded

    def _choose_checkpoint(self) -> None:
        self._load_from: str | None
        if not self._resume and os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') != '0':
            self.logger.warning('torchrun starts this run again, from its first step: add --resume')
        if self._resume == 'auto' or (self._resume and self._load_from is None):
            hooks = [hook for hook in self.hooks if isinstance(hook, CheckpointHook)]
            store = hooks[0].store(self.work_dir) if hooks else ''
            latest = on_first_rank(lambda: latest_checkpoint(self.work_dir, store))
            self._resume = latest is not None
            self._load_from = latest or self._load_from  # weights to begin with
            self.saves_start = self.distributed and not self._resume
            self.logger.info(f'The latest checkpoint of {self.work_dir}: {latest}.')

    def _take_over_batches(self) -> None:
        """On another number of ranks than before, take a part of each batch as large as needed."""
        self._train_dataloader: DataLoader | dict | None
        loader, source = self._train_dataloader, self._load_from
        if not self._resume or source is None or not isinstance(loader, dict):
            return  # a loader that is built keeps its batches
        self.dealt = on_first_rank(lambda: self._former_ranks(source, loader.get('batch_size', 1)))
        if self.dealt is None:
            return
        ranks, before = self.dealt
        now = ranks * before // self.world_size
        self._train_dataloader = {**loader, 'batch_size': now}
        memory = ''
        if now > before and isinstance(plain_model(self), SimCLR):
            memory = f' If {now} do not fit into memory, set model.micro_batch_size={before}.'
        self.logger.warning(
            f'{source} was saved by {ranks} x {before} images a step, and this run takes '
            f'{self.world_size} x {now}: the same images in the same order, with the same '
            f'views.{memory}'
        )
        synced = torch.cuda.is_available() and self.cfg.get('sync_bn')
        model = plain_model(self).train()
        if not synced and any(isinstance(m, _NormBase) and m.training for m in model.modules()):
            self.logger.warning(
                'The losses will differ from those on as many processes as before: BatchNorm '
                'computes its statistics from the images of each process alone. '
                "On GPUs sync_bn='torch' computes them from all."
            )

    def _former_ranks(self, source: str, batch_size: int) -> tuple[int, int] | None:
        try:
            checkpoint = read_checkpoint(source)
        except (CheckpointError, OSError):  # load_or_resume says it, of every rank
            return None
        return former_ranks(checkpoint, source, self.world_size, batch_size)

    def load_or_resume(self) -> None:
        if self._has_loaded:
            return
        self._choose_checkpoint()
        source = self._load_from
        if self.world_size == 1 or source is None:
            super().load_or_resume()
            self._forget_copy()
            return
        problem = None
        try:
            super().load_or_resume()
        except (UserError, OSError) as error:
            problem = str(error) if source in str(error) else f'{source}: {error}'
        for rank, text in enumerate(all_gather_object(problem)):
            if text is not None:
                raise CheckpointError(f'rank {rank} cannot load {text}')
        weights = weights_hash(plain_model(self).state_dict())[:12]
        found = dict(epoch=self.epoch, iter=self.iter, weights=weights)
        require_same(found, f'{source} has to be the same file on every rank.')
        self._forget_copy()

    def _forget_copy(self) -> None:
        """A run that is resumed often would fill the cache, with a file each time."""
        if self._resumed_from is not None and is_url(self._resumed_from):
            forget(self._resumed_from)

    def _init_model_weights(self) -> None:
        super()._init_model_weights()
        require_same(
            {'SHA-256 of model.teacher': self._teacher_sha256()},
            'every rank needs the same teacher.',
        )

    def _teacher_sha256(self) -> str:
        return getattr(plain_model(self), 'teacher_sha256', '')  # of Distillation

    def load_checkpoint(
        self, filename: str, map_location: str | Callable = 'cpu', strict: bool = True, **kwargs
    ) -> dict:
        try:
            checkpoint = super().load_checkpoint(filename, map_location, strict, **kwargs)
        except CheckpointError:
            raise
        except (AttributeError, TypeError):
            model_state(read_checkpoint(filename), filename)  # says what the file lacks
            raise
        except RuntimeError as error:  # lists missing, unexpected and mismatched keys
            problems = ' '.join(str(error).split())
            raise CheckpointError(
                f'{filename} does not fit: {problems}; take the config that the '
                'checkpoint was made with'
            ) from error
        if self._resumed_from is not None:
            check_resumable(checkpoint, self.cfg, filename, self.logger)
            check_teacher(checkpoint, self._teacher_sha256(), filename)
            averages = any(isinstance(hook, EMAHook) for hook in self.hooks)
            if 'ema_state_dict' in checkpoint and not averages:
                raise UserError(
                    f'{filename} holds averaged weights where the trained ones are expected, as '
                    'EMAHook saves them, and this run has no EMAHook: put it back into custom_hooks'
                )
            checkpoint['meta'].pop('config', None)  # MMEngine would run it as Python
        return checkpoint

    def resume(self, filename: str, *args, **kwargs) -> None:
        self._resumed_from = filename
        super().resume(filename, *args, **kwargs)
        info = self.message_hub.runtime_info
        sampler = self.train_dataloader.sampler
        if isinstance(sampler, ResumableSampler):
            # It was built before the checkpoint's seed was known.
            sampler.seed = info.get(SAMPLER_SEED, self.seed)
            layout = data_layout(self)
            saved = info.get(LAYOUT, layout)
            if saved != layout:
                raise UserError(
                    f'{filename} was saved by a run of {saved}, this one has {layout}: resume with '
                    'the same dataset and train_dataloader.batch_size, or start again from it with '
                    'load_from. The number of processes may change, if they can share a batch.'
                )
        else:
            self.logger.warning(
                "MMEngine's loops do not continue exactly: the images and views of the epochs that "
                'follow are others than without the stop. The loops of simclr_mm do.'
            )
        for hook in self._stopping_hooks():
            state = info.get(EARLY_STOPPING, {}).get(hook.monitor)
            if state is not None:
                hook.wait_count, hook.best_score = state

    def save_checkpoint(self, *args, **kwargs) -> None:
        # MMEngine's early stopping does not save its own state.
        hooks = self._stopping_hooks()
        state = {hook.monitor: [hook.wait_count, hook.best_score] for hook in hooks}
        self.message_hub.update_info(EARLY_STOPPING, state)
        if self._teacher_sha256():
            kwargs['meta'] = {**(kwargs.get('meta') or {}), TEACHER: self._teacher_sha256()}
        super().save_checkpoint(*args, **kwargs)

    def _stopping_hooks(self) -> list[EarlyStoppingHook]:
        return [hook for hook in self.hooks if isinstance(hook, EarlyStoppingHook)]


def check_work_dir(place: str | Path) -> None:
    """Refuse a work dir before the work.

    Raises:
        UserError: It is a URL, or no UTF-8, in which TensorBoard and others cannot write.
    """
    place = str(place)
    require_local(place)
    if printable(place) != place:
        raise UserError(f'work_dir = {printable(place)} is no UTF-8: name another folder')


def build_runner(cfg: Config) -> _Runner:
    """Build the runner that the config names."""
    kind = cfg.get('runner_type')
    check_type(RUNNERS, kind, 'runner_type')
    kind = RUNNERS.get(kind) if isinstance(kind, str) else kind
    if cfg.get('resume') == 'auto' and not (isinstance(kind, type) and issubclass(kind, Runner)):
        cfg.resume, cfg.load_from = True, None  # as MMEngine's runners know it
    with building_from(cfg):
        return RUNNERS.build(cfg) if 'runner_type' in cfg else _Runner.from_cfg(cfg)
