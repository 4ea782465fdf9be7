"""As many OpenMP threads as other processes leave cores free."""

import os
import time

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.cores import OtherProcesses, core_count
from simclr_mm.registry import HOOKS

THREADS = 'threads'  # key in the message hub, which checkpoints keep


@HOOKS.register_module()
class FreeCoresHook(Hook):
    """Train on a CPU with as many threads as there are free cores, and say when that changes.

    By default PyTorch takes a thread for each core. Beside other programs these threads wait for
    each other at the end of every operation. On two cores beside two busy processes, one thread
    trained 1.2 to 3.8 times as fast as two (docs/input_pipeline.md).

    The number is chosen once, before the first step, because sums of another order differ in
    the last bits. A resumed run keeps it. A run whose ``randomness.seed`` is set, and one with
    ``OMP_NUM_THREADS``, trains with PyTorch's number. Ranks choose nothing: each of them counts
    the others.

    Args:
        interval: Seconds between two looks at other processes during training.
    """

    def __init__(self, interval: float = 60) -> None:
        self.interval = interval
        self._most = 0  # PyTorch's number of threads, once this hook sets one
        self._others = OtherProcesses()  # from here on, while datasets are read

    def before_train(self, runner: Runner) -> None:
        on_cpu = next(runner.model.parameters()).device.type == 'cpu'
        self._looks = on_cpu and runner.world_size == 1
        if not self._looks:
            return
        self._most = torch.get_num_threads()
        threads = self._resumed(runner) if runner._resume else self._chosen(runner)
        torch.set_num_threads(threads)
        runner.message_hub.update_info(THREADS, threads)
        self._others.read()
        self._told: set[bool] = set()  # once for fewer threads and once for more

    def _chosen(self, runner: Runner) -> int:
        if 'OMP_NUM_THREADS' in os.environ or self._most == 1:
            return self._most
        time.sleep(max(0.0, 1 - self._others.elapsed()))
        others = self._others.read()
        threads = self._free(others)
        used = f'other processes use {others:.1f} of {core_count()} cores'
        if threads == self._most:
            return threads
        if (runner.cfg.get('randomness') or {}).get('seed') is not None:
            runner.logger.warning(
                f'OpenMP threads: {self._most}, because randomness.seed is set, but {used}: '
                f'OMP_NUM_THREADS={threads} is faster.'
            )
            return self._most
        runner.logger.info(
            f'OpenMP threads: {threads} instead of {self._most}, because {used}. OMP_NUM_THREADS '
            'or randomness.seed fixes the number.'
        )
        return threads

    def _resumed(self, runner: Runner) -> int:
        kept = runner.message_hub.runtime_info.get(THREADS, self._most)
        threads = self._most if 'OMP_NUM_THREADS' in os.environ else min(kept, core_count())
        if threads != kept:
            runner.logger.warning(
                f'OpenMP threads: {threads}, and {kept} before. Sums of another order differ in '
                f'the last bits: OMP_NUM_THREADS={kept} goes on exactly.'
            )
        elif threads != self._most:
            runner.logger.info(f'OpenMP threads: {threads}, as before.')
        return threads

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if not self._looks or self._others.elapsed() < self.interval:
            return
        others, threads = self._others.read(), torch.get_num_threads()
        better = self._free(others)
        if better != threads and (better > threads) not in self._told:
            self._told.add(better > threads)
            runner.logger.warning(
                f'Other processes use {others:.1f} of {core_count()} cores: OMP_NUM_THREADS='
                f'{better} is faster than {threads}. "kill {os.getpid()}" saves and stops this '
                'run; then repeat the command with the variable (train: and --resume).'
            )

    def after_train(self, runner: Runner) -> None:  # also of MMEngine's runner
        self.stop()

    def stop(self) -> None:
        """Give PyTorch its threads back; the runner calls it whatever ends a training."""
        if self._most:
            torch.set_num_threads(self._most)  # the process may go on

    def _free(self, others: float) -> int:
        """Threads for the cores that others leave, at most PyTorch's own number."""
        return max(1, min(self._most, core_count() - round(others)))
