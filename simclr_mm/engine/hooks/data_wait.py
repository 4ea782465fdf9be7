"""Log the share of time that training waits for data, with a remedy."""

import math
import os
import time
from collections import deque
from typing import Any

import torch
from mmengine import dist
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.cores import OtherProcesses, core_count
from simclr_mm.datasets.nested import views_in
from simclr_mm.errors import UserError
from simclr_mm.registry import HOOKS

from .log_interval import is_log_line

# A JPEG of 128 x 128 pixels is smaller. So many of them, decoded, fit into 4 GiB.
_SMALL_FILE, _FEW_FILES = 16 * 1024, 4 * 2**30 // (3 * 128 * 128)


class Stopwatch:
    """Adds up the waits before steps, and the steps, on the device that computes.

    The first call is ``end_step``.
    """

    def __init__(self) -> None:
        self._gpu = torch.cuda.is_available()
        self._ended = self._begun = None
        self._steps: deque[tuple] = deque()  # end of the previous step, begin, end

    def begin_step(self) -> None:
        self._begun = self._stamp()

    def end_step(self) -> None:
        ended = self._stamp()
        if self._begun is not None:
            self._steps.append((self._ended, self._begun, ended))
        self._ended, self._begun = ended, None

    def read(self) -> tuple[float, float]:
        """Seconds of waits and of steps, for the finished steps since the last call."""
        waited = worked = 0.0
        while self._steps and (not self._gpu or self._steps[0][2].query()):
            before, begun, ended = self._steps.popleft()
            waited += self._seconds(before, begun)
            worked += self._seconds(begun, ended)
        return waited, worked

    def _stamp(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()  # in the stream, without waiting
        return event

    def _seconds(self, first: Any, second: Any) -> float:
        return first.elapsed_time(second) / 1000 if self._gpu else second - first


@HOOKS.register_module()
class DataWaitHook(Hook):
    """Log ``data_share``, the share of time spent waiting for data, with advice above a limit.

    On a CPU it is the time between the end of a step and the next batch, on a GPU the time
    in which the GPU is idle. Of several ranks the largest share counts. Validation and the
    time between epochs do not count. One rank never waits for its GPU, because a log line covers
    the steps before its last one; several wait once a line, to compare their shares.

    Args:
        limit: Share in [0, 1] above which the hook names a remedy. 0.1 is above the noise.
        min_steps: Steps for which it has to be above: two log lines, not one slow file.
    """

    # Last, so that saving a checkpoint after a step does not count as waiting.
    priority = 'LOWEST'

    def __init__(self, limit: float = 0.1, min_steps: int = 100) -> None:
        if not 0 <= limit <= 1:
            raise UserError(
                f'default_hooks.data_wait.limit is {limit}: give a share of time in [0, 1].'
            )
        self.limit = limit
        self.min_steps = min_steps

    def before_train(self, runner: Runner) -> None:
        # Skip the start of the workers, until each has made a batch.
        self._skip = runner.iter + 1 + runner.train_dataloader.num_workers
        self._watch, self._others = Stopwatch(), OtherProcesses()
        self._well = self._skip  # last step with a share within the limit
        self._told = False

    def before_train_epoch(self, runner: Runner) -> None:
        self._watch.end_step()  # waiting begins here, not at the end of the last epoch

    def after_val(self, runner: Runner) -> None:
        if hasattr(self, '_watch'):  # not if the run only validates
            self._watch.end_step()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if runner.iter < self._skip:
            return
        self._watch.begin_step()
        if is_log_line(self, runner, batch_idx):
            self._report(runner)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._watch.end_step()

    def _report(self, runner: Runner) -> None:
        waited, worked = self._watch.read()
        share = waited / (waited + worked) if waited + worked else -1.0
        if dist.get_world_size() > 1:
            shared = torch.tensor(share, device=next(runner.model.parameters()).device)
            dist.all_reduce(shared, op='max')
            share = shared.item()
        if share < 0:  # no step has ended
            return
        runner.message_hub.update_scalar('train/data_share', share)
        if share <= self.limit:
            self._well, self._told = runner.iter, False
        lasted = runner.iter - self._well
        if lasted < self.min_steps or self._told:
            return
        self._told = True
        advice = remedy(runner, share, round(self._others.read()))
        if advice and dist.is_main_process():
            runner.logger.warning(
                f'In the last {lasted} steps training waited for data {100 * share:.0f} % of the '
                f'time. {advice}'
            )


def remedy(runner: Runner, share: float, others: int = 0) -> str:
    """The cheapest remedy for this share of waiting time, from cheap facts. '' if none helps."""
    loader = runner.train_dataloader
    free = free_cores(loader.num_workers, others)
    if free > 0:
        # While training waits, all workers are busy. Without workers this process is.
        needed = math.ceil((loader.num_workers or share) / max(1 - share, 0.01) - 0.01)
        workers = min(max(needed, loader.num_workers + 1), loader.num_workers + free)
        return f'Write train_dataloader.num_workers={workers} ({free} cores are free).'
    for views in views_in(loader.dataset):
        if torch.cuda.is_available() and not views.on_device and not any(views.foreign):
            return "No core is free: write augment='device' in simclr_mm.TwoViews."
    dataset: Any = loader.dataset
    while not isinstance(dataset, BaseDataset) and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    sizes = _file_sizes(dataset)
    if not sizes:
        if not loader.num_workers and not torch.cuda.is_available():
            return ''  # the cores that train make the views, and nothing idles
        return 'No core is free: this job needs more or faster cores.'
    if max(sizes) < _SMALL_FILE and len(dataset) < _FEW_FILES:
        return 'No core is free: keep the small images in memory, simclr_mm.InMemoryFolder.'
    return 'No core is free: pack the files, simclr-mm pack FOLDER OUT --short-side 256.'


def free_cores(workers: int, others: int = 0) -> int:
    """Cores that this rank may use, minus its own threads, its workers and other programs.

    Several ranks share a machine and count each other, so there others are left out.
    """
    ranks = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    busy = 1 if torch.cuda.is_available() else torch.get_num_threads()
    return max(0, core_count() // ranks - busy - workers - (others if ranks == 1 else 0))


def _file_sizes(dataset: Any) -> list[int]:
    """Sizes in bytes of some files. Empty if images are packed or in memory."""
    if not isinstance(dataset, BaseDataset):
        return []
    places = range(0, len(dataset), max(1, len(dataset) // 8))
    paths = [dataset.get_data_info(place).get('img_path', '') for place in places]
    return [os.path.getsize(path) for path in paths if os.path.isfile(path)]
