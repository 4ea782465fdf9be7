"""The preprocessing of an encoder's images, as data that travels with its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor

from simclr_mm.errors import UserError
from simclr_mm.models.views_preprocessor import unit_range
from simclr_mm.registry import type_name
from simclr_mm.transforms.loading import LOADING_STEPS

Numbers = tuple[float, ...]  # of red, green and blue, or of each band
_AROUND = (*LOADING_STEPS, 'PackInputs')
# Allowed values: they come from a file and enter code that is run.
_INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos', 'box', 'hamming')
_BACKENDS = ('cv2', 'pillow')
_LARGEST = 4096  # pixels


@dataclass(frozen=True)
class Preprocessing:
    """From an image to an encoder's input: resize, crop, scale RGB to [0, 1], normalise."""

    mean: Numbers  # of RGB in [0, 1], or of bands in the units of their files
    std: Numbers  # as mean
    resize: int  # pixels of the shorter edge, or of both edges
    edge: str  # 'short', or 'both' without keeping the aspect ratio
    size: int  # side of the centre crop in pixels
    interpolation: str  # 'bilinear' and others
    backend: str  # 'pillow', which antialiases when it shrinks, or 'cv2', which does not
    loading: Mapping[str, Any] | None = None  # settings of LoadBands; None: RGB

    @classmethod
    def of(
        cls,
        preprocessor: BaseDataPreprocessor,
        pipeline: Sequence[Mapping[str, Any]] | None,
        source: str,
    ) -> 'Preprocessing':
        """Read it from a model's preprocessor and the transforms of a test image, if known.

        ``source`` names the checkpoint in errors.

        Raises:
            UserError: The settings are incomplete, or this class cannot express them.
        """
        resizing, *crops = _steps(pipeline, source)
        scale, both = resizing['scale'], resizing['type'] == 'Resize'
        if isinstance(scale, (tuple, list)) and len(set(scale)) == 1:
            scale = scale[0]
        size = crops[0]['crop_size'] if crops else scale
        if not (_is_side(scale) and _is_side(size) and size <= scale):
            raise _unknown(source, f'{[resizing, *crops]} gives no square')
        how = dict(
            interpolation=resizing.get('interpolation', 'bilinear'),
            backend=resizing.get('backend', 'cv2'),
        )
        for key, known in (('interpolation', _INTERPOLATIONS), ('backend', _BACKENDS)):
            if how[key] not in known:
                raise _unknown(source, f'{key} is {how[key]!r}, not one of {", ".join(known)}')
        bands = [dict(step) for step in pipeline or () if type_name(step) == 'LoadBands']
        loading = {key: bands[0][key] for key in bands[0] if key != 'type'} if bands else None
        mean, std = _statistics(preprocessor, source, loading is None)
        return cls(mean, std, scale, 'both' if both else 'short', size, loading=loading, **how)

    def record(self) -> dict[str, Any]:
        """Plain data, with colour order and value range."""
        plain = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        loading = plain.pop('loading')
        if loading is not None:
            return dict(bands=len(self.mean), values='of the files', load_bands=loading, **plain)
        return dict(color_order='RGB', value_range=[0, 1], **plain)

    def sentence(self) -> str:
        """The steps before the normalisation, in words."""
        resize = 'both edges' if self.edge == 'both' else 'shorter edge'
        what = 'RGB' if self.loading is None else f'{len(self.mean)} band(s) as in the files'
        if self.loading is not None and self.loading.get('window') is not None:
            centre, width = self.loading['window']
            what += f', cut to [{centre - width / 2:g}, {centre + width / 2 - 1:g}]'
        return (
            f'{what}, {resize} resized to {self.resize} px ({self.interpolation}, '
            f'{self.backend}), centre crop of {self.size} px'
        )

    def openmmlab(self, flag: str) -> str:
        """A data_preprocessor's arguments. ``flag`` is its name for BGR to RGB."""
        mean, std = (
            list(values)
            if self.loading is not None
            else [round(255 * value, 4) for value in values]
            for values in (self.mean, self.std)
        )
        return f'mean={mean}, std={std}, {flag}={self.loading is None}'

    def pipeline(self) -> list[dict[str, Any]]:
        """mmpretrain's transforms, starting from a file."""
        how = dict(interpolation=self.interpolation, backend=self.backend)
        resize: dict[str, Any] = dict(type='Resize', scale=self.resize, **how)
        if self.edge == 'short':
            resize = dict(type='ResizeEdge', scale=self.resize, edge='short', **how)
        crop = dict(type='CenterCrop', crop_size=self.size)
        load = dict(type='LoadImageFromFile')
        if self.loading is not None:
            resize['type'] = f'simclr_mm.{resize["type"]}' if self.edge == 'short' else 'Resize'
            load = dict(type='simclr_mm.LoadBands', **self.loading)
        return [load, resize, crop, dict(type='PackInputs')]

    def torchvision(self, normalise: bool = True) -> str:
        """The transform of a PIL image, as an expression with ``v2``; or up to uint8 pixels."""
        edge = (self.resize, self.resize) if self.edge == 'both' else self.resize
        mode = f'v2.InterpolationMode.{self.interpolation.upper()}'
        crop = f'v2.CenterCrop({self.size})'
        if self.backend == 'cv2':  # shrinks without antialiasing; v2 can do this for tensors only
            steps = ['v2.PILToTensor()', f'v2.Resize({edge}, {mode}, antialias=False)', crop]
        else:
            steps = [f'v2.Resize({edge}, {mode})', crop, 'v2.PILToTensor()']
        if normalise:
            steps += [
                'v2.ToDtype(torch.float32, scale=True)',
                f'v2.Normalize({list(self.mean)}, {list(self.std)})',
            ]
        return f'v2.Compose([{", ".join(steps)}])'

    def timm(self) -> dict[str, Any]:
        """timm's ``pretrained_cfg``."""
        share = self.size / self.resize
        if int(self.size / share) != self.resize:  # timm divides and rounds down
            share = self.size / (self.resize + 0.5)
        return dict(
            input_size=(3, self.size, self.size),
            crop_pct=share,
            crop_mode='squash' if self.edge == 'both' else 'center',
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )


def _is_side(value: Any) -> bool:
    """Whether a value is a length in pixels."""
    return type(value) is int and 0 < value <= _LARGEST


def _unknown(source: str, reason: str) -> UserError:
    return UserError(
        f'{source}: its preprocessing is unknown ({reason:.300}); give a config '
        'whose test pipeline is Resize, or ResizeEdge and CenterCrop'
    )


def _steps(pipeline: Sequence[Mapping[str, Any]] | None, source: str) -> list[dict[str, Any]]:
    """One resizing step and an optional centre crop, types without their scope."""
    if pipeline is None:
        raise _unknown(source, 'the config has no test_dataloader')
    steps = [dict(step, type=type_name(step)) for step in pipeline]
    steps = [step for step in steps if step['type'] not in _AROUND]
    names = [step['type'] for step in steps]
    if (
        names not in (['Resize'], ['Resize', 'CenterCrop'], ['ResizeEdge', 'CenterCrop'])
        or 'scale' not in steps[0]
        or steps[0].get('keep_ratio')
        or steps[0].get('edge', 'short') != 'short'
    ):
        raise _unknown(source, f'the test pipeline is {names}')
    return steps


def takes_bgr(preprocessor: BaseDataPreprocessor) -> bool:
    """Whether it turns BGR images into RGB."""
    return getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))


def _statistics(
    preprocessor: BaseDataPreprocessor, source: str, rgb: bool
) -> tuple[Numbers, Numbers]:
    """Mean and std of RGB in [0, 1], or of bands."""
    if rgb and not takes_bgr(preprocessor):
        raise UserError(
            f'{source}: data_preprocessor.to_rgb is not True, so it is not known whether the '
            'encoder takes BGR or RGB; if RGB, add --cfg-options data_preprocessor.to_rgb=True'
        )
    # Without mean and std the pixels stay in [0, 255].
    mean, std = (
        torch.as_tensor(getattr(preprocessor, name, default)).cpu().double().flatten()
        for name, default in (('mean', [0.0] * 3), ('std', [1.0] * 3))
    )
    return _rounded(mean, rgb), _rounded(std, rgb)


def _rounded(values: torch.Tensor, rgb: bool) -> Numbers:
    # Nine digits tell all float32 apart.
    numbers: list[float] = values.tolist()
    return tuple(unit_range(numbers) if rgb else (float(f'{value:.9g}') for value in numbers))
