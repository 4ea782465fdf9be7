from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switch off autocast, and TF32 and bfloat16 in matrix products.

    Similarities are divided by a temperature of 0.1 or less and exponentiated. TF32 has an
    error of 1e-3, which would become 1e-2 and more in the gradient.
    """
    products = torch.backends.mkldnn if device.type == 'cpu' else torch.backends.cuda
    matmul: Any = getattr(products, 'matmul', None)  # mkldnn has none before torch 2.9
    by_backend = hasattr(matmul, 'fp32_precision')
    autocast = torch.is_autocast_enabled(device.type)
    torch.set_autocast_enabled(device.type, False)
    if by_backend:
        before = matmul.fp32_precision
        matmul.fp32_precision = 'ieee'
    else:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision('highest')
    try:
        yield
    finally:
        torch.set_autocast_enabled(device.type, autocast)
        if by_backend:
            matmul.fp32_precision = before
        else:
            torch.set_float32_matmul_precision(before)
