"""Several training runs at a time, each in its own process."""

import copy
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import Any

import torch
from mmengine.config import Config
from rich.progress import track

from simclr_mm.checkpoints import model_state, read_checkpoint, weights_hash
from simclr_mm.cores import core_count
from simclr_mm.engine.resume import latest_checkpoint
from simclr_mm.evaluation import EvaluationRun, Result
from simclr_mm.files.installed import MIM

from .run import Run, RunFailed
from .slurm import Slurm, outcome_of

_TOOLS = MIM / 'tools'


class TrainAndEvaluate(ABC):
    """Trains and evaluates runs in processes of their own, or in jobs of Slurm.

    Args:
        processes: Runs at a time.
        slurm: Where the runs are jobs. None: they are processes of this machine.
    """

    def __init__(self, processes: int, slurm: Slurm | None = None) -> None:
        self.processes = processes
        self.slurm = slurm
        self.running: set[subprocess.Popen] = set()
        self.jobs: list[Any] = []
        self.stopped = False

    def alone(self) -> 'TrainAndEvaluate':
        """The same for one run, in a job."""
        other = copy.copy(self)
        TrainAndEvaluate.__init__(other, 1)
        return other

    def do_missing(
        self,
        runs: Sequence[Run],
        description: str,
        tell: Callable[[Run, EvaluationRun | RunFailed], None] = lambda run, outcome: None,
    ) -> dict[str, RunFailed]:
        """Do the runs without a result, and write their results. No training outlives the call.

        "kill" stops the program like Ctrl-C. Each process gets its own GPU if there are enough.
        ``tell`` is called as each run ends. Returns the reasons of failures by names of runs.
        """
        free: SimpleQueue[str] = SimpleQueue()
        for device in device_of_each(self.processes):
            free.put(device)

        def work(run: Run) -> EvaluationRun:
            if self.slurm is not None:
                job = self.slurm.submit(self.alone(), run)
                self.jobs.append(job)
                return outcome_of(job, lambda: self.stopped)
            device = free.get()
            try:
                result = self.do(run, device)
            finally:
                free.put(device)
            result.write(run.result_file)
            return result

        failed = {}
        missing = [run for run in runs if not run.result_file.is_file()]
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        executor = ThreadPoolExecutor(self.processes)
        try:
            futures = {executor.submit(work, run): run for run in missing}
            for future in track(as_completed(futures), description, total=len(missing)):
                run = futures[future]
                try:
                    tell(run, future.result())
                except RunFailed as error:
                    failed[run.name] = error
                    tell(run, error)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            self.stop()
            signal.signal(signal.SIGTERM, before)
        return failed

    def do(self, run: Run, device: str) -> EvaluationRun:
        """Train and evaluate. A process without a result or with an error is a RunFailed.

        ``device`` is the CUDA_VISIBLE_DEVICES of the processes; '' leaves it unchanged.
        """
        started = time.time()
        checkpoint = self.train(run, device)
        result = self.evaluate(run, checkpoint, device)
        return EvaluationRun(
            str(run.config),
            checkpoint,
            weights_hash(model_state(read_checkpoint(checkpoint), checkpoint)),
            Config.fromfile(run.config).randomness.seed,
            round(time.time() - started, 1),
            [result],
            command=shlex.join(['simclr-mm', 'train', *run.arguments]),
            study=dict(study=run.study, **run.labels),
        )

    def train(self, run: Run, device: str) -> str:
        """Train, or continue training. Returns the last checkpoint."""
        self.call(run, [str(_TOOLS / 'train.py'), *run.arguments], device)
        checkpoint = latest_checkpoint(str(run.folder))
        if checkpoint is None:
            raise RunFailed(
                f'the training wrote no checkpoint to {run.folder}: keep default_hooks.checkpoint'
            )
        return checkpoint

    @abstractmethod
    def evaluate(self, run: Run, checkpoint: str, device: str) -> Result:
        """Read or compute the result of a trained run."""

    def stop(self) -> None:
        """End the running processes. Their checkpoints stay, to continue from."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()
        for job in self.jobs:
            if not job.done():
                job.cancel(check=False)

    def call(self, run: Run, arguments: list[str], device: str) -> None:
        """Run Python with these arguments. Its output goes to the run's log."""
        if self.stopped:
            raise RunFailed('stopped')
        env = dict(os.environ)
        env.setdefault('OMP_NUM_THREADS', str(max(1, core_count() // self.processes)))
        if device:
            env['CUDA_VISIBLE_DEVICES'] = device
        log = run.folder / 'log.txt'
        run.folder.mkdir(parents=True, exist_ok=True)
        with open(log, 'ab') as file:
            # The process inherits the lock, because it survives a "kill -9" of this one.
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFailed(
                    f'another process is working in {run.folder}: wait for it, or end it'
                ) from error
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=file, stderr=subprocess.STDOUT, env=env
            )
            self.running.add(process)
            code = process.wait()
        self.running.remove(process)
        if code:
            lines = log.read_text(errors='replace').strip().splitlines()
            raise RunFailed(f'{lines[-1] if lines else "no output"} (exit code {code}; see {log})')


def device_of_each(processes: int) -> list[str]:
    """The CUDA_VISIBLE_DEVICES of each process. '' without a GPU."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = visible.split(',') if visible else list(map(str, range(torch.cuda.device_count())))
    return [gpus[k % len(gpus)] if gpus else '' for k in range(processes)]
