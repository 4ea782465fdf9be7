"""Runs as jobs of Slurm, through submitit."""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simclr_mm.errors import UserError
from simclr_mm.evaluation import EvaluationRun
from simclr_mm.files.installed import optional_package

from .run import Run, RunFailed

_DAY = 24 * 60  # minutes
_REQUEUES = 1000  # of a job whose time is over; each goes on from the checkpoint of the one before


class Slurm:
    """A queue of jobs, one for each run.

    Args:
        options: Settings of ``sbatch`` by their names in submitit, such as ``partition``,
            ``time`` (minutes, by default a day), ``gpus_per_node`` and ``cpus_per_task``.
        cluster: For submitit's AutoExecutor.

    Raises:
        UserError: submitit is missing, there is no Slurm, or a setting has another name.
    """

    def __init__(self, options: Mapping[str, Any], cluster: str = 'slurm') -> None:
        optional_package('submitit', 'cluster', '--slurm')
        self.options: dict[str, Any] = {'time': _DAY, 'gpus_per_node': 1}
        for key, value in options.items():  # a list of partitions or nodes has commas
            self.options[key] = ','.join(map(str, value)) if isinstance(value, list) else value
        self.cluster = cluster
        self._executor(Path())

    def submit(self, trainer: Any, run: Run) -> Any:
        """A job that calls ``trainer.do(run, '')`` and writes the result."""
        return self._executor(run.work_dir / 'slurm').submit(_Job(trainer, run))

    def _executor(self, folder: Path) -> Any:
        import submitit

        limits = {f'{self.cluster}_max_num_timeout': _REQUEUES}
        names = {f'slurm_{key}': value for key, value in self.options.items()}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster, **limits)
            executor.update_parameters(timeout_min=names.pop('slurm_time'), **names)
        except (NameError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f'--slurm: {" ".join(str(error).split())}') from error
        return executor


def where(args: argparse.Namespace, runs: int) -> tuple[int, Slurm | None]:
    """The arguments of TrainAndEvaluate from the flags ``--processes`` and ``--slurm``."""
    slurm = None if args.slurm is None else Slurm(args.slurm)
    return args.processes or (1 if slurm is None else max(1, runs)), slurm


def outcome_of(job: Any, stopped: Callable[[], bool]) -> EvaluationRun:
    """Wait for a job. One that ends without a result is a RunFailed."""
    while not job.done():
        if stopped():
            raise RunFailed('stopped')
        time.sleep(0.5)
    try:
        outcome = job.result()
    except Exception as error:  # submitit's, with the job's whole log
        lines = str(error).split('\n----------------------')[0].strip().splitlines()
        raise RunFailed(f'{lines[-1]} (job {job.job_id}; see {job.paths.stderr})') from error
    if isinstance(outcome, RunFailed):
        raise outcome
    return outcome


class _Job:
    """What a machine of the cluster does. submitit queues it again when its time is over."""

    def __init__(self, trainer: Any, run: Run) -> None:
        self.trainer, self.run = trainer, run

    def __call__(self) -> EvaluationRun | RunFailed:
        try:
            result = self.trainer.do(self.run, '')
        except RunFailed as reason:
            return reason
        result.write(self.run.result_file)
        return result

    def checkpoint(self) -> Any:
        """End the training, which saves and then goes on in the same job."""
        from submitit.helpers import DelayedSubmission

        self.trainer.stop()
        for process in self.trainer.running:
            # A signal's handler must not call its wait(): the interrupted code is inside it.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(_Job(self.trainer.alone(), self.run))
