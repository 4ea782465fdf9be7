"""How long training waits for data, and what the hook says about it."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import DIGITS
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmengine.registry import RUNNERS
from PIL import Image

from simclr_mm.datasets import Digits, ImageFolder, ReplaceUnreadable
from simclr_mm.engine import DataWaitHook
from simclr_mm.engine.hooks import data_wait
from simclr_mm.engine.hooks.data_wait import free_cores, remedy
from simclr_mm.transforms import TwoViews


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are added to ``now``."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(data_wait, 'time', SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(data_wait, 'OtherProcesses', lambda: SimpleNamespace(read=lambda: 0.2))
    cores(monkeypatch, 40)
    return clock


def watched(clock, waits, workers=0, **kwargs):
    """Train with these waits and steps of a second; shares and warnings by step."""
    hub = MessageHub.get_instance('waits')
    hub.log_scalars.clear()
    said, shares = {}, {}
    run = SimpleNamespace(
        hooks=[LoggerHook(interval=2)],
        iter=0,
        logger=SimpleNamespace(warning=lambda line: said.update({run.iter: line})),
        message_hub=hub,
        model=torch.nn.Linear(1, 1),
        train_dataloader=SimpleNamespace(
            __len__=lambda: 4, num_workers=workers, dataset=[], batch_sampler=range(4)
        ),
    )
    hook = DataWaitHook(**kwargs)
    hook.end_of_epoch = lambda loader, batch: batch == 3
    hook.before_train(run)
    for run.iter, wait in enumerate(waits):
        if run.iter % 4 == 0:
            clock.now += 50  # between epochs
            hook.before_train_epoch(run)
        clock.now += wait
        hook.before_train_iter(run, run.iter % 4)
        history = hub.log_scalars.get('train/data_share')
        if history is not None and len(history.data[0]) > len(shares):
            shares[run.iter] = history.data[0][-1]
        clock.now += 1
        hook.after_train_iter(run, run.iter % 4)
        if run.iter % 4 == 2:
            clock.now += 70  # a validation inside an epoch
            hook.after_val(run)
    return shares, said


def test_share_is_the_wait_between_steps_alone(clock):
    shares, _ = watched(clock, [9, 1, 0, 3, 1, 1, 0, 0, 4])
    # The first step is left out. Lines at steps 3, 5 and 7 tell of the steps before them.
    assert shares == {3: pytest.approx(1 / 3), 5: pytest.approx(4 / 6), 7: pytest.approx(1 / 3)}
    # Workers start: each is to have made a batch.
    shares, _ = watched(clock, [9, 8, 7, 6, 1, 0, 0, 0], workers=3)
    assert shares == {5: pytest.approx(1 / 2), 7: 0}


@pytest.mark.parametrize(
    'waits, kwargs, steps',
    [
        ([0.1] * 20, {}, []),
        ([0.2] * 20, {}, [7]),
        ([0.2] * 20, dict(limit=0.2), []),
        ([0.2] * 20, dict(min_steps=11), [13]),
        ([0.2] * 4 + [0] * 2 + [0.2] * 10, {}, [13]),
        ([0.2] * 8 + [0] * 2 + [0.2] * 10, {}, [7, 17]),
    ],
)
def test_when_it_speaks(clock, waits, kwargs, steps):
    _, said = watched(clock, waits, **{'min_steps': 5, **kwargs})
    assert list(said) == steps
    assert all('waited for data 17 % of the time. ' in line for line in said.values())


def test_the_rank_that_waits_longest_is_logged_and_the_first_speaks(clock, monkeypatch):
    for first in (False, True):
        ranks = SimpleNamespace(
            get_world_size=lambda: 2,
            all_reduce=lambda share, op: share.fill_(0.75),
            is_main_process=lambda first=first: first,
        )
        monkeypatch.setattr(data_wait, 'dist', ranks)
        shares, said = watched(clock, [0.25] * 6, min_steps=2)
        assert shares == {1: 0.75, 3: 0.75, 5: 0.75} and bool(said) == first


def test_a_bad_limit():
    with pytest.raises(ValueError, match='data_wait.limit is 10'):
        DataWaitHook(limit=10)


class Event:
    """A CUDA event of a device that computes until ``busy``, on its own clock."""

    host = busy = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = max(Event.host, Event.busy)

    def query(self):
        return self.at <= Event.host

    def elapsed_time(self, other):
        assert self.query() and other.query()
        return 1000 * (other.at - self.at)


def test_a_gpu_waits_only_when_it_has_nothing_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    watch = data_wait.Stopwatch()
    watch.end_step()
    for load in (1.0, 3.0, 3.0, 3.0, 14.0):  # the host waits for all of it
        Event.host += load
        watch.begin_step()
        Event.busy = max(Event.host, Event.busy) + 4  # kernels of a step
        watch.end_step()
    # Begun at 1, 5, 9, 13 and 24 on the device, which had ended at 0, 5, 9, 13, 17.
    assert watch.read() == (1.0, 16.0)
    assert watch.read() == (0.0, 0.0)
    Event.host = 30.0
    assert watch.read() == (7.0, 4.0)


def cores(monkeypatch, count):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: range(count), raising=False)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)


def test_free_cores_are_shared_by_the_ranks_of_a_machine(monkeypatch):
    cores(monkeypatch, 40)
    assert free_cores(workers=4) == 33
    assert free_cores(workers=4, others=3) == 30
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    assert free_cores(workers=4) == 3
    assert free_cores(workers=4, others=30) == 3  # they are the other ranks
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert free_cores(workers=4) == 5
    assert free_cores(workers=30) == 0


def advice(dataset, share=0.5, workers=0, others=0):
    loader = SimpleNamespace(dataset=dataset, num_workers=workers)
    return remedy(SimpleNamespace(train_dataloader=loader), share, others)


@pytest.mark.parametrize(
    'workers, share, count',
    [(0, 0.25, 1), (0, 0.8, 4), (2, 0.5, 4), (2, 0.2, 3), (4, 0.9, 37), (0, 1.0, 37)],
)
def test_as_many_workers_as_needed(monkeypatch, workers, share, count):
    """0.8: four seconds of loading beside one of work; two workers at 0.5: double."""
    cores(monkeypatch, 40)
    assert f'num_workers={count} (' in advice([], share, workers)
    assert 'Write' not in advice([], share, workers, others=40)


def test_without_a_free_core_one_remedy_by_what_is_known(tmp_path, monkeypatch):
    cores(monkeypatch, 2)
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    for folder, picture in (('small', noise[:64, :64]), ('large', noise)):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / '0.jpg', quality=95)
    views = TwoViews(16)
    small, large = (
        ReplaceUnreadable(RepeatDataset(ImageFolder(str(tmp_path / name), pipeline=[views]), 2))
        for name in ('small', 'large')
    )
    assert 'simclr_mm.InMemoryFolder' in advice(small)
    assert 'simclr-mm pack FOLDER' in advice(large)
    for packed in ([], Digits(split='test', pipeline=[views])):
        assert 'needs more or faster cores' in advice(packed, workers=1)
        assert advice(packed) == ''  # this process makes the views, on the cores that train
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cores(monkeypatch, 1)
    assert "write augment='device'" in advice(large)
    views.on_device = True
    assert 'simclr-mm pack FOLDER' in advice(large)


def test_a_run_that_waits(tmp_path, monkeypatch, clock):
    """A slow dataset: the share in the log and one line."""
    cores(monkeypatch, 40)
    original = TwoViews.transform

    def slow(self, results):
        clock.now += 1
        return original(self, results)

    monkeypatch.setattr(TwoViews, 'transform', slow)
    cfg = Config.fromfile(DIGITS)
    cfg.work_dir = str(tmp_path)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_dataloader.dataset.update(batched=False, indices=32)
    cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs = 4, 1
    cfg.model.backbone.update(base_channels=8, stem_channels=8)
    cfg.param_scheduler = cfg.auto_scale_lr = None
    cfg.default_hooks.logger.interval = 2
    cfg.default_hooks.data_wait.min_steps = 3
    run = RUNNERS.build(cfg)
    run.train()
    log = next(Path(run.log_dir).glob('*.log')).read_text()
    assert log.count('training waited for data 100 % of the time. Write train_dataloader') == 1
    assert '"data_share": 1.0' in (Path(run.log_dir) / 'vis_data' / 'scalars.json').read_text()
