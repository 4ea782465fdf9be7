"""The table of libraries that take an encoder."""

from .hub_folder import HubFolder
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
    hf=HubFolder(),
)
