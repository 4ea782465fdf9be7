"""The boundary between data and model: one normalised tensor on the device."""

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
    """Copy a batch to the device, make missing views there, and normalise the channels.

    n images, V views, C channels, S side in pixels. A batch's ``inputs`` are uint8, or float32 in
    the units of a file, and one of

    - (n, V, C, S, S), from TwoViews;
    - :class:`~simclr_mm.transforms.batched.ViewsToMake`, from TwoViews with augmentation on
      the device, or the list that mmpretrain's PackInputs makes of it;
    - a list of V tensors (n, C, S, S), from mmpretrain's MultiView and default_collate;
    - (n, C, S, S), images without views;
    - a list of n tensors (C, S, S), the same from pseudo_collate.

    Args:
        mean: C means in the units of the images, [0, 255] for uint8, in the order of the output
            (RGB if to_rgb).
        std: C standard deviations, > 0, in the same order.
        to_rgb: Reverse three channels, from BGR. False for data that is RGB already, and for the
            bands of ``simclr_mm.LoadBands``.
        non_blocking: Copy pinned memory to a GPU without waiting.

    Raises:
        UserError: mean and std differ in length, std is not above 0, to_rgb with other than three
            channels, or inputs are none of the above or have another number of channels.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        to_rgb: bool = True,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking)
        if not 0 < len(mean) == len(std):
            raise UserError(
                'ViewsPreprocessor: mean and std must be a number for each channel, got '
                f'{mean} and {std}.'
            )
        if to_rgb and len(mean) != 3:
            raise UserError(
                f'ViewsPreprocessor: to_rgb reverses three channels, but mean and std have '
                f'{len(mean)}: write to_rgb=False for images that are not BGR.'
            )
        if min(std) <= 0:
            raise UserError(f'ViewsPreprocessor: std must be above 0, got {std}.')
        # Not persistent, so that checkpoints keep mmpretrain's keys.
        for key in ('mean', 'std', 'unit_mean', 'unit_std'):
            self.register_buffer(key, torch.empty(len(mean), 1, 1), persistent=False)
        self.set_statistics(mean, std)
        self.to_rgb = to_rgb

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Replace mean and std by others for the same channels."""
        for key, values in (('mean', mean), ('std', std)):
            for name, numbers in ((key, values), (f'unit_{key}', unit_range(values))):
                buffer = getattr(self, name)
                buffer.copy_(torch.tensor(numbers).view_as(buffer))

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make the model's arguments from a batch, the same in training and testing.

        They are ``inputs``, float32 (n, V, C, S, S) or (n, C, S, S), normalised, each image
        channels-last in memory, and ``data_samples``, None if the batch has none.
        """
        inputs = ViewsToMake.restored(data['inputs'])
        samples = self.cast_data(data.get('data_samples'))
        if isinstance(inputs, ViewsToMake):
            return dict(inputs=self._make_views(inputs), data_samples=samples)
        images = self._as_one_tensor(self.cast_data(inputs), samples)
        if self.to_rgb:
            images = images.flip(-3)
        # Reordering bytes moves a quarter of the memory that float32 would.
        shape = images.shape
        images = images.flatten(0, -4).contiguous(memory_format=torch.channels_last)
        mean, std, as_timm = self.mean, self.std, len(shape) == 4 and images.dtype == torch.uint8
        images = images.to(torch.float32, copy=True)
        if as_timm:  # pictures, no views: rounded as timm and torchvision do it
            images.div_(255)
            mean, std = self.unit_mean, self.unit_std
        images.sub_(mean).div_(std)
        if len(shape) > 4:  # of one image, the strides would no longer say channels-last
            images = images.unflatten(0, shape[:-3])
        return dict(inputs=images, data_samples=samples)

    @torch.no_grad()
    def _make_views(self, drawn: ViewsToMake) -> Tensor:
        """Make the drawn views on the device and normalise them: (n, V, C, S, S) float32.

        The drawn numbers stay on the host, because they decide which kernels to start.
        """
        images = drawn.images.flatten(0, -4)  # (m, H, W, 3)
        images = images.to(self.device, non_blocking=self._non_blocking)
        planes = images.unbind(-1)
        if len(planes) != len(self.mean):
            raise self._refusal(drawn.images)
        # Reversed, because colours are defined on RGB.
        images = torch.stack(planes[::-1], dim=1)  # (m, C, H, W), whole planes
        with torch.autocast(self.device.type, enabled=False):
            views = drawn.make(images)  # (nV, C, S, S)
        if not self.to_rgb:
            views = views.flip(1)
        views = views.contiguous(memory_format=torch.channels_last)
        if views.dtype == torch.uint8:  # one pass from bytes to normalised floats
            views = torch.addcmul(-self.mean / self.std, views, 1 / self.std)
        else:  # in which a small difference of large values keeps its digits
            views = views.sub(self.mean).div_(self.std)
        return views.unflatten(0, drawn.steps.shape[:2])

    def _as_one_tensor(self, inputs: Any, samples: Any) -> Tensor:
        stacked = inputs
        if isinstance(inputs, (list, tuple)):
            # V tensors (n, C, S, S) -> (n, V, C, S, S); n tensors (C, S, S) -> (n, C, S, S)
            with contextlib.suppress(AttributeError, IndexError, RuntimeError, TypeError):
                stacked = torch.stack(list(inputs), dim=views_axis(inputs, samples))
        if (
            not isinstance(stacked, Tensor)
            or stacked.dtype not in self._dtypes
            or stacked.ndim not in (4, 5)
            or stacked.shape[-3] != len(self.mean)
        ):
            raise self._refusal(inputs)
        return stacked

    @property
    def _dtypes(self) -> tuple[torch.dtype, ...]:
        """Floats have the units of a file, so they are no BGR."""
        return (torch.uint8,) if self.to_rgb else (torch.uint8, torch.float32)

    def _refusal(self, inputs: Any) -> UserError:
        kinds = 'uint8 in [0, 255]' if self.to_rgb else 'uint8 or float32'
        return UserError(
            f'ViewsPreprocessor: inputs must be {kinds} with {len(self.mean)} channel(s), as mean '
            'and std have: a tensor (n, V, C, S, S) or (n, C, S, S), V tensors (n, C, S, S), or n '
            f'tensors (V, C, S, S) or (C, S, S) of one size; got {_describe(inputs)}. End the '
            'pipeline with simclr_mm.TwoViews and PackInputs. For bands, write their mean and std '
            'and to_rgb=False in data_preprocessor.'
        )


def views_axis(inputs: Sequence[Tensor], samples: Sequence | None) -> int:
    """Where to stack a list of tensors for (n, V, C, S, S) or (n, C, S, S).

    V tensors (n, C, S, S) are from mmpretrain's MultiView, n tensors (V, C, S, S) from TwoViews
    without a collate function. The number of samples tells them apart, unless n = V.
    """
    of_images = samples is not None and len(inputs) == len(samples) != len(inputs[0])
    return 0 if of_images else inputs[0].ndim - 3


def unit_range(values: Sequence[float]) -> list[float]:
    """Means or standard deviations of [0, 255] as those of [0, 1]: 123.675 gives 0.485.

    They have seven digits, the precision of float32, so they are the numbers that others write.
    """
    return [float(f'{value / 255:.7g}') for value in values]


def _describe(inputs: Any) -> str:
    if isinstance(inputs, Tensor):
        return f'{inputs.dtype} of shape {tuple(inputs.shape)}'
    if isinstance(inputs, (list, tuple)):
        kinds = sorted({_describe(entry) for entry in inputs})
        return f'a list of {len(inputs)}: ' + ', '.join(kinds[:3])
    return type(inputs).__name__
