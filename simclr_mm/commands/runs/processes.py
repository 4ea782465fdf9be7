"""Training runs, several at a time, each in a process of its own."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from rich.progress import track

from simclr_mm.apis.fingerprint import state_hash
from simclr_mm.checkpoints import read_checkpoint
from simclr_mm.evaluation import EvaluationRun, Result

from .run import Run, last_validation


class RunFailed(Exception):
    """A run that gave no value; the message says why and where to read more."""


def carry_out(
    runs: Sequence[Run], run_one: Callable[[Run, str], EvaluationRun], devices: Sequence[str]
) -> Generator[tuple[Run, EvaluationRun | RunFailed], None, None]:
    """Do the runs that have no result yet, and write their results.

    Args:
        runs: Their configs are written.
        run_one: Takes a run and a device, gives its result.
        devices: The CUDA_VISIBLE_DEVICES of each process, '' to leave it as it is.

    Yields:
        Each run as it ends, with its result or a :class:`RunFailed`.
    """
    free: SimpleQueue = SimpleQueue()
    for device in devices:
        free.put(device)

    def work(run: Run) -> EvaluationRun:
        device = free.get()
        try:
            result = run_one(run, device)
        finally:
            free.put(device)
        result.write(run.result_file)
        return result

    missing = [run for run in runs if not run.result_file.is_file()]
    executor = ThreadPoolExecutor(len(devices))
    try:
        futures = {executor.submit(work, run): run for run in missing}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except RunFailed as error:
                yield futures[future], error
    finally:
        # All are done, or the caller is stopping and ends what is running.
        executor.shutdown(wait=False, cancel_futures=True)


class TrainAndEvaluate(ABC):
    """Does a run in processes of its own, each an ordinary command.

    Args:
        tools: Folder of train.py.
        threads: Of PyTorch in each process on a CPU.
    """

    def __init__(self, tools: Path, threads: int) -> None:
        self.tools, self.threads = tools, threads
        self.running: set[subprocess.Popen] = set()
        self.stopped = False

    def __call__(self, run: Run, device: str) -> EvaluationRun:
        """Train and evaluate; a RunFailed if a process ended with an error or without a value."""
        started = time.time()
        checkpoint = self.train(run, device)
        result = self.evaluate(run, checkpoint, device)
        return EvaluationRun(
            str(run.config),
            checkpoint,
            state_hash(read_checkpoint(checkpoint)['state_dict']),
            Config.fromfile(run.config).randomness.seed,
            round(time.time() - started, 1),
            [result],
            command=shlex.join(['python', 'tools/train.py', *run.arguments]),
            study=dict(study=run.study, **run.labels),
        )

    def train(self, run: Run, device: str) -> str:
        """Train, or go on training; returns the last checkpoint."""
        self.call(run, [str(self.tools / 'train.py'), *run.arguments], device)
        checkpoint = find_latest_checkpoint(str(run.folder))
        if checkpoint is None:
            raise RunFailed(
                f'the training left no checkpoint in {run.folder}: keep default_hooks.checkpoint'
            )
        return checkpoint

    @abstractmethod
    def evaluate(self, run: Run, checkpoint: str, device: str) -> Result:
        """Read or compute the result of a trained run."""

    def validated(self, run: Run, metric: str) -> float:
        """A metric of the validation at the end of the training, by its name in the log."""
        value = last_validation(run, metric)
        if value is None:
            raise RunFailed(
                f'{run.folder} holds a finished training but no {metric} of a validation at '
                'its end: delete the folder to train anew'
            )
        return value

    def stop(self) -> None:
        """End what is running; its checkpoints stay, to go on from."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()

    def call(self, run: Run, arguments: list[str], device: str) -> None:
        """Run Python with these arguments; what it prints goes into the run's log."""
        if self.stopped:
            raise RunFailed('stopped')
        env = dict(os.environ)
        env.setdefault('OMP_NUM_THREADS', str(self.threads))
        if device:
            env['CUDA_VISIBLE_DEVICES'] = device
        log = run.folder / 'log.txt'
        run.folder.mkdir(parents=True, exist_ok=True)
        with open(log, 'ab') as file:
            # The process holds the lock, too: it outlives this one after "kill -9".
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFailed(
                    f'another process is at work in {run.folder}: wait for it, or end it'
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


def do_missing(
    runs: Sequence[Run],
    trainer: TrainAndEvaluate,
    processes: int,
    description: str,
    tell: Callable[[Run, EvaluationRun | RunFailed], None] | None = None,
) -> dict[str, RunFailed]:
    """Do the runs that have no result yet; "kill" stops the program like Ctrl-C.

    No training outlives the call.

    Args:
        runs: Their configs are written.
        trainer: Does a run.
        processes: Runs at a time, each on a GPU of its own as far as they go.
        description: Text of the progress bar.
        tell: Called as each run ends.

    Returns:
        Why runs failed, by their names.
    """
    failed = {}
    missing = sum(not run.result_file.is_file() for run in runs)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with closing(carry_out(runs, trainer, device_of_each(processes))) as outcomes:
            for run, outcome in track(outcomes, description, total=missing):
                if isinstance(outcome, RunFailed):
                    failed[run.name] = outcome
                if tell is not None:
                    tell(run, outcome)
    finally:
        trainer.stop()
        signal.signal(signal.SIGTERM, before)
    return failed


def device_of_each(processes: int) -> list[str]:
    """Share the GPUs among processes, in turn; '' where there is none."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = visible.split(',') if visible else list(map(str, range(torch.cuda.device_count())))
    return [gpus[k % len(gpus)] if gpus else '' for k in range(processes)]
