"""Choose one remedy for a training that waits for data, from cheap facts."""

import math
import os
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from simclr_mm.transforms import TwoViews

# A JPEG of 128 x 128 pixels is smaller. So many of them, decoded, fit into 4 GiB.
_SMALL_FILE, _FEW_FILES = 16 * 1024, 4 * 2**30 // (3 * 128 * 128)


def remedy(runner: Runner, share: float) -> str:
    """The cheapest remedy for this share of waiting time."""
    loader = runner.train_dataloader
    free = free_cores(loader.num_workers)
    if free > 0:
        # While training waits, all workers are busy. Without workers this process is.
        needed = math.ceil((loader.num_workers or share) / max(1 - share, 0.01) - 0.01)
        workers = min(max(needed, loader.num_workers + 1), loader.num_workers + free)
        return f'Write train_dataloader.num_workers={workers} ({free} cores are free).'
    dataset: Any = loader.dataset
    while not isinstance(dataset, BaseDataset) and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    for views in (each for each in transforms if isinstance(each, TwoViews)):
        if torch.cuda.is_available() and not views.on_device and not any(views.foreign):
            return "No core is free: write augment='device' in simclr_mm.TwoViews."
    sizes = _file_sizes(dataset)
    if not sizes:
        return 'No core is free: this job needs more or faster cores.'
    if max(sizes) < _SMALL_FILE and len(dataset) < _FEW_FILES:
        return 'No core is free: keep the small images in memory, simclr_mm.InMemoryFolder.'
    return 'No core is free: pack the files, tools/pack.py FOLDER OUT --short-side 256.'


def free_cores(workers: int) -> int:
    """Cores that this rank may use, minus its own threads and its workers."""
    linux = hasattr(os, 'sched_getaffinity')
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    busy = 1 if torch.cuda.is_available() else torch.get_num_threads()
    return max(0, cores // int(os.environ.get('LOCAL_WORLD_SIZE', 1)) - busy - workers)


def _file_sizes(dataset: Any) -> list[int]:
    """Sizes in bytes of some files. Empty if images are packed or in memory."""
    if not isinstance(dataset, BaseDataset):
        return []
    places = range(0, len(dataset), max(1, len(dataset) // 8))
    paths = [dataset.get_data_info(place).get('img_path', '') for place in places]
    return [os.path.getsize(path) for path in paths if os.path.isfile(path)]
