"""ResNets of other libraries for small images, for weights converted from there.

Their stems differ from that of mmpretrain's ResNet_CIFAR. No key of a checkpoint shows it.
"""

from mmpretrain.models.backbones import ResNet_CIFAR
from torch import nn

from simclr_mm.registry import MODELS


@MODELS.register_module()
class SoloResNet(ResNet_CIFAR):
    """As in solo-learn: the 3x3 stem pads two pixels, so that 32 pixels become 34.

    Source: github.com/vturrisi/solo-learn, ``solo/methods/base.py``.

    Args:
        **kwargs: As for mmpretrain's ResNet_CIFAR.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.conv1.padding = (2, 2)


@MODELS.register_module()
class LightlyResNet(ResNet_CIFAR):
    """As in lightly's examples: no ReLU behind the norm of the stem.

    The examples put the children of ``ResNetGenerator`` into an ``nn.Sequential``. Its ReLU
    is not a child but a call in ``forward``.

    Source: github.com/lightly-ai/lightly, ``lightly/models/resnet.py``.

    Args:
        **kwargs: As for mmpretrain's ResNet_CIFAR.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.relu = nn.Identity()
