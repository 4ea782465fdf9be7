"""How many threads a training on a CPU takes, beside other programs and when it is resumed."""

import os
from types import SimpleNamespace

import pytest
import torch

from simclr_mm.engine import FreeCoresHook
from simclr_mm.engine.hooks import free_cores


@pytest.fixture
def machine(monkeypatch):
    """Four cores, the cores that others use, seconds since the last look, and the threads."""
    machine = SimpleNamespace(others=0.0, elapsed=5.0, slept=0.0, threads=4)
    reading = SimpleNamespace(elapsed=lambda: machine.elapsed, read=lambda: machine.others)
    monkeypatch.setattr(free_cores, 'OtherProcesses', lambda: reading)
    monkeypatch.setattr(free_cores, 'core_count', lambda: 4)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: machine.threads)
    monkeypatch.setattr(torch, 'set_num_threads', lambda n: setattr(machine, 'threads', n))
    sleep = lambda seconds: setattr(machine, 'slept', seconds)  # noqa: E731
    monkeypatch.setattr(free_cores.time, 'sleep', sleep)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    return machine


def run(seed=None, resume=False, kept=None, world_size=1, device='cpu'):
    said, info = [], {} if kept is None else dict(threads=kept)
    return SimpleNamespace(
        said=said,
        cfg=dict(randomness=dict(seed=seed)),
        logger=SimpleNamespace(info=said.append, warning=said.append),
        message_hub=SimpleNamespace(
            runtime_info=info, update_info=lambda key, value: info.update({key: value})
        ),
        model=torch.nn.Linear(1, 1, device=device),
        world_size=world_size,
        _resume=resume,
    )


@pytest.mark.parametrize(
    'others, threads', [(0, 4), (0.4, 4), (0.7, 3), (1.4, 3), (1.6, 2), (2.9, 1), (4, 1)]
)
def test_threads_are_the_cores_that_others_leave(machine, others, threads):
    machine.others, machine.elapsed = others, 0.25
    job, hook = run(), FreeCoresHook()
    hook.before_train(job)
    assert machine.threads == threads == job.message_hub.runtime_info['threads']
    assert machine.slept == 0.75  # a shorter look would count a moment
    assert job.said == [
        f'OpenMP threads: {threads} instead of 4, because other processes use {others:.1f} of 4 '
        'cores. OMP_NUM_THREADS or randomness.seed fixes the number.'
    ] * (threads < 4)
    hook.stop()
    assert machine.threads == 4  # a program that trained goes on


@pytest.mark.parametrize('settings', [dict(seed=0), dict(world_size=2), dict(device='meta')])
def test_who_keeps_the_number_of_pytorch(machine, settings):
    machine.others = 3
    job = run(**settings)
    FreeCoresHook().before_train(job)
    assert machine.threads == 4
    assert job.said == [
        'OpenMP threads: 4, because randomness.seed is set, but other processes use 3.0 of 4 '
        'cores: OMP_NUM_THREADS=1 is faster.'
    ] * ('seed' in settings)


def test_the_user_decides(machine, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '4')
    machine.others = 3
    FreeCoresHook().before_train(run())
    assert machine.threads == 4
    job = run(resume=True, kept=2)
    FreeCoresHook().before_train(job)
    assert machine.threads == 4
    assert job.said == [
        'OpenMP threads: 4, and 2 before. Sums of another order differ in the last bits: '
        'OMP_NUM_THREADS=2 goes on exactly.'
    ]


@pytest.mark.parametrize(
    'kept, threads, said',
    [
        (2, 2, ['OpenMP threads: 2, as before.']),
        (4, 4, []),
        (None, 4, []),  # a checkpoint of an earlier release
        (8, 4, ['OpenMP threads: 4, and 8 before. Sums of another order differ in the last ']),
    ],
)
def test_a_resumed_run_keeps_its_number(machine, kept, threads, said):
    machine.others = 3
    job = run(resume=True, kept=kept)
    FreeCoresHook().before_train(job)
    assert machine.threads == threads
    assert [line[: len(start)] for line, start in zip(job.said, said, strict=True)] == said


def test_it_says_when_others_come_and_go(machine):
    job, hook = run(seed=0), FreeCoresHook()
    hook.before_train(job)
    for machine.elapsed, machine.others in [
        (59, 3), (60, 0.2), (60, 2), (60, 2), (60, 1), (60, 0), (60, 1),
    ]:  # fmt: skip
        hook.after_train_iter(job, 0)
    assert [line.split(': ')[0] for line in job.said] == [
        f'Other processes use {others:.1f} of 4 cores' for others in (2,)
    ]
    assert f'OMP_NUM_THREADS=2 is faster than 4. "kill {os.getpid()}" saves and' in job.said[0]
    machine.others = 2
    hook.before_train(job := run())
    assert machine.threads == 2
    for machine.others in (0, 2, 1, 3, 2, 4):
        hook.after_train_iter(job, 0)
    assert ['OMP_NUM_THREADS=4 is faster than 2.' in line for line in job.said[1:]] == [True, False]
    assert 'OMP_NUM_THREADS=1 is faster than 2.' in job.said[2]  # each direction once, no more
