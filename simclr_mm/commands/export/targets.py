"""The libraries that take an encoder, as a table."""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclr_mm.errors import UserError

from . import onnx_safetensors as files
from . import openmmlab
from . import torchvision_timm as resnets
from .source import Source


@dataclass(frozen=True)
class Target:
    """One library that takes a backbone.

    Args:
        suffix: Of its files.
        packages: What has to be installed to verify.
        tolerance: Greatest difference of a feature from ours, as a share of the
            largest feature.
        write: Gives the bytes of the file, from the source and the metadata.
        setup: Gives the code that loads it, from the source and the path.
        use: Code after that, from a PIL image ``picture`` or an array ``bgr`` to
            ``features``; '' where the code is a config.
        run: Gives features of pictures, from what that code defined.
        weights: Gives the weights as loaded there, under our names.
    """

    suffix: str
    packages: tuple[str, ...]
    tolerance: float
    write: Callable[[Source, dict[str, Any]], bytes]
    setup: Callable[[Source, str], str]
    use: str
    run: Callable[[Source, dict[str, Any], list[np.ndarray]], Tensor]
    weights: Callable[[Source, dict[str, Any]], dict[str, Tensor]]


def _pth(tensors: Callable[[Source], dict[str, Tensor]]) -> Callable:

    def write(source: Source, metadata: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        torch.save(dict(state_dict=tensors(source), meta=metadata), buffer)
        return buffer.getvalue()

    return write


_ONE = 'features = model(preprocess(picture)[None])  # (1, C)'
_CONFIG = Target(
    '.pth',
    (),
    1e-5,
    _pth(openmmlab.plain_tensors),
    openmmlab.config_setup,
    '',
    openmmlab.config_run,
    openmmlab.config_weights,
)
TARGETS = {
    'torchvision': Target(
        '.pth',
        ('torchvision',),
        1e-5,
        _pth(resnets.torchvision_tensors),
        resnets.torchvision_setup,
        _ONE,
        resnets.run,
        resnets.torchvision_weights,
    ),
    'timm': Target(
        '.pth',
        ('timm',),
        1e-5,
        _pth(resnets.timm_tensors),
        resnets.timm_setup,
        _ONE,
        resnets.run,
        resnets.timm_weights,
    ),
    'mmpretrain': Target(
        '.pth',
        (),
        1e-5,
        _pth(openmmlab.mmpretrain_tensors),
        openmmlab.mmpretrain_setup,
        'features = FeatureExtractor(model)(bgr)[0]  # a path, or a uint8 BGR array',
        openmmlab.mmpretrain_run,
        openmmlab.mmpretrain_weights,
    ),
    'mmdet': _CONFIG,
    'mmseg': _CONFIG,
    # Other kernels than PyTorch's.
    'onnx': Target(
        '.onnx',
        ('onnx', 'onnxruntime', 'onnxscript'),
        1e-4,
        files.onnx_bytes,
        files.onnx_setup,
        'features, = session.run(None, {"images": crop(picture)[None].numpy()})',
        files.onnx_run,
        files.onnx_weights,
    ),
    'safetensors': Target(
        '.safetensors',
        ('safetensors',),
        1e-5,
        files.safetensors_bytes,
        files.safetensors_setup,
        'features = backbone(preprocess(picture)[None])[-1]  # of the last stage',
        files.safetensors_run,
        files.safetensors_weights,
    ),
}


def require(packages: tuple[str, ...], reason: str) -> None:
    """Stop where a package is missing.

    Raises:
        ValueError: with the command that installs it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'{reason} needs {", ".join(missing)}: pip install {" ".join(missing)}')
