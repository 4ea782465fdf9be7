"""Several training runs at a time, each in its own process."""

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

from simclr_mm.apis.fingerprint import weights_hash
from simclr_mm.checkpoints import read_checkpoint
from simclr_mm.evaluation import EvaluationRun, Result
from simclr_mm.visualization.loss import read_log

from .run import Run, last_step


class RunFailed(Exception):
    """A run without a result. The message says why, and where to read more."""


def carry_out(
    runs: Sequence[Run], run_one: Callable[[Run, str], EvaluationRun], devices: Sequence[str]
) -> Generator[tuple[Run, EvaluationRun | RunFailed], None, None]:
    """Do the runs without a result, write their results, and yield each outcome as it ends.

    ``run_one`` takes a run and one of ``devices``, the CUDA_VISIBLE_DEVICES of each process; ''
    leaves it unchanged.
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
        # All runs are done, or the caller stops and ends the running ones.
        executor.shutdown(wait=False, cancel_futures=True)


class TrainAndEvaluate(ABC):
    """Does a run in its own processes, each an ordinary command.

    ``tools`` is the folder of train.py, ``threads`` are PyTorch's in each process on a CPU.
    """

    def __init__(self, tools: Path, threads: int) -> None:
        self.tools, self.threads = tools, threads
        self.running: set[subprocess.Popen] = set()
        self.stopped = False

    def __call__(self, run: Run, device: str) -> EvaluationRun:
        """Train and evaluate. A process without a result or with an error is a RunFailed."""
        started = time.time()
        checkpoint = self.train(run, device)
        result = self.evaluate(run, checkpoint, device)
        return EvaluationRun(
            str(run.config),
            checkpoint,
            weights_hash(read_checkpoint(checkpoint)['state_dict']),
            Config.fromfile(run.config).randomness.seed,
            round(time.time() - started, 1),
            [result],
            command=shlex.join(['python', 'tools/train.py', *run.arguments]),
            study=dict(study=run.study, **run.labels),
        )

    def train(self, run: Run, device: str) -> str:
        """Train, or continue training. Returns the last checkpoint."""
        self.call(run, [str(self.tools / 'train.py'), *run.arguments], device)
        checkpoint = find_latest_checkpoint(str(run.folder))
        if checkpoint is None:
            raise RunFailed(
                f'the training wrote no checkpoint to {run.folder}: keep default_hooks.checkpoint'
            )
        return checkpoint

    @abstractmethod
    def evaluate(self, run: Run, checkpoint: str, device: str) -> Result:
        """Read or compute the result of a trained run."""

    def validated(self, run: Run, metric: str) -> float:
        """A metric of the validation at the end of the training, by its name in the log."""
        last = last_step(Config.fromfile(run.config))
        for log in sorted(run.folder.glob('*/vis_data/scalars.json'), reverse=True):
            for entry in reversed(read_log(log)):
                if entry['step'] == last and metric in entry:
                    return entry[metric]
        raise RunFailed(
            f'{run.folder} holds a finished training but no {metric} of a validation at '
            'its end: delete the folder to train anew'
        )

    def stop(self) -> None:
        """End the running processes. Their checkpoints stay, to continue from."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()

    def call(self, run: Run, arguments: list[str], device: str) -> None:
        """Run Python with these arguments. Its output goes to the run's log."""
        if self.stopped:
            raise RunFailed('stopped')
        env = dict(os.environ)
        env.setdefault('OMP_NUM_THREADS', str(self.threads))
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


def do_missing(
    runs: Sequence[Run],
    trainer: TrainAndEvaluate,
    processes: int,
    description: str,
    tell: Callable[[Run, EvaluationRun | RunFailed], None] | None = None,
) -> dict[str, RunFailed]:
    """Do the runs without a result. No training outlives the call.

    "kill" stops the program like Ctrl-C. Each process gets its own GPU if there are enough.
    ``tell`` is called as each run ends.

    Returns:
        The reasons of failures, by the names of the runs.
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
    """Share the GPUs among processes, in turn. '' if there is none."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = visible.split(',') if visible else list(map(str, range(torch.cuda.device_count())))
    return [gpus[k % len(gpus)] if gpus else '' for k in range(processes)]
