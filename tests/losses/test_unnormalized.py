"""NT-Xent of dot products against nested loops."""

import pytest
import torch
from helpers.triples import naive_xent, projections

from simclr_mm.losses import nt_xent, unnormalized, unnormalized_xent, unnormalized_xent_with_stats


@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('temperature', [1, 10])
def test_equals_nested_loops(num_views, temperature):
    z = projections(5, num_views)
    loss, stats = unnormalized_xent_with_stats(z, temperature)
    value, expected = naive_xent(z, temperature, unit=False)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    assert 0 < expected['top1'] < 1
    found = {name: number.item() for name, number in stats.items()}
    assert found == pytest.approx(expected, rel=1e-12)
    assert unnormalized_xent(z, temperature).equal(loss)


def test_rows_of_length_one_are_nt_xent():
    z = torch.nn.functional.normalize(projections(6, 2), dim=-1).requires_grad_()
    loss = unnormalized_xent(z, 0.5)
    assert loss.item() == pytest.approx(nt_xent(z, 0.5).item(), rel=1e-12)


def test_the_gradient_is_full_float32_too():
    """Where products are allowed to round to bfloat16, those of the backward pass do not."""
    matmul = getattr(torch.backends.mkldnn, 'matmul', None)
    if matmul is None or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip('this PyTorch or this CPU has no products in bfloat16')
    exact = projections(64, 2, d=32).requires_grad_()
    rounded = exact.detach().float().requires_grad_()
    before, matmul.fp32_precision = matmul.fp32_precision, 'bf16'
    try:
        for z in (exact, rounded):
            unnormalized_xent(z, 1.0).backward()
    finally:
        matmul.fp32_precision = before
    error = (rounded.grad - exact.grad).abs().max() / exact.grad.abs().max()
    assert error < 1e-5


def test_two_ranks_are_one(monkeypatch):
    """Each rank sees all rows, and its own begin at its place among them."""
    z = projections(6, 2)
    whole = unnormalized_xent(z, 10).item()
    halves = []
    for first in (0, 3):
        monkeypatch.setattr(unnormalized, 'gather_rows', lambda rows, first=first: (z, first))
        halves.append(unnormalized_xent(z[first : first + 3], 10).item())
    assert halves[0] != halves[1]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-12)
