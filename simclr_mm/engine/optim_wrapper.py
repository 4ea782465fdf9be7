"""bf16 if the GPU supports it, and gradient clipping without waiting for the device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from simclr_mm.errors import UserError
from simclr_mm.registry import OPTIM_WRAPPERS

_DTYPES = ('auto', 'bfloat16', 'float32')


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """MMEngine's OptimWrapper with autocast, without waiting for the device.

    bf16 has the range of float32, so no loss is scaled and nothing is read back. Parameters, their
    gradients and the loss stay float32. One config runs on a CPU, an old and a new GPU.

    Args:
        dtype: 'auto': 'bfloat16' on a GPU that computes with it (NVIDIA since Ampere),
            'float32' elsewhere. 'bfloat16': on a CPU, too. 'float32': no autocast. For
            fp16 use MMEngine's AmpOptimWrapper.
        **kwargs: As for MMEngine's OptimWrapper: ``optimizer``, ``accumulative_counts``,
            ``clip_grad``.

    Attributes:
        clipped: The gradient norm of the last ``update_params`` before clipping, on the
            device, by its name in the log. Empty without clipping. RuntimeInfoHook logs it.

    Raises:
        UserError: Another dtype.

    Differs: MMEngine's AmpOptimWrapper refuses to start on a CPU, and its loss scaler
        and its clipping read from the device in every step.
    """

    def __init__(self, dtype: str = 'auto', **kwargs) -> None:
        if dtype not in _DTYPES:
            raise UserError(
                f'optim_wrapper.dtype must be one of {_DTYPES}, got {dtype!r}; for '
                "fp16 write optim_wrapper.type='AmpOptimWrapper'."
            )
        super().__init__(**kwargs)
        if dtype == 'auto':
            dtype = 'bfloat16' if _gpu_has_bf16() else 'float32'
        self.dtype = getattr(torch, dtype)
        self.clipped: dict[str, Tensor] = {}

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        enabled = self.dtype != torch.float32
        with (
            super().optim_context(model),
            torch.autocast(device, self.dtype if enabled else None, enabled),
        ):
            yield

    def update_params(self, *args, **kwargs) -> None:
        self.clipped = {}
        super().update_params(*args, **kwargs)

    def _clip_grad(self) -> None:
        params = [
            p
            for group in self.optimizer.param_groups
            for p in group['params']
            if p.grad is not None
        ]
        norm = self.clip_func(params, **self.clip_grad_kwargs)
        if norm is not None:  # clipping by value returns None
            self.clipped = {self.grad_name: norm.detach()}


def _gpu_has_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
