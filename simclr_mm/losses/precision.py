from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """No autocast inside, no tf32 or bfloat16 in products, whatever the job has set.

    Similarities are divided by a temperature of 0.1 or less and exponentiated: tf32's
    relative 1e-3 would be 1e-2 and more in the gradient.

    Args:
        device: Where the products run.
    """
    with torch.autocast(device.type, enabled=False), _full_products(device):
        yield


@contextmanager
def _full_products(device: torch.device) -> Iterator[None]:
    if hasattr(torch.backends.cuda.matmul, 'fp32_precision'):  # torch >= 2.9
        backend = (
            torch.backends.mkldnn if device.type == 'cpu' else torch.backends.cuda)
        before = backend.matmul.fp32_precision
        backend.matmul.fp32_precision = 'ieee'
        try:
            yield
        finally:
            backend.matmul.fp32_precision = before
    else:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision('highest')
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
