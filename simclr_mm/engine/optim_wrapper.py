"""bf16 where the device computes with it, and clipping without waiting for the device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from simclr_mm.errors import UserError
from simclr_mm.registry import OPTIM_WRAPPERS

_DTYPES = ('auto', 'bfloat16', 'float32')


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """MMEngine's OptimWrapper with autocast, without waiting for the device.

    bf16 has the range of float32, so no loss is scaled and nothing is read back. Parameters, their
    gradients, the loss and the running statistics of BN stay float32. One config runs on old and
    new CPUs and GPUs.

    Args:
        dtype: 'auto': 'bfloat16' if the devices of all ranks compute with it, else
            'float32'; the log says which and why. Such devices are NVIDIA GPUs since
            Ampere, and CPUs with AVX512-BF16 or AMX. 'bfloat16': anywhere. 'float32': no
            autocast. For fp16 use MMEngine's AmpOptimWrapper.
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
            native, reason = min(all_gather_object(native_bf16(get_device())))  # of all ranks
            dtype = 'bfloat16' if native else 'float32'
            MMLogger.get_current_instance().info(f'Training computes in {dtype}: {reason}.')
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


def native_bf16(device: str) -> tuple[bool, str]:
    """Whether a device type computes with bf16, and the reason in words.

    Devices that only emulate bf16 are slower with it than with float32.
    """
    if device == 'cuda':
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native, f'this GPU {"has" if native else "lacks"} bf16'
    if device != 'cpu':
        return False, f'bf16 was never tried on {device}'
    instructions = {
        'AVX512-BF16': torch.cpu._is_avx512_bf16_supported,
        'AMX': torch.cpu._is_amx_tile_supported,
    }
    for name, is_supported in instructions.items():
        if is_supported():
            return True, f'this CPU has {name}'
    return False, f'this CPU has neither {" nor ".join(instructions)}'


def check_clipping(wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Clip a gradient of 1: PyTorch looks at these settings only when it clips."""
    settings = getattr(wrapper, 'clip_grad_kwargs', None)
    if not settings:
        return
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    try:
        wrapper.clip_func([parameter], **settings)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f'optim_wrapper.clip_grad = {settings}: {error}') from error
    if not parameter.grad > 0:
        raise UserError(f'optim_wrapper.clip_grad = {settings}: give a bound above 0')
