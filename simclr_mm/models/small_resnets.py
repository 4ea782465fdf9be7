"""ResNets of other libraries for small images, for weights converted from them.

Their stems differ from mmpretrain's ResNet_CIFAR, but the checkpoint keys do not.
"""

from mmpretrain.models.backbones import ResNet_CIFAR
from torch import nn

from simclr_mm.registry import MODELS


@MODELS.register_module()
class SoloResNet(ResNet_CIFAR):
    """ResNet of solo-learn: the 3x3 stem pads two pixels, so that 32 pixels become 34.

    Source: github.com/vturrisi/solo-learn, ``solo/methods/base.py``.

    Args:
        **kwargs: As for mmpretrain's ResNet_CIFAR.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv1.padding = (2, 2)


@MODELS.register_module()
class LightlyResNet(ResNet_CIFAR):
    """ResNet of lightly's examples: no ReLU after the stem's norm.

    The examples put the children of ``ResNetGenerator`` into an ``nn.Sequential``. Its ReLU
    is no child but a call in ``forward``, so it is lost.

    Source: github.com/lightly-ai/lightly, ``lightly/models/resnet.py``.

    Args:
        **kwargs: As for mmpretrain's ResNet_CIFAR.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.relu = nn.Identity()
