"""Autocast where there is bf16, and steps that read nothing from the device."""

from contextlib import contextmanager

import pytest
import torch
from digits_run import runner
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from simclr_mm.engine import AutocastOptimWrapper, optim_wrapper
from simclr_mm.engine.hooks import non_finite_guard
from simclr_mm.engine.hooks.keep_where import flat_copy, keep_where
from simclr_mm.losses import nt_xent


def wrapper(**kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, AutocastOptimWrapper(optimizer=optimizer, **kwargs)


@pytest.mark.portable
@pytest.mark.parametrize(
    'dtype, native, expected',
    [
        ('auto', False, torch.float32),
        ('auto', True, torch.bfloat16),
        ('bfloat16', False, torch.bfloat16),
        ('float32', True, torch.float32),
    ],
)
def test_dtype_of_the_products(monkeypatch, dtype, native, expected):
    monkeypatch.setattr(optim_wrapper, 'native_bf16', lambda device: (native, 'so it is'))
    model, wrapped = wrapper(dtype=dtype)
    with wrapped.optim_context(model):
        out = model(torch.ones(2, 4))
    assert out.dtype == expected
    wrapped.update_params(out.float().square().mean())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled('cpu')


@pytest.mark.parametrize(
    'device, facts, expected',
    [
        ('cpu', dict(avx=True, amx=False), (True, 'this CPU has AVX512-BF16')),
        ('cpu', dict(avx=False, amx=True), (True, 'this CPU has AMX')),
        ('cpu', {}, (False, 'this CPU has neither AVX512-BF16 nor AMX')),
        ('cuda', dict(gpu=True), (True, 'this GPU has bf16')),
        ('cuda', {}, (False, 'this GPU lacks bf16')),
        ('mps', dict(avx=True), (False, 'bf16 was never tried on mps')),
    ],
)
def test_which_devices_compute_with_bf16(monkeypatch, device, facts, expected):
    def answer(name):
        return lambda **kwargs: facts.get(name, False)

    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', answer('avx'))
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', answer('amx'))
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', answer('gpu'))
    assert optim_wrapper.native_bf16(device) == expected


def test_the_log_says_which_dtype_and_why(monkeypatch):
    lines = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', lines.append)
    monkeypatch.setattr(optim_wrapper, 'native_bf16', lambda device: (True, 'so it is'))
    wrapper(dtype='auto')
    wrapper(dtype='float32')
    assert lines == ['Training computes in bfloat16: so it is.']


def test_all_ranks_compute_in_one_dtype(monkeypatch):
    answers = [(True, 'has it'), (False, 'lacks it')]
    monkeypatch.setattr(optim_wrapper, 'all_gather_object', lambda own: answers)
    assert wrapper(dtype='auto')[1].dtype == torch.float32


def test_batch_statistics_and_loss_stay_float32():
    """BN's running statistics of a bf16 step are those of float32 within bf16's rounding."""
    torch.manual_seed(0)
    images = torch.randn(16, 3, 8, 8)
    statistics = {}
    for dtype in ('float32', 'bfloat16'):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        wrapped = AutocastOptimWrapper(dtype, optimizer=torch.optim.SGD(model.parameters(), 0.1))
        with wrapped.optim_context(model):
            z = model(images)
            loss = nt_xent(z.unflatten(0, (8, 2)), temperature=0.5)
        assert loss.dtype == torch.float32
        assert model[1].running_var.dtype == torch.float32
        statistics[dtype] = model[1].running_mean, model[1].running_var
    for low, full in zip(statistics['bfloat16'], statistics['float32']):
        torch.testing.assert_close(low, full, rtol=1e-2, atol=1e-3)


def test_another_dtype():
    with pytest.raises(ValueError, match="'float16'; for fp16 write .*AmpOptimWrapper"):
        wrapper(dtype='float16')


def test_clips_as_mmengine_does():
    options = dict(accumulative_counts=2, clip_grad=dict(max_norm=0.1))
    (ours, our_wrapper), (theirs, _) = wrapper(**options), wrapper()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    their_wrapper = OptimWrapper(
        optimizer=optimizer, accumulative_counts=2, clip_grad=dict(max_norm=0.1)
    )
    norms = []
    for i in range(4):
        for model, wrapped in ((ours, our_wrapper), (theirs, their_wrapper)):
            wrapped.update_params(model(torch.full((2, 4), 1.0 + i)).square().sum())
        norms.append(our_wrapper.clipped.get('grad_norm'))
    assert norms[0] is norms[2] is None  # gradients accumulate
    expected = their_wrapper.message_hub.get_scalar('train/grad_norm').data[0]
    assert [norms[1].item(), norms[3].item()] == expected.tolist()[-2:]
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(p, q)


def test_ranks_wait_for_each_other_only_before_a_step():
    model, wrapped = wrapper(accumulative_counts=3)
    alone = []

    @contextmanager
    def no_sync():
        alone.append(step)
        yield

    model.no_sync = no_sync
    wrapped.initialize_count_status(model, 0, 6)
    for step in range(6):  # noqa: B007
        with wrapped.optim_context(model):
            loss = model(torch.ones(2, 4)).sum()
        wrapped.update_params(loss)
    assert alone == [0, 1, 3, 4]


class Reads(TorchDispatchMode):
    """Counts values that the host reads from tensors."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in ('tolist', 'numpy', 'cpu'):
            monkeypatch.setattr(torch.Tensor, name, self._counted(name))

    def _counted(self, name):
        original = getattr(torch.Tensor, name)

        def method(tensor, *args, **kwargs):
            self.count += 1
            return original(tensor, *args, **kwargs)

        return method

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


OPTIMIZERS = {
    'LARS': dict(type='simclr_mm.LARS', lr=0.1, weight_decay=1e-6),
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9),
    'Adam': dict(type='Adam', lr=1e-3, fused=True),
}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_no_step_between_two_lines_of_the_log_reads_anything(tmp_path, monkeypatch, name):
    """All hooks of the runtime, from one batch to the next, lines of the log apart."""
    monkeypatch.setattr(non_finite_guard, '_is_cpu', lambda device: False)
    run = runner(
        tmp_path,
        **{
            'train_cfg.max_epochs': 2,
            'param_scheduler.1.begin': 1,
            'param_scheduler.0.end': 1,
            'default_hooks.logger.interval': 3,
            'optim_wrapper': dict(
                _delete_=True,
                type='simclr_mm.AutocastOptimWrapper',
                clip_grad=dict(max_norm=1.0),
                optimizer=OPTIMIZERS[name],
            ),
        },
    )
    reads = {}
    run_iter = run.train_loop.run_iter

    def counted(idx, batch):
        with monkeypatch.context() as patches, Reads(patches) as mode:
            run_iter(idx, batch)
        reads[run.iter] = mode.count

    run.train_loop.run_iter = counted
    run.train()
    # Lines are written at steps 3 and 4 of four; the run's first sets things up.
    assert [reads[step] for step in (2, 5, 6)] == [0, 0, 0]
    assert all(reads[step] > 0 for step in (3, 4, 7, 8))
    assert len(run.message_hub.get_scalar('train/grad_norm').data[0]) == 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason='asks a GPU')
def test_a_gpu_is_not_waited_for(tmp_path):
    run = runner(
        tmp_path,
        **{
            'default_hooks.logger.interval': 3,
            'optim_wrapper.type': 'simclr_mm.AutocastOptimWrapper',
            'optim_wrapper.clip_grad': dict(max_norm=1.0),
        },
    )
    run_iter = run.train_loop.run_iter

    def strict(idx, batch):
        quiet = run.iter > 0 and idx % 4 < 2
        torch.cuda.set_sync_debug_mode('error' if quiet else 'default')
        run_iter(idx, batch)
        torch.cuda.set_sync_debug_mode('default')

    run.train_loop.run_iter = strict
    run.train()
    weight = run.model.backbone.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_channels_last_weights_are_kept_as_they_are():
    generator = torch.Generator().manual_seed(0)
    plain = [
        torch.randn(shape, generator=generator)
        for shape in ((5, 4, 3, 3), (6, 2, 1, 1), (3, 1, 3, 3), (7,))
    ]
    weights = [
        t.clone(memory_format=torch.channels_last) if t.ndim == 4 else t.clone() for t in plain
    ]
    before, strides = flat_copy(weights), [t.stride() for t in weights]
    for flag in (False, True):
        for t in weights:
            t.add_(1)
        keep_where(torch.tensor(flag), before, weights)
        for t, original in zip(weights, plain):
            assert torch.equal(t, original if flag else original + 1)
    assert [t.stride() for t in weights] == strides
