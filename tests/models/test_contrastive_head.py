import pytest
import torch

from simclr_mm.losses import margin_triplet, nt_logistic, nt_xent
from simclr_mm.registry import MODELS

pytestmark = pytest.mark.portable


@pytest.mark.parametrize('kwargs', [dict(temperature=0.5), dict(temperature=0.2, pairs='separate')])
def test_hands_its_numbers_to_the_loss(kwargs):
    head = MODELS.build(dict(type='simclr_mm.NTXentHead', **kwargs))
    z = torch.randn(4, 3, 8)
    logged = head.loss(z)
    loss, stats = nt_xent(z, **kwargs, return_stats=True)
    assert logged.pop('loss').equal(loss)
    assert logged == stats


@pytest.mark.parametrize(
    'name, function, numbers',
    [
        ('NTLogisticHead', nt_logistic, dict(temperature=0.5)),
        ('NTLogisticHead', nt_logistic, dict(temperature=0.2, semi_hard=True)),
        ('MarginTripletHead', margin_triplet, dict(margin=0.4)),
        ('MarginTripletHead', margin_triplet, dict(margin=0.8, semi_hard=True)),
    ],
)
def test_other_objectives_hand_over_their_numbers(name, function, numbers):
    head = MODELS.build(dict(type=f'simclr_mm.{name}', **numbers))
    z = torch.randn(4, 3, 8)
    logged = head.loss(z)
    loss, stats = function(z, **numbers, return_stats=True)
    assert logged.pop('loss').equal(loss)
    assert logged == stats


def test_default_temperature_is_the_papers():
    z = torch.randn(4, 2, 8)
    head = MODELS.build(dict(type='simclr_mm.NTXentHead'))
    assert head.loss(z)['loss'].equal(nt_xent(z, 0.1))


def test_only_the_loss_is_added_to_the_objective():
    """MMEngine sums every key that contains 'loss'."""
    for head in (
        dict(type='simclr_mm.NTXentHead'),
        dict(type='simclr_mm.NTLogisticHead', temperature=0.5, semi_hard=True),
        dict(type='simclr_mm.MarginTripletHead', margin=0.4, semi_hard=True),
    ):
        logged = MODELS.build(head).loss(torch.randn(4, 2, 8))
        assert [key for key in logged if 'loss' in key] == ['loss']
