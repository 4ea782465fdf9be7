"""LARS against hand-made numbers, a loop in float64 and mmpretrain's class."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from simclr_mm.engine import lars
from simclr_mm.engine.lars import LARS

pytestmark = pytest.mark.portable


def parameter(values, grad=None):
    p = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    if grad is not None:
        p.grad = torch.tensor(grad, dtype=torch.float64)
    return p


def assert_values(p, values):
    assert p.detach().flatten().tolist() == pytest.approx(values, rel=1e-12)


# w = (3, 4), |w| = 5; g = (-0.8, 0.6), |g| = 1; decay 0.15, lr 2, eta 0.001.
# u = g + 0.15 w = (-0.8 + 0.45, 0.6 + 0.6) = (-0.35, 1.2), |u| = 1.25.
# 'sum':   trust = 0.001 * 5 / 1.25 = 0.004;       2 * 0.004 * u = (-0.0028, 0.0096).
# 'parts': trust = 0.001 * 5 / (1 + 0.75) = 1/350; 2 / 350 * u = (-0.002, 0.048 / 7),
#          within the 1e-8 of its denominator.
@pytest.mark.parametrize(
    'denominator, expected, tolerance',
    [('sum', [3.0028, 3.9904], 1e-12), ('parts', [3.002, 4 - 0.048 / 7], 1e-10)],
)
def test_one_step_by_hand(denominator, expected, tolerance):
    w = parameter([[3.0, 4.0]], [[-0.8, 0.6]])
    LARS([w], lr=2.0, weight_decay=0.15, trust_denominator=denominator).step()
    assert w.flatten().tolist() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize('denominator', ['sum', 'parts'])
def test_without_decay_it_adapts_all_the_same(denominator):
    """SimCLR v2's fine-tuning. Without the trust ratio the step would be 0.1 g = (0.3, 0.4)."""
    # |w| = 10, |g| = 5, trust = 0.001 * 10 / 5 = 0.002, step 0.1 * 0.002 * g = (0.0006, 0.0008).
    w = parameter([[6.0, 8.0]], [[3.0, 4.0]])
    LARS([w], lr=0.1, weight_decay=0.0, trust_denominator=denominator).step()
    assert w.flatten().tolist() == pytest.approx([5.9994, 7.9992], rel=1e-9)


def test_two_steps_by_hand():
    """The rate is inside the velocity: v = 0.9 v + lr trust u."""
    w = parameter([[3.0, 4.0]], [[0.6, 0.8]])
    optimizer = LARS([w], lr=2.0, weight_decay=0.1)
    # u = (0.6 + 0.3, 0.8 + 0.4) = (0.9, 1.2), |u| = 1.5, trust = 0.005 / 1.5 = 1 / 300,
    # v = 2 / 300 * u = (0.006, 0.008).
    optimizer.step()
    assert_values(w, [2.994, 3.992])
    # |w| = 4.99 and u still points along (0.6, 0.8), so at half the rate
    # lr trust u = 1 * 0.001 * 4.99 * (0.6, 0.8) = (0.002994, 0.003992),
    # v = (0.0054 + 0.002994, 0.0072 + 0.003992) = (0.008394, 0.011192).
    optimizer.param_groups[0]['lr'] = 1.0
    optimizer.step()
    assert_values(w, [2.985606, 3.980808])


def test_vectors_take_the_plain_step_unless_included():
    # Excluded: no decay, trust 1: 2 - 0.5 * 1.
    # Included: u = 1 + 0.15 * 2 = 1.3, trust = 0.001 * 2 / 1.3; 2 - 0.5 * 0.002.
    for include, expected in ((False, 1.5), (True, 1.999)):
        b = parameter([2.0], [1.0])
        LARS([b], lr=0.5, weight_decay=0.15, include_1d=include).step()
        assert_values(b, [expected])


@pytest.mark.parametrize('denominator', ['sum', 'parts'])
def test_zero_norms_have_trust_one(denominator):
    weightless = parameter([[0.0, 0.0]], [[1.0, 2.0]])
    gradless = parameter([[3.0, 4.0]], [[0.0, 0.0]])
    LARS([weightless, gradless], lr=0.5, trust_denominator=denominator).step()
    assert_values(weightless, [-0.5, -1.0])
    assert_values(gradless, [3.0, 4.0])


def test_zero_gradient_with_decay():
    # 'sum': u = 0.1 w, trust = 0.001 * 5 / 0.5 = 0.01, step 0.5 * 0.01 * 0.1 w.
    # 'parts', as mmpretrain: |g| = 0, trust 1, step 0.5 * 0.1 w.
    for denominator, share in (('sum', 0.0005), ('parts', 0.05)):
        w = parameter([[3.0, 4.0]], [[0.0, 0.0]])
        LARS([w], lr=0.5, weight_decay=0.1, trust_denominator=denominator).step()
        assert_values(w, [3 - 3 * share, 4 - 4 * share])


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    ).double()


def gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


RATES = [0.1, 0.7, 1.3, 0.9, 0.2]


def step_one(
    p, v, lr, weight_decay=0.0, momentum=0.9, eta=0.001, trust_denominator='sum', include_1d=False
):
    """One parameter and its velocity, in Python numbers where a number will do."""
    w, g = p.data, p.grad
    u, trust = g, 1.0
    if include_1d or w.ndim > 1:
        u = g + weight_decay * w
        length = u.norm().item()
        if trust_denominator == 'parts':
            length = g.norm().item() + weight_decay * w.norm().item() + 1e-8
        trust = eta * w.norm().item() / length
    v.copy_(momentum * v + lr * trust * u)
    p.data = w - v


def train(model, optimizer, steps=range(len(RATES))):
    for step in steps:
        gradients(model, step)
        for group in optimizer.param_groups:
            group['lr'] = RATES[step]
        optimizer.step()


def assert_equal_models(ours, theirs, tolerance):
    for p, expected in zip(ours.parameters(), theirs.parameters()):
        assert (p - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize('denominator', ['sum', 'parts'])
def test_equals_loop(denominator):
    ours, reference = network(), network()
    settings = dict(weight_decay=0.02, trust_denominator=denominator)
    train(ours, LARS(ours.parameters(), lr=1.0, **settings))
    velocities = [torch.zeros_like(p) for p in reference.parameters()]
    for step, lr in enumerate(RATES):
        gradients(reference, step)
        for p, v in zip(reference.parameters(), velocities):
            step_one(p, v, lr, **settings)
    assert_equal_models(ours, reference, 1e-13)


@pytest.mark.parametrize('numbers', [0, 15, 150])
def test_batches_change_nothing(monkeypatch, numbers):
    """Tensors of 108, 4, 4, 4, 720 and 5 numbers: each alone, or some together."""
    whole, split = network(), network()
    train(whole, LARS(whole.parameters(), lr=1.0, weight_decay=0.02, include_1d=True))
    monkeypatch.setattr(lars, '_CPU_BATCH', numbers)
    train(split, LARS(split.parameters(), lr=1.0, weight_decay=0.02, include_1d=True))
    assert_equal_models(split, whole, 0)


def test_equals_mmpretrain():
    """Its form of the ratio, its exclusion by name as ours by dimension."""
    from mmpretrain.engine import LARS as MMPretrainLARS

    ours, theirs = network().float(), network().float()
    groups = [
        dict(params=[p for p in theirs.parameters() if p.ndim > 1]),
        dict(
            params=[p for p in theirs.parameters() if p.ndim == 1],
            weight_decay=0,
            lars_exclude=True,
        ),
    ]
    train(theirs, MMPretrainLARS(groups, lr=1.0, momentum=0.9, weight_decay=0.02))
    optimizer = LARS(ours.parameters(), lr=1.0, weight_decay=0.02, trust_denominator='parts')
    train(ours, optimizer)
    assert_equal_models(ours, theirs, 1e-6)


@pytest.mark.parametrize('decay', [0.0, 0.15])
def test_a_group_that_mmpretrain_excludes(decay):
    """As mmpretrain: trust 1, with the group's decay."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.engine import LARS as MMPretrainLARS

    weights = []
    for make in (LARS, MMPretrainLARS):
        w, b = parameter([[1.0, -2.0]], [[0.1, 0.3]]), parameter([[3.0]], [[0.5]])
        groups = [dict(params=[w], lars_exclude=True), dict(params=[b])]
        kwargs = dict(trust_denominator='parts') if make is LARS else {}
        optimizer = make(groups, lr=1.0, momentum=0.9, weight_decay=decay, **kwargs)
        optimizer.step()
        optimizer.step()
        weights.append(torch.cat([w.flatten(), b.flatten()]).detach())
    assert weights[0].tolist() == pytest.approx(weights[1].tolist(), rel=1e-9)
    if not decay:
        # v = 0.1, then 0.9 * 0.1 + 0.1.
        assert weights[0][0].item() == pytest.approx(1 - 0.1 - 0.19)


def test_a_vector_of_an_excluded_group_does_not_decay():
    b = parameter([1.0], [0.1])
    LARS([dict(params=[b], lars_exclude=True)], lr=1.0, weight_decay=0.5).step()
    assert_values(b, [0.9])


def test_state_dict_continues_the_run(tmp_path):
    unbroken = network()
    train(unbroken, LARS(unbroken.parameters(), lr=1.0, weight_decay=0.02))
    first = network()
    optimizer = LARS(first.parameters(), lr=1.0, weight_decay=0.02)
    train(first, optimizer, range(3))
    torch.save((first.state_dict(), optimizer.state_dict()), tmp_path / 'run.pth')
    weights, state = torch.load(tmp_path / 'run.pth', weights_only=True)
    second = network()
    second.load_state_dict(weights)
    optimizer = LARS(second.parameters(), lr=0.0)
    optimizer.load_state_dict(state)
    train(second, optimizer, range(3, 5))
    assert_equal_models(second, unbroken, 0)


def test_parameters_without_gradient_are_left_alone():
    w, unused = parameter([[3.0, 4.0]], [[1.0, 1.0]]), parameter([[1.0, 2.0]])
    optimizer = LARS([w, unused], lr=1.0, weight_decay=0.1)
    optimizer.step()
    assert_values(unused, [1.0, 2.0])
    assert unused not in optimizer.state


def test_groups_keep_their_numbers():
    """Groups of one parameter each, as paramwise_cfg makes them, in one update."""
    settings = [
        dict(lr=2.0, weight_decay=0.15),
        dict(lr=1.0, weight_decay=0.0, eta=0.01, momentum=0.5),
        dict(lr=2.0, weight_decay=0.15, trust_denominator='parts'),
        dict(lr=0.5),
    ]
    ours = [parameter([[3.0, 4.0]]) for _ in settings]
    reference = [parameter([[3.0, 4.0]]) for _ in settings]
    velocities = [torch.zeros_like(p) for p in reference]
    groups = [dict(params=[p], **kwargs) for p, kwargs in zip(ours, settings)]
    optimizer = LARS(groups, lr=0.0)
    for step in range(3):
        for p in ours + reference:
            p.grad = p.new_tensor([[-0.8, 0.6 + step]])
        optimizer.step()
        for p, v, kwargs in zip(reference, velocities, settings):
            step_one(p, v, **kwargs)
    for p, expected in zip(ours, reference):
        assert_values(p, expected.flatten().tolist())


def test_closure_runs_with_gradients():
    w = parameter([[3.0, 4.0]])
    optimizer = LARS([w], lr=1.0)

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 25
    # trust u = 0.001 * 5 / 10 * 2 w = 0.001 w
    assert_values(w, [2.997, 3.996])


def test_paramwise_decay_of_mmengine():
    model = network()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='simclr_mm.LARS', lr=2.0, weight_decay=0.15),
            paramwise_cfg=dict(custom_keys={'4.': dict(decay_mult=0, lr_mult=0.5)}),
        ),
    )
    assert isinstance(wrapper, OptimWrapper)
    before = copy.deepcopy(model)
    wrapper.update_params(sum(p.sum() for p in model.parameters()))
    for module, lr, decay in ((0, 2.0, 0.15), (4, 1.0, 0.0)):
        w = before[module].weight.data
        u = 1 + decay * w
        expected = w - lr * 0.001 * w.norm() / u.norm() * u
        torch.testing.assert_close(model[module].weight.data, expected)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(lr=-0.1),
        dict(lr=float('nan')),
        dict(lr='0.1'),
        dict(lr=1.0, momentum=1.0),
        dict(lr=1.0, weight_decay=-1e-6),
        dict(lr=1.0, eta=0.0),
        dict(lr=1.0, trust_denominator='product'),
    ],
)
def test_errors_name_the_key(kwargs):
    with pytest.raises(ValueError, match=f'optim_wrapper.optimizer.{list(kwargs)[-1]}'):
        LARS([parameter([1.0])], **kwargs)


def test_a_wrong_setting_of_a_group_is_no_other_form():
    for setting in (dict(trust_denominator='sums'), dict(momentum=2), dict(weight_decay=-1.0)):
        with pytest.raises(ValueError, match=f'optim_wrapper.paramwise_cfg.{list(setting)[0]}'):
            LARS([dict(params=[parameter([[1.0]])], **setting)], lr=1.0)
