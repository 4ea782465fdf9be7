"""What the training loader's workers do first: keep memory, and what they did before."""

import gc
import logging
import platform
import sys
from types import SimpleNamespace

import helpers.processes  # noqa: F401  # its server has imported what a worker needs
import numpy as np
import pytest
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from simclr_mm.engine.dataloaders import build_train_dataloader
from simclr_mm.engine.loader_workers import prepare_workers

COLLECT = gc.collect  # tests/conftest.py replaces it
started = []  # in this process of a worker


class AboutItsWorker:
    """A batch says how its worker was started."""

    batched = True

    def __len__(self):
        return 8

    def __getitems__(self, indices):
        large = np.empty(2**26, np.uint8)  # beyond what glibc ever allocates by default
        return dict(
            on_the_heap=on_the_heap(large), seed=int(np.random.get_state()[1][0]), started=started
        )


def on_the_heap(array):
    """Whether it lies where glibc can keep it, and not in a mapping of its own."""
    with open('/proc/self/maps') as file:
        parts = [line.split()[0] for line in file if line.rstrip().endswith('[heap]')]
    ends = ([int(end, 16) for end in part.split('-')] for part in parts)
    return any(low <= array.ctypes.data < high for low, high in ends)


def note(worker, text):
    started.append((worker, text))


def batches(**options):
    runner = SimpleNamespace(
        _randomness_cfg={},
        seed=40,
        world_size=1,
        logger=logging.getLogger(__name__),
        build_dataloader=Runner.build_dataloader,
    )
    return list(
        build_train_dataloader(
            runner,
            dict(
                dataset=AboutItsWorker(),
                batch_size=4,
                num_workers=2,
                persistent_workers=True,
                sampler=dict(type='simclr_mm.ResumableSampler'),
                collate_fn=dict(type='simclr_mm.collate'),
                **options,
            ),
        )
    )


def test_mmengines_start_of_a_worker_stays():
    assert [batch['seed'] for batch in batches()] == [40, 41]


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='of glibc')
def test_a_fresh_worker_keeps_memory_and_starts_as_the_config_says():
    made = batches(
        worker_init_fn=dict(type=note, text='mine'), multiprocessing_context='forkserver'
    )
    assert [batch['started'] for batch in made] == [[(0, 'mine')], [(1, 'mine')]]
    assert all(batch['on_the_heap'] for batch in made)


class Collecting:
    """An image for which the worker collects its garbage."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return COLLECT() * 0


def test_a_worker_deletes_no_iterator_of_its_parent(capfd, monkeypatch):
    monkeypatch.setattr(sys, 'unraisablehook', sys.__unraisablehook__)  # pytest's keeps it
    COLLECT()  # what other tests have left
    gc.disable()
    try:
        old = iter(DataLoader(Collecting(), num_workers=1, persistent_workers=True))
        cycle = [old, *old]
        cycle.append(cycle)
        del old, cycle  # only the collector finds them, perhaps in the next worker
        loader = DataLoader(Collecting(), num_workers=1)
        prepare_workers(loader)
        assert list(loader) == [0]
    finally:
        gc.enable()
        COLLECT()
    assert 'can only test a child process' not in capfd.readouterr().err
