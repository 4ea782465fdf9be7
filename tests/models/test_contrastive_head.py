import pytest
import torch
from helpers.models import build, pixels
from mmpretrain.structures import DataSample

from simclr_mm import losses
from simclr_mm.errors import UserError
from simclr_mm.registry import MODELS

pytestmark = pytest.mark.portable

HEADS = [
    ('NTXentHead', 'nt_xent', dict(temperature=0.5)),
    ('NTXentHead', 'nt_xent', dict(temperature=0.2, pairs='separate')),
    ('NTLogisticHead', 'nt_logistic', dict(temperature=0.5)),
    ('NTLogisticHead', 'nt_logistic', dict(temperature=0.2, semi_hard=True)),
    ('MarginTripletHead', 'margin_triplet', dict(margin=0.4)),
    ('MarginTripletHead', 'margin_triplet', dict(margin=0.8, semi_hard=True)),
    ('UnnormalizedXentHead', 'unnormalized_xent', dict(temperature=10)),
]


@pytest.mark.parametrize('name, function, numbers', HEADS)
def test_hands_its_numbers_to_the_loss(name, function, numbers):
    head = MODELS.build(dict(type=f'simclr_mm.{name}', **numbers))
    z = torch.randn(4, 3, 8)
    logged = head.loss(z)
    # MMEngine sums every key that contains 'loss'.
    assert [key for key in logged if 'loss' in key] == ['loss']
    assert logged.pop('loss').equal(getattr(losses, function)(z, **numbers))
    assert logged == getattr(losses, f'{function}_with_stats')(z, **numbers)[1]
    for number in numbers.items():
        assert '{}={!r}'.format(*number) in repr(head)


def test_default_temperature_is_the_papers():
    z = torch.randn(4, 2, 8)
    head = MODELS.build(dict(type='simclr_mm.NTXentHead'))
    assert head.loss(z)['loss'].equal(losses.nt_xent(z, 0.1))
    assert repr(head) == "NTXentHead(temperature=0.1, pairs='all')"


GROUPED = dict(type='simclr_mm.NTXentHead', groups=True)


@pytest.mark.parametrize('micro_batch_size', [None, 2])
def test_groups_come_from_the_samples(micro_batch_size):
    samples = [DataSample(metainfo=dict(group=group)) for group in (4, 4, -1, 2**62)]
    samples[0] = DataSample()
    samples[0].set_field(4, 'group')  # as PackInputs(algorithm_keys=('group',)) makes it
    model = build(head=GROUPED, micro_batch_size=micro_batch_size)
    views = pixels(4, 2, 3, 8, 8).float()
    loss = model.loss(views, samples)['loss']
    groups = torch.tensor([4, 4, -1, 2**62])
    assert loss.equal(losses.nt_xent(model.projections, 0.1, groups=groups))
    assert not loss.equal(losses.nt_xent(model.projections, 0.1))


def test_samples_without_groups_are_refused():
    head = MODELS.build(GROUPED)
    samples = [DataSample(metainfo=dict(group=4)), DataSample()]
    with pytest.raises(UserError, match='head.groups .* 1 of 2 samples of this batch have None'):
        head.loss(torch.randn(2, 2, 8), samples)
    with pytest.raises(UserError, match='model.head.groups needs a whole number'):
        head.loss(torch.randn(2, 2, 8))
    samples[1] = DataSample(metainfo=dict(group='anna'))
    with pytest.raises(UserError, match="1 of 2 samples of this batch have 'anna'"):
        head.loss(torch.randn(2, 2, 8), samples)
