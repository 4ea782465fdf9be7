import pytest
import torch

from simclr_mm.losses import unnormalized_xent
from simclr_mm.registry import MODELS

pytestmark = pytest.mark.portable


def test_hands_its_number_to_the_loss():
    head = MODELS.build(dict(type='simclr_mm.UnnormalizedXentHead', temperature=10))
    z = torch.randn(4, 2, 8)
    logged = head.loss(z)
    loss, stats = unnormalized_xent(z, 10, return_stats=True)
    # MMEngine sums every key that contains 'loss'.
    assert [key for key in logged if 'loss' in key] == ['loss']
    assert logged.pop('loss').equal(loss)
    assert logged == stats
