"""A few steps of a config without traces: of this process, or of one rank of a large job."""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed, nn

from simclr_mm.errors import UserError

from .console import quiet_console
from .ranks import plain_model
from .runner import build_runner
from .training_data import keep_largest_views, remove_validation

_STEPS, _WARM = 12, 4  # steps that are timed, and those of them that do not count


def short_run(cfg: Config, steps: int, hook: Hook) -> None:
    """Train some steps with a hook, without validation and without files that stay.

    Raises:
        UserError: The config cannot be built, for example because images cannot be read.
    """
    cfg = Config(cfg.to_dict())
    remove_validation(cfg)
    keep_largest_views(cfg.train_dataloader.dataset)  # they take most memory and time
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_cfg = dict(type='simclr_mm.IterBasedTrainLoop', max_iters=steps)
    cfg.param_scheduler = []
    nothing = dict.fromkeys(('checkpoint', 'learning_watch', 'progress'))
    cfg.default_hooks = {**(cfg.get('default_hooks') or {}), **nothing}
    for custom in cfg.get('custom_hooks') or []:
        for begin in ('begin_epoch', 'begin_iter'):  # of EMAHook, after the end of this run
            custom.pop(begin, None)
    cfg.visualizer = {'type': 'Visualizer', **(cfg.get('visualizer') or {}), 'vis_backends': []}
    with tempfile.TemporaryDirectory() as folder, quiet_console():
        cfg.work_dir = folder
        runner = build_runner(cfg)
        runner.register_hook(hook)
        runner.train()


def seconds_a_step(cfg: Config) -> float:
    """Mean time of a step, after a few that start workers and warm up the device.

    Raises:
        UserError: As :func:`short_run`.
    """
    watch = _Ends()
    short_run(cfg, _STEPS, watch)
    return (watch.ends[-1] - watch.ends[_WARM - 1]) / (_STEPS - _WARM)


def dry_run(cfg: Config, rank: int, ranks: int) -> dict[str, float]:
    """Build the data, the model and the loss of one rank, and do two steps of it.

    One process plays the rank, in PyTorch's fake process group. Every collective takes its time
    and memory here but moves nothing: the rows of other ranks are copies of this one's. So shapes,
    shares and memory are those of the job, and losses mean nothing.

    Returns:
        Images, steps an epoch, rows in the loss and their width, bytes and seconds, by name.
    """
    watch = _Watch()
    with _fake_group(rank, ranks):
        short_run(Config({**cfg.to_dict(), 'launcher': 'pytorch', 'resume': False}), 2, watch)
    return watch.found


@contextmanager
def _fake_group(rank: int, ranks: int) -> Iterator[None]:
    if distributed.is_initialized():
        raise UserError('a dry run is one process that plays a rank: start it without a launcher')
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend

    # The fake group leaves what it would receive as it was: random numbers as a pickle's length.
    broadcast = distributed.broadcast_object_list
    distributed.broadcast_object_list = lambda *args, **kwargs: None
    distributed.init_process_group('fake', store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        distributed.destroy_process_group()
        distributed.broadcast_object_list = broadcast


class _Ends(Hook):
    """Notes when each step has ended."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        float(outputs['loss'].detach())  # waits for the device
        self.ends.append(time.perf_counter())


class _Watch(_Ends):
    """Notes sizes, too, before the first step and after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, float] = dict(before=_peak())

    def before_train(self, runner: Runner) -> None:
        loader, model = runner.train_dataloader, runner.model
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model.register_comm_hook(None, _nothing_to_average)
        weights = [each for each in model.parameters() if each.requires_grad]
        self.found.update(
            built=_peak(),
            images=len(loader.dataset),
            share=len(loader.sampler),
            batch=loader.batch_size,
            steps=len(loader),
            parameters=sum(each.numel() for each in weights),
            gradients=_size(weights),
        )

    def after_train(self, runner: Runner) -> None:
        model = plain_model(runner)
        optimizer = runner.optim_wrapper.optimizer.state.values()
        state = [value for each in optimizer for value in each.values()]
        tensors = [value for value in state if torch.is_tensor(value)]
        on_gpu = torch.cuda.is_available()
        projections = getattr(model, 'projections', None)  # (n, V, d), of a contrastive model
        views, width = (0, 0) if projections is None else projections.shape[1:]
        self.found.update(
            seconds=self.ends[-1] - self.ends[-2],
            rows=views * self.found['batch'] * runner.world_size,
            width=width,
            optimizer=_size(tensors),
            checkpoint=_size(list(model.state_dict().values())) + _size(tensors),
            peak=torch.cuda.max_memory_allocated() if on_gpu else _peak(),
        )


def _nothing_to_average(
    state: None, bucket: distributed.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """In place of the all-reduce of gradients, whose result a fake group does not give."""
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def _size(tensors: list[torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak << 10
