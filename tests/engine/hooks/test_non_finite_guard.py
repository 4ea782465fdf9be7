"""Runs with bad steps, against the same runs without them."""

import functools
import json
import math

import pytest
import torch
from digits_run import EVERY_EPOCH, runner
from mmengine.hooks import LoggerHook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmpretrain.structures import DataSample
from torch import nn

from simclr_mm.engine import LARS
from simclr_mm.engine.hooks import non_finite_guard
from simclr_mm.engine.hooks.non_finite_guard import NonFiniteGuardHook
from simclr_mm.engine.hooks.non_finite_report import Step, first_bad, image_names, range_of
from simclr_mm.models import SimCLR

OPTIMIZERS = {
    'SGD': functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    'Adam': functools.partial(torch.optim.Adam, lr=0.01),
    'AdamW': functools.partial(torch.optim.AdamW, lr=0.01, amsgrad=True),
    'LARS': functools.partial(LARS, lr=1.0, weight_decay=0.01),
}
STEPS = 6


class Tiny(BaseModel):
    """Two layers and a norm; loss and gradient can be made infinite each alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.projections = None

    def forward(self, inputs, mode, added=0.0, scale=1.0):
        z = self.net(inputs)
        self.projections = z.detach()
        z.register_hook(lambda gradient: gradient * scale)
        return dict(loss=z.square().mean() + added, top1=torch.tensor(math.nan))


BAD = {
    'inputs': dict(inputs=torch.full((5, 3), math.nan)),
    'loss': dict(added=math.inf),
    'gradient': dict(scale=math.inf),
}


def batch(step, **changes):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(5, 3, generator=generator)
    return dict(dict(inputs=inputs), **changes)


class Run:
    """What the hook sees of a runner, and a loop that calls it."""

    def __init__(self, make, wrapper=OptimWrapper, interval=100, **kwargs):
        self.model = Tiny()
        self.iter = 0
        self.optim_wrapper = wrapper(optimizer=make(self.model.parameters()), **kwargs)
        self.hooks = [LoggerHook(interval=interval)]
        self.hook = NonFiniteGuardHook()
        self.hook.before_train(self)

    def step(self, data):
        samples = [DataSample(metainfo=dict(img_path=f'{self.iter}-{i}.jpg')) for i in range(2)]
        self.hook.before_train_iter(self, self.iter)
        self.model.train_step(data, self.optim_wrapper)
        self.hook.after_train_iter(self, self.iter, dict(data_samples=samples))
        self.iter += 1

    def read(self):
        return first_bad(self.hook._steps)

    def state(self):
        """Everything that a step changes."""
        optimizer = self.optim_wrapper.optimizer.state_dict()['state']
        tensors = [
            value
            for _, state in sorted(optimizer.items())
            for value in state.values()
            if value is not None
        ]
        return [*self.model.state_dict().values(), *tensors]


def assert_same(run, expected):
    assert len(run.state()) == len(expected.state())
    for value, other in zip(run.state(), expected.state()):
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other))


@pytest.fixture(params=['CPU', 'device'])
def path(request, monkeypatch):
    """Both ways to skip; that of a GPU runs on any device."""
    if request.param == 'device':
        monkeypatch.setattr(non_finite_guard, '_is_cpu', lambda device: False)
    return request.param


@pytest.mark.parametrize('kind', BAD)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_bad_steps_are_as_if_they_had_not_been(path, optimizer, kind):
    bad_steps = (0, 3, 4)
    run, expected = Run(OPTIMIZERS[optimizer]), Run(OPTIMIZERS[optimizer])
    for step in range(STEPS):
        if step in bad_steps:
            run.step(batch(step, **BAD[kind]))
        else:
            run.step(batch(step))
            expected.step(batch(step))
    assert_same(run, expected)
    report = run.read()
    assert (report['step'], report['skipped_steps']) == (1, 3)
    assert report['ranks'][0]['images'] == ['0-0.jpg', '0-1.jpg']
    assert expected.read() is None


def test_all_gradients_of_an_accumulated_step_are_dropped(path):
    run, expected = (Run(OPTIMIZERS['SGD'], accumulative_counts=2) for _ in range(2))
    for step in range(8):
        run.step(batch(step, **(BAD['inputs'] if step == 2 else {})))
        if step not in (2, 3):
            expected.step(batch(step))
    assert_same(run, expected)
    report = run.read()
    assert report['step'] == 4  # the iteration that would have updated
    assert report['ranks'][0]['images'] == ['2-0.jpg', '2-1.jpg', '3-0.jpg', '3-1.jpg']


def test_a_large_gradient_is_not_a_bad_one(path):
    """Its square is above float32, it is not."""
    run = Run(OPTIMIZERS['LARS'])
    run.step(batch(0, scale=1e25))
    assert run.read() is None


def test_ranks_decide_together(path, monkeypatch):
    """A bad step of another rank is one here."""
    run, expected = Run(OPTIMIZERS['SGD']), Run(OPTIMIZERS['SGD'])

    def all_reduce(flag, op):
        assert op == 'max'
        if run.iter == 1:
            flag.fill_(1)

    monkeypatch.setattr('mmengine.dist.all_reduce', all_reduce)
    for step in range(3):
        run.step(batch(step))
    for step in (0, 2):
        expected.iter = step
        expected.step(batch(step))
    assert_same(run, expected)
    assert run.read()['step'] == 2


@pytest.fixture
def amp(monkeypatch):
    """mmengine's fp16 wrapper, which asks for a GPU, on a CPU."""
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    scaler = functools.partial(torch.amp.GradScaler, device='cpu')
    monkeypatch.setattr(f'{module}.GradScaler', scaler)
    return functools.partial(AmpOptimWrapper, dtype='bfloat16')


def test_an_overflow_is_the_loss_scalers_business(path, amp):
    run = Run(OPTIMIZERS['SGD'], amp, loss_scale=dict(init_scale=8.0))
    run.step(batch(0))
    before = [p.clone() for p in run.model.parameters()]
    run.step(batch(1, **BAD['gradient']))
    assert all(p.equal(other) for p, other in zip(run.model.parameters(), before))
    assert run.optim_wrapper.loss_scaler.get_scale() == 4.0
    assert run.read() is None
    run.step(batch(2, **BAD['inputs']))
    run.step(batch(3))
    assert run.read()['step'] == 3
    assert all(value.isfinite().all() for value in run.model.state_dict().values())


def test_a_loss_scale_that_has_vanished_is_an_error(path, amp):
    run = Run(OPTIMIZERS['SGD'], amp, loss_scale=dict(init_scale=3e-4))
    run.step(batch(0, **BAD['gradient']))  # 1.5e-4
    assert run.read() is None
    run.step(batch(1, **BAD['gradient']))  # 0.75e-4
    assert run.read()['step'] == 2


def test_range_of_projections():
    steps = []
    for step, bad in enumerate([False, True, True], start=7):
        z = torch.tensor([[[-step, math.nan, math.inf], [0.0, step + 0.5, -math.inf]]])
        steps.append(Step(step, torch.tensor(bad), 0.5, [], range_of(z)))
    report = first_bad(steps)
    assert report == dict(
        step=8,
        learning_rate=0.5,
        skipped_steps=2,
        ranks=[dict(images=[], projections=dict(lowest=-8, highest=8.5, not_finite=3))],
    )


def test_names_of_images():
    samples = [
        DataSample(metainfo=dict(img_path='a.jpg', sample_idx=4)),
        DataSample(metainfo=dict(img_path=None, sample_idx=7)),
    ]
    assert image_names(dict(data_samples=samples)) == ['a.jpg', 'image 7']
    assert image_names(dict(sample_idx=[3, 5])) == ['image 3', 'image 5']
    assert image_names(dict(inputs=None)) == []


def test_a_run_stops_at_the_next_line_of_the_log(tmp_path, monkeypatch):
    """Bad in step 5, the first of epoch 2; read at step 7, its third."""
    embed, calls = SimCLR._embed, []

    def embed_nan_once(self, inputs):
        calls.append(len(inputs))
        return embed(self, inputs * math.nan if len(calls) == 5 else inputs)

    monkeypatch.setattr(SimCLR, '_embed', embed_nan_once)
    run = runner(tmp_path, **EVERY_EPOCH, **{'default_hooks.logger.interval': 3})
    with pytest.raises(FloatingPointError) as error:
        run.train()
    file = tmp_path / 'non_finite_step_5'
    report = json.loads(file.with_suffix('.json').read_text())
    assert len(calls) == 7
    assert (report['step'], report['skipped_steps']) == (5, 1)
    run.train_dataloader.sampler.set_epoch(1, 0)
    expected = [f'image {int(i)}' for i in list(run.train_dataloader.sampler)[:16]]
    assert report['ranks'][0]['images'] == expected
    # One epoch of warm-up, so the full rate, and 16 images with 2 views of width 64.
    for part in (
        'step 5:',
        'rate 0.002;',
        '2048 numbers',
        expected[4],
        'and 11 more',
        f'{file}.json',
        f'{file}.pth',
    ):
        assert part in str(error.value)
    # It can be gone on from, and the schedule with it.
    checkpoint = torch.load(f'{file}.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 7
    assert {each['_global_step'] for each in checkpoint['param_schedulers']} == {7}
    rest = runner(tmp_path / 'rest', load_from=f'{file}.pth', resume=True, **EVERY_EPOCH)
    rest.train()
    assert rest.iter == 12
    for value in rest.model.state_dict().values():
        assert value.isfinite().all()
