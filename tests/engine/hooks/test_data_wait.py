"""How long training waits for data, and what the hook says about it."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from digits_run import BY_ITERATION, losses, runner
from mmengine.dataset import RepeatDataset
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from simclr_mm.datasets import ReplaceUnreadable
from simclr_mm.engine import DataWaitHook
from simclr_mm.engine.hooks import data_wait, input_remedies, input_stages
from simclr_mm.engine.hooks.input_remedies import Job, Remedy, _advice, _more_workers
from simclr_mm.engine.hooks.stopwatch import DeviceStopwatch, Stopwatch
from simclr_mm.models import SimCLR, ViewsPreprocessor
from simclr_mm.transforms import RandomGrayscale, TwoViews


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        for module in ('stopwatch', 'input_stages'):
            monkeypatch.setattr(f'simclr_mm.engine.hooks.{module}.time', clock)

    def pass_(self, seconds):
        self.now += seconds


class Logger(list):
    warning = list.append


def watched(monkeypatch, waits, work=1.0, workers=0, interval=2, **kwargs):
    """Train with these waits; the logged shares by step, and what was said when."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(
        data_wait, 'remedy_line', lambda run, work, wait, limit: f'{work:.3g} {wait:.3g}'
    )
    hub = MessageHub.get_instance('waits')
    hub.log_scalars.clear()
    loader = type('Loader', (), dict(__len__=lambda self: 4, num_workers=workers))()
    run = SimpleNamespace(
        hooks=[LoggerHook(interval=interval)],
        iter=0,
        logger=Logger(),
        message_hub=hub,
        model=torch.nn.Linear(1, 1),
        train_dataloader=loader,
    )
    hook = DataWaitHook(**kwargs)
    hook.before_train(run)
    shares, said = {}, []
    for run.iter, wait in enumerate(waits):
        if run.iter % 4 == 0:
            clock.pass_(50)  # between epochs
            hook.before_train_epoch(run)
        clock.pass_(wait)
        known, words = len(history(hub)), len(run.logger)
        hook.before_train_iter(run, run.iter % 4)
        if len(history(hub)) > known:
            shares[run.iter] = history(hub)[-1]
        said += [run.iter] * (len(run.logger) - words)
        clock.pass_(work)
        hook.after_train_iter(run, run.iter % 4)
        if run.iter % 4 == 2:
            clock.pass_(70)  # a validation inside an epoch
            hook.after_val(run)
    return shares, said, run.logger


def history(hub):
    buffer = hub.log_scalars.get('train/data_share')
    return [] if buffer is None else buffer.data[0].tolist()


def test_share_is_the_wait_between_steps_alone(monkeypatch):
    shares, _, _ = watched(monkeypatch, [9, 1, 0, 3, 1, 1, 0, 0, 4])
    # The first step is left out; lines at steps 2, 4, 6 and 8 of steps before them.
    assert shares == {3: pytest.approx(1 / 3), 5: pytest.approx(4 / 6), 7: pytest.approx(1 / 3)}


def test_the_start_of_workers_does_not_count(monkeypatch):
    shares, _, _ = watched(monkeypatch, [9, 8, 7, 6, 1, 0, 0, 0], workers=3)
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
def test_when_it_speaks(monkeypatch, waits, kwargs, steps):
    _, said, words = watched(monkeypatch, waits, **{'min_steps': 5, **kwargs})
    assert said == steps
    assert all('waited for data 17 % of the time. 1 0.2' in line for line in words)


def test_the_rank_that_waits_longest_is_logged_and_the_first_speaks(monkeypatch):
    reduced = []

    def all_reduce(share, op):
        reduced.append((round(share.item(), 6), op))
        share.fill_(0.75)

    first = False
    monkeypatch.setattr(
        data_wait,
        'dist',
        SimpleNamespace(
            get_world_size=lambda: 2, all_reduce=all_reduce, is_main_process=lambda: first
        ),
    )
    shares, said, _ = watched(monkeypatch, [0.25] * 6, min_steps=2)
    assert shares == {1: 0.75, 3: 0.75, 5: 0.75} and said == []
    # At the first line this rank has no step to tell of, and takes part all the same.
    assert reduced == [(-1, 'max'), (0.2, 'max'), (0.2, 'max')]
    first = True
    assert watched(monkeypatch, [0.25] * 6, min_steps=2)[1] == [3]


def test_free_cores_are_shared_by_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: range(40), raising=False)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    assert input_remedies._free_cores(workers=4) == 33
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    assert input_remedies._free_cores(workers=4) == 3
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert input_remedies._free_cores(workers=4) == 5
    assert input_remedies._free_cores(workers=30) == 0


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
    watch = DeviceStopwatch()
    watch.end_step()
    for load in (1.0, 3.0, 3.0, 3.0, 14.0):  # the host waits for all of it
        Event.host += load
        watch.begin_step()
        Event.busy = max(Event.host, Event.busy) + 4  # kernels of a step
        watch.end_step()
    # Begun at 1, 5, 9, 13 and 24 on the device, which had ended at 0, 5, 9, 13, 17.
    assert watch.read() == (4, 1.0, 16.0)
    assert watch.read() == (0, 0.0, 0.0)
    Event.host = 30.0
    assert watch.read() == (1, 7.0, 4.0)


def test_a_forgotten_step_takes_its_wait_along(monkeypatch):
    clock, watch = Clock(monkeypatch), Stopwatch()
    watch.end_step()
    for wait, forget in ((1, False), (2, True), (4, False)):
        clock.pass_(wait)
        watch.begin_step()
        if forget:
            watch.forget()
        clock.pass_(10)
        watch.end_step()
    assert watch.read() == (2, 5.0, 20.0)


def test_predictions():
    alone = Job(worked=3.0, waited=1.0, workers=0, free=4)
    assert alone.share() == 0.25
    assert alone.share(faster=0.5) == pytest.approx(0.5 / 3.5)
    assert alone.share(workers=1) == 0  # 1 s beside 3 s of work
    slow = Job(worked=1.0, waited=5.0, workers=0, free=4)
    assert slow.share(workers=4) == pytest.approx(0.2)  # 1.25 s beside 1 s
    busy = Job(worked=1.0, waited=1.0, workers=2, free=4)  # 2 s a batch by two
    assert busy.share() == 0.5
    assert busy.share(workers=4) == 0
    assert busy.share(workers=3) == pytest.approx(0.25)
    assert busy.share(faster=0.75) == pytest.approx(1 / 3)
    assert busy.share(faster=0.75, more_work=0.5) == 0


def test_as_many_workers_as_needed_and_no_more():
    busy = Job(worked=1.0, waited=1.0, workers=2, free=4)
    assert _more_workers(busy, 0.1) == [Remedy('train_dataloader.num_workers=4', 0)]
    assert _more_workers(busy, 0.3) == [
        Remedy('train_dataloader.num_workers=3', pytest.approx(0.25))
    ]
    assert _more_workers(Job(1.0, 1.0, 2, 0), 0.1) == []


def test_the_cheapest_that_is_enough_or_the_best():
    job = Job(worked=1.0, waited=1.0, workers=2, free=0)
    remedies = [Remedy('a', 0.2), Remedy('b', 0.09), Remedy('c', 0.01)]
    assert _advice(remedies, job, 0.1).startswith(
        'The cheapest remedy: b, predicted 9 % (no core is free for more workers). '
        'Others: a: 20 %; c: 1 %.'
    )
    assert _advice(remedies[:1], job, 0.1).startswith('The best remedy: a, predicted 20')
    nothing = _advice([Remedy('a', 0.49)], job, 0.1)
    assert nothing.startswith('Nothing that was measured would help, and no core is free')


@pytest.fixture
def photographs(tmp_path):
    """A dataset of four photographs, 800 x 400 pixels of noise."""
    init_default_scope('mmpretrain')
    rng = np.random.default_rng(0)
    for i in range(4):
        img = rng.integers(0, 256, (400, 800, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), img)
    return DATASETS.build(
        dict(
            type='simclr_mm.ImageFolder',
            data_root=str(tmp_path),
            pipeline=[
                dict(type='simclr_mm.LoadImageFromFile'),
                dict(
                    type='simclr_mm.TwoViews',
                    size=32,
                    transforms=[dict(type='simclr_mm.ColorDistortion')],
                ),
                dict(type='PackInputs'),
            ],
        )
    )


def slower(monkeypatch, clock, owner, name, seconds):
    original = getattr(owner, name)

    def slow(*args, **kwargs):
        clock.pass_(seconds)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, slow)


@pytest.mark.parametrize(
    'stage, owner, name, calls',
    [
        ('read', input_stages.fileio, 'get', 1),
        ('decode', cv2, 'imdecode', 1),
        ('crop', TwoViews, '_crop_and_flip', 2),
        ('augment', RandomGrayscale, 'paint', 2),
    ],
)
def test_stages_are_told_apart(photographs, monkeypatch, stage, owner, name, calls):
    clock = Clock(monkeypatch)
    photographs.pipeline.transforms[1].pipelines = [[RandomGrayscale(1.0)]] * 2
    slower(monkeypatch, clock, owner, name, 0.25)
    stages = input_stages.measure_stages(photographs, seconds=2)
    expected = dict.fromkeys(('read', 'decode', 'crop', 'augment', 'rest'), 0.0)
    expected[stage] = 0.25 * calls
    assert {key: vars(stages)[key] for key in expected} == expected
    assert stages.pixels == 400 * 800


def test_images_that_the_dataset_reads_itself(photographs, monkeypatch):
    """As those on shards: bytes come with the sample, the path only names it."""

    def read(self, index):
        info = self.get_data_info(index)
        info['img_bytes'] = Path(info['img_path']).read_bytes()
        info['img_path'] = 'shard-0.tar: 0.jpg'
        return self.pipeline(info)

    clock = Clock(monkeypatch)
    monkeypatch.setattr(type(photographs), 'prepare_data', read)
    slower(monkeypatch, clock, type(photographs), 'prepare_data', 0.5)
    slower(monkeypatch, clock, cv2, 'imdecode', 0.25)
    stages = input_stages.measure_stages(photographs, seconds=2)
    assert (stages.read, stages.decode, stages.rest) == (0.5, 0.25, 0)
    assert 0.25 < stages.packed < 0.75  # fewer bytes, read in less time


def test_what_cannot_be_read_is_passed_over(photographs, monkeypatch):
    """As the loader does; only that remains which is worth measuring."""
    slower(monkeypatch, Clock(monkeypatch), cv2, 'imdecode', 0.25)
    Path(photographs.get_data_info(1)['img_path']).write_bytes(b'')
    Path(photographs.get_data_info(2)['img_path']).unlink()
    assert input_stages.measure_stages(photographs, seconds=3).decode == 0.25
    for i in (0, 3):
        Path(photographs.get_data_info(i)['img_path']).unlink()
    assert input_stages.measure_stages(photographs) is None
    photographs.pipeline.transforms[0].ignore_empty = True
    assert input_stages.measure_stages(photographs) is None


def test_measuring_changes_nothing(photographs, monkeypatch):

    def states():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
        )

    slower(monkeypatch, Clock(monkeypatch), cv2, 'imdecode', 0.25)
    seen = []
    monkeypatch.setattr(
        input_stages,
        '_packed',
        lambda img, *args: (img, seen.append(torch.get_num_threads()) or 0.0),
    )
    before = states()
    torch.set_num_threads(2)
    try:
        input_stages.measure_stages(photographs)
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[3])
    assert states() == before


def test_packed_images_have_a_short_side_of_256(photographs, monkeypatch):
    img = photographs.pipeline.transforms[0](photographs.get_data_info(0))['img']
    slower(monkeypatch, Clock(monkeypatch), cv2, 'imdecode', 0.25)
    small, seconds = input_stages._packed(img, size=10**9, read=1000.0)
    assert small.shape == (256, 512, 3)
    assert 0.25 < seconds < 0.5  # less than a thousandth is read
    same, _ = input_stages._packed(small, size=1, read=0.0)
    assert same.shape == small.shape


def test_no_pipeline_no_stages():
    assert input_stages.measure_stages([1, 2, 3]) is None


def test_device_augmentation_is_timed_where_it_can_be(photographs, monkeypatch):
    views = photographs.pipeline.transforms[1]
    preprocessor = ViewsPreprocessor(mean=[0.0] * 3, std=[1.0] * 3)
    slower(monkeypatch, Clock(monkeypatch), ViewsPreprocessor, '_make_views', 2.0)
    assert input_stages.device_seconds(views, preprocessor, 40) == 2
    assert not views.on_device
    run = SimpleNamespace(
        model=SimpleNamespace(data_preprocessor=preprocessor),
        train_dataloader=SimpleNamespace(dataset=photographs, batch_size=2),
    )
    job = Job(worked=1.0, waited=1.0, workers=1, free=0)
    stages = input_stages.Stages(decode=1.0, augment=3.0)  # 4 s, then 1 s and 2 s more
    assert input_remedies._device_remedies(run, job, stages) == []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
    (remedy,) = input_remedies._device_remedies(run, job, stages)
    assert remedy == Remedy("augment='device' in simclr_mm.TwoViews", 0.0)


def test_small_files_may_stay_in_memory(monkeypatch):
    monkeypatch.setattr(input_remedies, '_memory', lambda: 10**9)
    job = Job(worked=1.0, waited=1.0, workers=0, free=0)
    stages = input_stages.Stages(
        read=1.0, decode=2.0, crop=0.5, augment=0.5, packed=3.5, pixels=64 * 64
    )
    memory, packing = input_remedies._storage_remedies(job, stages, 1000)
    assert 'InMemoryFolder' in memory.what and memory.share == pytest.approx(0.2)
    assert packing.share == pytest.approx(0.5)
    for change in (dict(pixels=500 * 375), dict(packed=None)):
        stages.__dict__.update(change)
        few = input_remedies._storage_remedies(job, stages, 10)
        assert memory not in few and len(few) == (stages.packed is not None)


def test_the_views_of_a_dataset_inside_others(photographs):
    around = ReplaceUnreadable(RepeatDataset(photographs, times=2))
    views = photographs.pipeline.transforms[1]
    assert input_remedies._two_views(around) is views
    assert input_stages.innermost(around) is photographs


def test_a_run_that_waits(tmp_path, monkeypatch):
    """A slow dataset: the share in the log and one line."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: range(40))
    slower(monkeypatch, clock, TwoViews, 'transform', 1.0)  # 16 s a batch
    slower(monkeypatch, clock, SimCLR, 'train_step', 4.0)
    hook = 'default_hooks.data_wait'
    run = runner(
        tmp_path,
        **{f'{hook}.min_steps': 3, 'train_dataloader.dataset.batched': False},
        **BY_ITERATION,
    )
    run.train()
    log = next(Path(run.log_dir).glob('*.log')).read_text()
    assert log.count('training waited for data 80 % of the time') == 1
    assert 'ms of one core: reading 0, decoding 0, cropping 1000, augmenting 0' in log
    assert 'train_dataloader.num_workers=4 ' in log  # 4 s beside 4 s
    share = run.message_hub.get_scalar('train/data_share').data[0]
    assert share.tolist() == [0.8] * 9
    assert '"data_share": 0.8' in (Path(run.log_dir) / 'vis_data' / 'scalars.json').read_text()
    assert len(losses(run)) == 12
