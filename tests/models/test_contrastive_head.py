import pytest
import torch

from simclr_mm import losses
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
