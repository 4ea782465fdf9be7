import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simclr_mm.errors import UserError
from simclr_mm.registry import MODELS

pytestmark = pytest.mark.portable


def build(**kwargs):
    return MODELS.build(dict(type='simclr_mm.ProjectionNeck', **kwargs))


@pytest.mark.parametrize(
    'num_layers, shapes',
    [(0, []), (1, [(5, 12)]), (2, [(20, 12), (5, 20)]), (3, [(20, 12), (20, 20), (5, 20)])],
)
def test_layers(num_layers, shapes):
    neck = build(in_channels=12, hid_channels=20, out_channels=5, num_layers=num_layers)
    expected = {}
    for layer, shape in enumerate(shapes):
        expected[f'fc{layer}.weight'] = shape
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            expected[f'bn{layer}.{name}'] = shape[:1]
        expected[f'bn{layer}.num_batches_tracked'] = ()
    assert {k: tuple(v.shape) for k, v in neck.state_dict().items()} == expected
    assert neck(torch.randn(4, 12)).shape == (4, 5 if shapes else 12)


def test_no_head_changes_nothing():
    x = torch.randn(4, 12)
    assert build(in_channels=12, num_layers=0)(x) is x


def test_hidden_width_is_the_input_width():
    neck = build(in_channels=12)
    assert neck.fc0.weight.shape == (12, 12)
    assert neck.fc1.weight.shape == (128, 12)


def test_forward_by_hand():
    neck = build(in_channels=6, hid_channels=4, out_channels=3, num_layers=3).double()
    x = torch.randn(8, 6, dtype=torch.float64)
    expected = x
    for layer in range(3):
        expected = expected @ neck.get_parameter(f'fc{layer}.weight').T
        std = torch.sqrt(expected.var(0, unbiased=False) + 1e-5)
        expected = (expected - expected.mean(0)) / std
        if layer < 2:
            expected = expected.clamp(min=0)
    torch.testing.assert_close(neck(x), expected)


def restated(x, weights, gammas, betas, selector):
    """The reference code's hiddens_list, in NumPy: 0 is the input, the last has no ReLU."""
    hiddens = [x]
    for layer, (weight, gamma, beta) in enumerate(zip(weights, gammas, betas)):
        h = hiddens[-1] @ weight.T
        h = gamma * (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) + beta
        hiddens.append(np.maximum(h, 0) if layer < len(weights) - 1 else h)
    return hiddens[selector]


@pytest.mark.parametrize('until', [None, -1, 0, 1, 2, 3])
def test_the_selector_is_the_reference_codes(until):
    rng = np.random.default_rng(0)
    widths = [6, 4, 4, 3]
    weights = [rng.normal(size=(b, a)) for a, b in zip(widths, widths[1:])]
    gammas, betas = ([rng.normal(1, 0.5, b) for b in widths[1:]] for _ in range(2))
    x = rng.normal(size=(8, 6))
    expected = restated(x, weights, gammas, betas, -1 if until is None else until)

    neck = build(in_channels=6, hid_channels=4, out_channels=3, num_layers=3, until=until).double()
    layers = 3 if until in (None, -1) else until
    state = {}
    for layer in range(layers):
        state[f'fc{layer}.weight'] = weights[layer]
        state[f'bn{layer}.weight'], state[f'bn{layer}.bias'] = gammas[layer], betas[layer]
    assert state.keys() == {name for name, _ in neck.named_parameters()}  # nothing unused
    for name, p in neck.named_parameters():
        p.data = torch.from_numpy(state[name])
    got = neck(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    if until in (1, 2):
        assert (got == 0).any() and (got >= 0).all()


def test_the_last_norm_without_beta():
    """The reference code's last norm has a gamma only; its checkpoints get a beta of 0."""
    neck = build(in_channels=6, out_channels=3, num_layers=3, last_bias=False)
    assert neck.state_dict().keys() == build(in_channels=6, num_layers=3).state_dict().keys()
    neck = nn.SyncBatchNorm.convert_sync_batchnorm(neck)
    fixed = [name for name, p in neck.named_parameters() if not p.requires_grad]
    assert fixed == ['bn2.bias'] and not neck.bn2.bias.any()
    # The middle layers keep theirs, and so does a neck that ends before the last layer.
    middle = build(in_channels=6, out_channels=3, num_layers=3, last_bias=False, until=2)
    assert all(p.requires_grad for p in middle.parameters())
    with pytest.raises(ValueError, match='model.neck.last_bias'):
        build(in_channels=6, norm_cfg=None, last_bias=False)


def test_in_a_classifier_it_takes_the_backbones_stages():
    neck = build(in_channels=6, until=1).eval()
    maps = torch.randn(4, 6, 3, 3)
    (features,) = neck((torch.randn(4, 3, 6, 6), maps))
    torch.testing.assert_close(features, neck(maps.mean((2, 3))))


@pytest.mark.parametrize('until', [3, -2])
def test_a_layer_that_is_not_there(until):
    with pytest.raises(
        ValueError, match=rf'until = {until}: a head of 2 .* set model\.neck\.until'
    ):
        build(in_channels=6, until=until)


def test_init_weights():
    """Linear as PyTorch draws it, U(+-1/sqrt(fan_in)); norms 1 and 0."""
    torch.manual_seed(0)
    neck = build(in_channels=400, hid_channels=100, out_channels=100)
    for p in neck.parameters():
        nn.init.constant_(p, 7.0)
    neck.init_weights()
    for layer, bound in enumerate([1 / 20, 1 / 10]):
        weight = neck.get_parameter(f'fc{layer}.weight')
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert (neck.get_parameter(f'bn{layer}.weight') == 1).all()
        assert (neck.get_parameter(f'bn{layer}.bias') == 0).all()


def test_norm_becomes_sync_bn():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(build(in_channels=8))
    assert isinstance(converted.bn0, nn.SyncBatchNorm)
    assert isinstance(converted.bn1, nn.SyncBatchNorm)


def test_other_norms():
    neck = build(in_channels=8, norm_cfg=dict(type='LN'))
    x = torch.randn(4, 8)
    hidden = F.relu(F.layer_norm(neck.fc0(x), (8,)))
    torch.testing.assert_close(neck(x), F.layer_norm(neck.fc1(hidden), (128,)))


def test_errors_name_the_fix():
    with pytest.raises(ValueError, match='model.neck.num_layers'):
        build(in_channels=8, num_layers=-1)


@pytest.mark.parametrize('name', ['hid_channels', 'out_channels'])
def test_a_width_of_zero_is_refused(name):
    with pytest.raises(ValueError, match=rf'{name} must be >= 1, got 0: set model\.neck\.{name}'):
        build(in_channels=8, **{name: 0})


def test_features_of_another_width_name_the_key():
    neck = build(in_channels=12, out_channels=5)
    with pytest.raises(UserError, match='model.neck.in_channels = 12, .* gives 7 features'):
        neck(torch.zeros(2, 7))
