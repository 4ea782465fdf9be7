"""Products are full float32, by the switch that this PyTorch has."""

from types import SimpleNamespace

import pytest
import torch

from simclr_mm.losses.precision import full_float32

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    'old',
    [SimpleNamespace(), SimpleNamespace(matmul=SimpleNamespace())],
    ids=['2.6', 'without the switch'],
)
def test_before_backends_had_a_switch(monkeypatch, old):
    """PyTorch before 2.9 has one for all, and its mkldnn has no ``matmul``."""
    monkeypatch.setattr(torch.backends, 'mkldnn', old)
    asked = ['medium']
    monkeypatch.setattr(torch, 'get_float32_matmul_precision', lambda: asked[-1])
    monkeypatch.setattr(torch, 'set_float32_matmul_precision', asked.append)
    with full_float32(CPU):
        assert asked[-1] == 'highest'
    assert asked[-1] == 'medium'


def test_the_switch_of_a_backend(monkeypatch):
    matmul = SimpleNamespace(fp32_precision='bf16')
    monkeypatch.setattr(torch.backends, 'mkldnn', SimpleNamespace(matmul=matmul))
    with pytest.raises(ZeroDivisionError), full_float32(CPU):
        assert matmul.fp32_precision == 'ieee'
        raise ZeroDivisionError
    assert matmul.fp32_precision == 'bf16'


def test_no_autocast_inside():
    with torch.autocast('cpu', torch.bfloat16):
        with full_float32(CPU):
            assert not torch.is_autocast_enabled('cpu')
        assert torch.is_autocast_enabled('cpu')
