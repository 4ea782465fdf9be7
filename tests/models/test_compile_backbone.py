"""A compiled backbone computes the same, and nobody else sees that it is compiled."""

import copy

import pytest
import torch
from helpers.models import build
from mmengine.model import ExponentialMovingAverage

# One stage: tracing is what takes time.
BACKBONE = dict(
    type='ResNet_CIFAR',
    depth=18,
    base_channels=4,
    stem_channels=4,
    num_stages=1,
    strides=(1,),
    dilations=(1,),
    out_indices=(0,),
)


class Backend:
    """Runs what it is given as it is, and counts the graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def reset():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pair(**kwargs):
    """The model and its compiled twin."""
    backend = Backend()
    plain = build(BACKBONE, **kwargs)
    return plain, build(BACKBONE, compile_backbone=dict(backend=backend), **kwargs), backend


def step(model, n=6):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 2, 3, 8, 8, generator=generator)
    loss = model(inputs, mode='loss')['loss']
    loss.backward()
    return [loss.detach()] + [p.grad for p in model.parameters()]


@pytest.mark.parametrize('kwargs', [{}, dict(micro_batch_size=3)], ids=['whole', 'micro-batches'])
def test_loss_gradients_and_statistics(kwargs):
    plain, compiled, backend = pair(**kwargs)
    for ours, expected in zip(step(compiled), step(plain)):
        torch.testing.assert_close(ours, expected)
    assert backend.graphs > 0
    graphs = backend.graphs
    step(compiled)
    assert backend.graphs == graphs  # the next step compiles nothing
    step(plain)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict())


def test_recomputed_blocks():
    """BN counts a batch once in compiled blocks too."""
    one_stage = {
        key: BACKBONE[key] for key in ('num_stages', 'strides', 'dilations', 'out_indices')
    }
    google = dict(one_stage, type='simclr_mm.GoogleResNet', depth=18, width=1 / 16, with_cp=True)
    plain = build(google)
    compiled = build(google, compile_backbone=dict(backend='aot_eager'))
    for ours, expected in zip(step(compiled), step(plain)):
        torch.testing.assert_close(ours, expected)
    for (key, buffer), expected in zip(compiled.named_buffers(), plain.buffers()):
        torch.testing.assert_close(buffer, expected, msg=key)
    assert compiled.backbone.layer1[0].bn1.num_batches_tracked == 1


def test_keys_are_those_of_every_checkpoint():
    plain, compiled, _ = pair()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    step(compiled)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(compiled.state_dict(), strict=True)


def test_moving_average_of_a_compiled_model():
    _, compiled, _ = pair()
    average = ExponentialMovingAverage(compiled)
    step(compiled)
    average.update_parameters(compiled)
    images = torch.zeros(2, 3, 8, 8)
    expected = copy.deepcopy(compiled).eval()(images)
    torch.testing.assert_close(average.module.eval()(images), expected)


def test_true_means_torchs_defaults(monkeypatch):
    calls = []
    monkeypatch.setattr(
        torch.nn.Module,
        'compile',
        lambda self, **kwargs: calls.append((type(self).__name__, kwargs)),
    )
    build(BACKBONE, compile_backbone=True)
    build(BACKBONE, compile_backbone={})
    build(BACKBONE, compile_backbone=dict(mode='max-autotune'))
    build(BACKBONE)
    assert calls == [('ResNet_CIFAR', {})] * 2 + [('ResNet_CIFAR', dict(mode='max-autotune'))]
