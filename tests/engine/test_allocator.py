"""Freed memory is kept, where the C library is glibc, and by workers too."""
import functools
import platform

import torch
from torch.utils.data import DataLoader

from simclr_mm.engine import allocator
from simclr_mm.engine.allocator import keep_freed_memory, start_worker


class Told(torch.utils.data.Dataset):
    """Says in a worker what it was told at its start."""
    told = []

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return '|'.join(map(str, self.told))


def test_glibc_is_told(monkeypatch):
    assert keep_freed_memory() == (platform.libc_ver()[0] == 'glibc')
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    assert not keep_freed_memory()


def test_a_worker_is_told_before_its_own_start(monkeypatch):
    monkeypatch.setattr(Told, 'told', [])
    monkeypatch.setattr(allocator, 'keep_freed_memory',
                        lambda: Told.told.append('kept'))
    start = functools.partial(start_worker, Told.told.append)
    loader = DataLoader(
        Told(), num_workers=1, worker_init_fn=start, multiprocessing_context='fork')
    assert next(iter(loader)) == ['kept|0']
    start_worker(None, 3)  # a loader without one
    assert Told.told == ['kept']
