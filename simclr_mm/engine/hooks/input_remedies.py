"""The cheapest remedy for a training that waits for its data, by measured times."""

import os
from dataclasses import dataclass

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from simclr_mm.models import ViewsPreprocessor
from simclr_mm.transforms import TwoViews

from .input_stages import Stages, device_seconds, innermost, measure_stages

# An image that small is worth keeping decoded; photographs of ImageNet are not.
_SMALL_PIXELS = 128 * 128


@dataclass
class Job:
    """What a prediction starts from.

    Args:
        worked: Seconds of a step without the wait.
        waited: Seconds of the wait before it.
        workers: Loader workers of this rank.
        free: Cores of this rank that nothing uses.
    """

    worked: float
    waited: float
    workers: int
    free: int

    def share(self, faster: float = 1.0, workers: int = 0, more_work: float = 0.0):
        """The share of time spent waiting, were things different.

        Args:
            faster: Time of an image in the loader, as a share of today's.
            workers: How many there would be; 0: as many as now.
            more_work: Seconds added to a step.
        """
        worked = self.worked + more_work
        if not self.workers and not workers:  # this process loads and trains in turn
            loading = self.waited * faster
            return loading / (worked + loading)
        # Where there are workers, they were busy all the time, or nobody had waited.
        loading = self.waited
        if self.workers:
            loading = (self.waited + self.worked) * self.workers
        loading *= faster / (workers or self.workers)
        return max(0.0, 1 - worked / max(worked, loading))


@dataclass
class Remedy:
    what: str
    share: float  # of the time spent waiting, predicted


def remedy_line(runner: Runner, worked: float, waited: float, limit: float) -> str:
    """Measure, predict and name the cheapest remedy in one line.

    Args:
        runner: In training.
        worked: Seconds of a step without the wait.
        waited: Seconds of the wait before it.
        limit: Share of time that may be spent waiting.
    """
    loader = runner.train_dataloader
    job = Job(worked, waited, loader.num_workers, _free_cores(loader.num_workers))
    stages = measure_stages(loader.dataset)
    remedies = [] if stages is None else _device_remedies(runner, job, stages)
    remedies = _more_workers(job, limit) + remedies
    if stages is not None:
        remedies += _storage_remedies(job, stages, len(loader.dataset))
    return ' '.join(filter(None, (_cost(stages), _advice(remedies, job, limit))))


def _cost(stages: Stages | None) -> str:
    if stages is None:
        return ''
    parts = dict(
        reading=stages.read, decoding=stages.decode, cropping=stages.crop, augmenting=stages.augment
    )
    names = ', '.join(f'{name} {_in_ms(spent)}' for name, spent in parts.items())
    return f'An image takes {_in_ms(stages.total)} ms of one core: {names}.'


def _in_ms(seconds: float) -> str:
    return f'{1000 * seconds:.0f}' if seconds > 0.01 else f'{1000 * seconds:.2g}'


def _advice(remedies: list[Remedy], job: Job, limit: float) -> str:
    """Remedies come cheapest first."""
    now = job.share()
    useful = [remedy for remedy in remedies if remedy.share < 0.9 * now]
    cores = f'{job.free} cores are free' if job.free > 0 else 'no core is free for more workers'
    if not useful:
        return (
            f'Nothing that was measured would help, and {cores}: this job needs '
            'more or faster cores.'
        )
    enough = [remedy for remedy in useful if remedy.share <= limit]
    best = enough[0] if enough else min(useful, key=lambda remedy: remedy.share)
    others = '; '.join(
        f'{remedy.what}: {100 * remedy.share:.0f} %' for remedy in remedies if remedy is not best
    )
    others = f' Others: {others}.' if others else ''
    kind = 'cheapest' if enough else 'best'
    return f'The {kind} remedy: {best.what}, predicted {100 * best.share:.0f} % ({cores}).{others}'


def _more_workers(job: Job, limit: float) -> list[Remedy]:
    if job.free < 1:
        return []
    counts = range(job.workers + 1, job.workers + job.free + 1)
    enough = [count for count in counts if job.share(workers=count) <= limit]
    count = enough[0] if enough else counts[-1]
    line = f'train_dataloader.num_workers={count}'
    if not job.workers:
        line += ' train_dataloader.persistent_workers=True'
    return [Remedy(line, job.share(workers=count))]


def _device_remedies(runner: Runner, job: Job, stages: Stages) -> list[Remedy]:
    views = _two_views(runner.train_dataloader.dataset)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    preprocessor = model.data_preprocessor
    if (
        not torch.cuda.is_available()
        or views is None
        or views.on_device
        or any(views.foreign)
        or not isinstance(preprocessor, ViewsPreprocessor)
    ):
        return []
    more_work = device_seconds(views, preprocessor, runner.train_dataloader.batch_size)
    share = job.share(1 - stages.augment / stages.total, more_work=more_work)
    return [Remedy("augment='device' in simclr_mm.TwoViews", share)]


def _two_views(dataset: Dataset) -> TwoViews | None:
    for transform in innermost(dataset).pipeline.transforms:
        if isinstance(transform, TwoViews):
            return transform
    return None


def _storage_remedies(job: Job, stages: Stages, images: int) -> list[Remedy]:
    if stages.packed is None:  # not from files
        return []
    remedies = []
    in_memory = 3 * stages.pixels * images < 0.25 * _memory()
    if stages.pixels <= _SMALL_PIXELS and in_memory:
        faster = (stages.crop + stages.augment + stages.rest) / stages.total
        remedies.append(
            Remedy(
                'simclr_mm.InMemoryFolder, which keeps them decoded in memory', job.share(faster)
            )
        )
    faster = (stages.packed + stages.augment + stages.rest) / stages.total
    remedies.append(
        Remedy('pack them, tools/pack.py FOLDER OUT --short-side 256', job.share(faster))
    )
    return remedies


def _free_cores(workers: int) -> int:
    """Of this rank: those it may use, less its own threads and its workers."""
    if hasattr(os, 'sched_getaffinity'):
        cores = len(os.sched_getaffinity(0))
    else:  # not Linux
        cores = os.cpu_count()
    mine = cores // int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    busy = 1 if torch.cuda.is_available() else torch.get_num_threads()
    return max(0, mine - busy - workers)


def _memory() -> int:
    """Bytes of this machine; 0 where the system does not say.

    Not what is free: files that were read fill that, and leave it when asked.
    """
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):
        return 0
