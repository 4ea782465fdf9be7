"""The table of libraries that take an encoder."""

import importlib.util

from simclr_mm.errors import MissingPackageError

from .onnx_safetensors import Onnx, Safetensors
from .openmmlab import Detection, MMPretrain
from .target import Target
from .torchvision_timm import Timm, Torchvision

TARGETS: dict[str, Target] = dict(
    torchvision=Torchvision(),
    timm=Timm(),
    mmpretrain=MMPretrain(),
    mmdet=Detection(),
    mmseg=Detection(),
    onnx=Onnx(),
    safetensors=Safetensors(),
)


def require(packages: tuple[str, ...], reason: str) -> None:
    """Raise if a package is missing, with the command that installs it."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        names = ' '.join(missing)
        raise MissingPackageError(f'{reason} needs {", ".join(missing)}: pip install {names}')
