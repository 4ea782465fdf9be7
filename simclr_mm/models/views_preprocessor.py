"""The boundary between data and model: one normalised RGB tensor on the device."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import MODELS
from simclr_mm.transforms.batched import ViewsToMake


@MODELS.register_module()
class ViewsPreprocessor(BaseDataPreprocessor):
    """Copy a batch to the device, make missing views there, and normalise RGB.

    n images, V views, S side in pixels. A batch's ``inputs`` are uint8 and one of

    - (n, V, 3, S, S), from TwoViews;
    - :class:`~simclr_mm.transforms.batched.ViewsToMake`, from TwoViews with augmentation on
      the device, or the list that mmpretrain's PackInputs makes of it;
    - a list of V tensors (n, 3, S, S), from mmpretrain's MultiView and default_collate;
    - (n, 3, S, S), images without views;
    - a list of n tensors (3, S, S), the same from pseudo_collate.

    Args:
        mean: Three means in [0, 255], in the order of the output (RGB if to_rgb).
        std: Three standard deviations, > 0, in the same order.
        to_rgb: Reverse the channels. False for data that is RGB already.
        non_blocking: Copy pinned memory to a GPU without waiting.

    Raises:
        UserError: mean or std are not three numbers, std is not above 0, or inputs are
            none of the above.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        to_rgb: bool = True,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking)
        for key, value in (('mean', mean), ('std', std)):
            if len(value) != 3:
                raise UserError(
                    f'ViewsPreprocessor: {key} must be three numbers in [0, 255], got {value}.'
                )
        if min(std) <= 0:
            raise UserError(f'ViewsPreprocessor: std must be above 0, got {std}.')
        # Not persistent, so that checkpoints keep mmpretrain's keys.
        for key, value in (('mean', mean), ('std', std)):
            buffer = torch.tensor(value, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(key, buffer, persistent=False)
        self.to_rgb = to_rgb

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make the model's arguments from a batch, the same in training and testing.

        They are ``inputs``, float32 (n, V, 3, S, S) or (n, 3, S, S), normalised RGB, each image
        channels-last in memory, and ``data_samples``, None if the batch has none.
        """
        inputs = ViewsToMake.restored(data['inputs'])
        samples = self.cast_data(data.get('data_samples'))
        if isinstance(inputs, ViewsToMake):
            return dict(inputs=self._make_views(inputs), data_samples=samples)
        images = _as_one_tensor(self.cast_data(inputs))
        if self.to_rgb:
            images = images.flip(-3)
        # Reordering bytes moves a quarter of the memory that float32 would.
        shape = images.shape
        images = images.flatten(0, -4).contiguous(memory_format=torch.channels_last)
        images, mean, std = images.float(), self.mean, self.std
        if len(shape) == 4:  # no views: rounded as timm and torchvision do it
            images.div_(255)
            mean, std = (values.double().div(255).float() for values in (mean, std))
        images = images.sub_(mean).div_(std)
        if len(shape) > 4:  # of one image, the strides would no longer say channels-last
            images = images.unflatten(0, shape[:-3])
        return dict(inputs=images, data_samples=samples)

    @torch.no_grad()
    def _make_views(self, drawn: ViewsToMake) -> Tensor:
        """Make the drawn views on the device and normalise them: (n, V, 3, S, S) float32.

        The drawn numbers stay on the host, because they decide which kernels to start.
        """
        images = drawn.images.flatten(0, -4)  # (m, H, W, 3)
        images = images.to(self.device, non_blocking=self._non_blocking)
        rgb = images.unbind(-1)[::-1]
        images = torch.stack(rgb, dim=1)  # (m, 3, H, W), whole planes
        with torch.autocast(self.device.type, enabled=False):
            views = drawn.make(images)  # (nV, 3, S, S)
        if not self.to_rgb:
            views = views.flip(1)
        views = views.contiguous(memory_format=torch.channels_last)
        # One pass from bytes to normalised floats.
        views = torch.addcmul(-self.mean / self.std, views, 1 / self.std)
        return views.unflatten(0, drawn.steps.shape[:2])


def _as_one_tensor(inputs: Any) -> Tensor:
    stacked = inputs
    if isinstance(inputs, (list, tuple)):
        # V tensors (n, 3, S, S) -> (n, V, 3, S, S); n tensors (3, S, S) -> (n, 3, S, S)
        with contextlib.suppress(AttributeError, IndexError, RuntimeError, TypeError):
            stacked = torch.stack(list(inputs), dim=inputs[0].ndim - 3)
    if (
        not isinstance(stacked, Tensor)
        or stacked.dtype != torch.uint8
        or stacked.ndim not in (4, 5)
        or stacked.shape[-3] != 3
    ):
        raise UserError(
            f'ViewsPreprocessor: inputs must be uint8 in [0, 255]: a tensor '
            f'(n, V, 3, S, S) or (n, 3, S, S), V tensors (n, 3, S, S) or n tensors '
            f'(3, S, S) of one size; got {_describe(inputs)}. End the pipeline with '
            f'simclr_mm.TwoViews and PackInputs, and keep images uint8.'
        )
    return stacked


def _describe(inputs: Any) -> str:
    if isinstance(inputs, Tensor):
        return f'{inputs.dtype} of shape {tuple(inputs.shape)}'
    if isinstance(inputs, (list, tuple)):
        kinds = sorted({_describe(entry) for entry in inputs})
        return f'a list of {len(inputs)}: ' + ', '.join(kinds[:3])
    return type(inputs).__name__
