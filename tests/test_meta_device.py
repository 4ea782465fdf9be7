"""A training step on a device that holds no values, as a rehearsal of a GPU.

On the ``meta`` device a read-back (``.item()``, ``.cpu()``, a branch on a value) and an operation
on tensors of two devices raise an error. So a step that runs here neither waits for a GPU nor
mixes it with the host.
"""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.models import on_meta
from mmengine.config import Config
from mmengine.hooks import LoggerHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmpretrain.structures import DataSample

from simclr_mm.datasets import Digits, SampleIndex, collate
from simclr_mm.engine import LARS
from simclr_mm.engine.hooks.non_finite_guard import NonFiniteGuardHook
from simclr_mm.evaluation import KNNAccuracy, LabelFreeMetrics, ProbeAccuracy
from simclr_mm.models import SimCLR

META = torch.device('meta')
TRANSFORMS = [
    dict(type='simclr_mm.ColorDistortion'),
    dict(type='simclr_mm.RandomGaussianBlur'),
    dict(type='simclr_mm.RandomRotation', degrees=15.0),
    dict(type='simclr_mm.RandomCutout'),
    dict(type='simclr_mm.RandomSobel'),
    dict(type='simclr_mm.RandomGaussianNoise', std=(1.0, 4.0)),
    dict(type='simclr_mm.RandomCropAndFlip'),
]
HEADS = [
    dict(type='simclr_mm.NTXentHead'),
    dict(type='simclr_mm.NTXentHead', pairs='separate'),
    dict(type='simclr_mm.NTLogisticHead', temperature=0.2),
    dict(type='simclr_mm.NTLogisticHead', temperature=0.2, semi_hard=True),
    dict(type='simclr_mm.MarginTripletHead', margin=0.4),
    dict(type='simclr_mm.MarginTripletHead', margin=0.4, semi_hard=True),
    dict(type='simclr_mm.UnnormalizedXentHead', temperature=10),
]


@pytest.fixture(autouse=True)
def what_meta_cannot_do(monkeypatch):
    """Calls that exist for every real device and not for this one."""
    # Autocast is not known for it. The step runs without.
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda device_type: False)
    monkeypatch.setattr(torch, 'set_autocast_enabled', lambda device_type, enabled: None)
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: contextlib.nullcontext())
    # It has no random generator, and nothing to draw.
    generator = SimpleNamespace(manual_seed=lambda seed: None)
    monkeypatch.setattr(torch, 'Generator', lambda device: generator)
    monkeypatch.setattr(
        torch, 'randn', lambda shape, generator, device: torch.empty(shape, device=device)
    )
    # It has no streams.
    monkeypatch.setattr(torch.Tensor, 'record_stream', lambda self, stream: None)


def batch(batched, augment, num_views=2):
    """Eight digits as the dataset and its collate function give them."""
    data = Digits(
        split='train',
        batched=batched,
        pipeline=[
            dict(
                type='simclr_mm.TwoViews',
                size=16,
                num_views=num_views,
                transforms=TRANSFORMS,
                augment=augment,
            ),
            dict(type='mmpretrain.PackInputs'),
        ],
    )
    return collate(data.__getitems__([SampleIndex(i, seed=0, epoch=0) for i in range(8)]))


def build(**settings) -> BaseModel:
    torch.manual_seed(0)
    backbone = dict(type='ResNet_CIFAR', depth=18, base_channels=16, stem_channels=16)
    model = SimCLR(backbone, online_probe=dict(num_classes=10), **settings).to(META)
    model.probe._labels_checked = True  # the first batch of a run is read, once
    return model


def test_the_device_refuses_what_would_wait():
    """What the tests below rely on."""
    value = torch.ones((), device=META)
    for read in (value.item, value.cpu, value.tolist, value.numpy, lambda: bool(value > 0)):
        with pytest.raises((NotImplementedError, RuntimeError, TypeError)):
            read()
    with pytest.raises(RuntimeError, match='device'):
        torch.ones(2, device=META) + torch.ones(2)


@pytest.mark.parametrize('batched', [False, True])
@pytest.mark.parametrize('augment', ['worker', 'device'])
@pytest.mark.parametrize('micro_batch_size', [None, 3])
def test_a_step(batched, augment, micro_batch_size):
    run_steps(build(micro_batch_size=micro_batch_size), batch(batched, augment))


@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('head', HEADS, ids=lambda head: '-'.join(map(str, head.values())))
def test_each_head(head, num_views):
    denominator = 'sum' if num_views == 2 else 'parts'
    run_steps(build(head=head), batch(True, 'device', num_views), denominator)


def run_steps(model, data, denominator='sum'):
    """Two steps with LARS under the guard, as the runner's loop takes them."""
    how = dict(lr=1.0, weight_decay=1e-6, trust_denominator=denominator)
    wrapper = OptimWrapper(LARS(model.parameters(), **how))
    runner = SimpleNamespace(
        model=model.train(), optim_wrapper=wrapper, hooks=[LoggerHook(interval=100)], iter=0
    )
    guard = NonFiniteGuardHook()
    guard.before_train(runner)
    for runner.iter in range(2):
        guard.before_train_iter(runner, runner.iter, data)
        logged = model.train_step(data, wrapper)
        guard.after_train_iter(runner, runner.iter, data, logged)
    guard.after_train(runner)
    assert {'loss', 'probe_loss', 'top1', 'chance'} <= set(logged)
    assert all(value.device == META for value in logged.values())
    state = wrapper.optimizer.state
    assert all(state[p]['momentum_buffer'].device == META for p in model.parameters())
    assert model.projections.device == META


def test_a_step_of_the_largest_encoder():
    """871 M weights with the head, as the config has them; blocks are recomputed."""
    root = Path(__file__).parents[1] / 'configs'
    cfg = Config.fromfile(root / 'simclr-v2_r152w3-sk_32xb128-coslr-800e_in1k.py')
    with on_meta():
        model = SimCLR(**{key: value for key, value in cfg.model.items() if key != 'type'})
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        inputs = torch.empty(128, 2, 3, 224, 224)
        wrapper.update_params(model.train().loss(inputs)['loss'])
    moved = [p for p in model.parameters() if 'momentum_buffer' in wrapper.optimizer.state[p]]
    assert sum(p.numel() for p in moved) == 871_012_896 - 128  # all but the last norm's bias
    assert model.projections.shape == (128, 2, 128)


def test_metrics_read_the_device_once_a_batch(monkeypatch):
    model = build().eval()
    images = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    samples = [
        DataSample(metainfo=dict(sample_idx=i, gallery=i < 3)).set_gt_label(i) for i in range(6)
    ]
    with torch.no_grad():
        predicted = model.val_step(dict(inputs=images, data_samples=samples))
    predicted = [sample.to_dict() for sample in predicted]  # as mmengine's Evaluator does
    reads = []

    def cpu(tensor):
        """The one read that a metric may do: it keeps features in main memory."""
        reads.append(tensor.shape)
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    monkeypatch.setattr(torch.Tensor, 'cpu', cpu)
    for metric, expected in (
        (KNNAccuracy(k=2), [(6, 128), (6,)]),
        (LabelFreeMetrics(), [(3, 128)]),
        (ProbeAccuracy(), [(3, 1)]),
    ):
        reads.clear()
        metric.process({}, predicted)
        assert reads == expected
