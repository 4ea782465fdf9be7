"""Log the share of time that training waits for data, with a remedy."""

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.errors import UserError
from simclr_mm.registry import HOOKS

from .input_remedy import remedy
from .log_interval import is_log_line
from .stopwatch import Stopwatch


@HOOKS.register_module()
class DataWaitHook(Hook):
    """Log ``data_share``, the share of time spent waiting for data, with advice above a limit.

    On a CPU it is the time between the end of a step and the next batch, on a GPU the time
    in which the GPU is idle. Of several ranks the largest share counts. Validation and the
    time between epochs do not count. Nothing waits for the GPU: a log line covers the steps
    before its last one.

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
        self._watch = Stopwatch()
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
        if dist.is_main_process():
            runner.logger.warning(
                f'In the last {lasted} steps training waited for data {100 * share:.0f} % of the '
                f'time. {remedy(runner, share)}'
            )
