"""The ResNet of Google's SimCLR, to train, and for weights converted from TensorFlow."""

import torch
from mmcv.cnn import build_norm_layer
from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import Bottleneck, ResLayer
from torch import Tensor, nn
from torch.nn import functional as F

from simclr_mm.errors import UserError
from simclr_mm.registry import MODELS

from .micro_batches import recomputed

# TensorFlow's variance_scaling_initializer.
_INIT: list[dict] = [
    dict(type='Kaiming', layer='Conv2d', mode='fan_in', nonlinearity='linear'),
    dict(type='Constant', layer=['_BatchNorm', 'GroupNorm'], val=1),
]
_SK_RATIO, _SK_MIN = 0.0625, 32  # SimCLR v2's --sk_ratio, and sk_conv2d's min_dim


@MODELS.register_module()
class GoogleResNet(ResNet):
    """mmpretrain's ResNet with the differences of google-research/simclr in TensorFlow.

    - The max-pool pads SAME: an even side gets no padding at the top and left.
    - Every stage begins with a convolution in the shortcut, also in ResNet-18 and 34.
    - Selective kernels use the stem and the shortcuts of ResNet-D.

    Strided convolutions pad as in PyTorch, because the reference code pads them itself.

    Source: github.com/google-research/simclr, ``resnet.py``; arXiv:2006.10029 (SimCLR
    v2), Sec. 3 on widths and selective kernels; arXiv:1903.06586 for selective kernels.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.
        width: Multiplies every number of channels. Published are 1, 2, 3 and 4.
        selective_kernels: Published as ``sk1``. Needs depth 50 or more.
        small_images: A 3x3 stem of stride 1 without max-pool, for 32 px.
        with_cp: Keep only the input of each block for the backward pass, which computes
            the rest again. BN counts each batch once.
        init_cfg: By default as in the reference code: convolutions with variance 1 / fan-in, and
            the last norm of each block with weight 0.
        in_channels: Of an image; 3 is RGB.
        **kwargs: As for mmpretrain's ResNet, such as ``frozen_stages``.

    Raises:
        UserError: selective_kernels with depth 18 or 34, or width is not above 0.

    Differs: the reference code draws convolutions from a normal distribution that ends at two
    standard deviations, here it has no end. With ``--sk_ratio`` it gives ResNet-18 and 34 the stem
    and the shortcuts of ResNet-D, and no selective kernels; nothing published has them.
    """

    FIXED = ('stem_channels', 'base_channels', 'deep_stem')  # given to the base class
    arch_settings = {**ResNet.arch_settings, 200: (Bottleneck, (3, 24, 36, 3))}

    def __init__(
        self,
        depth: int,
        width: float = 1,
        selective_kernels: bool = False,
        small_images: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = _INIT,
        in_channels: int = 3,
        **kwargs,
    ) -> None:
        if not 0 < width < 100:
            raise UserError(f'model.backbone.width = {width}: published are 1, 2, 3 and 4')
        if selective_kernels and depth < 50:
            raise UserError(f'GoogleResNet: selective_kernels needs depth 50 or more, got {depth}')
        channels = int(64 * width)
        super().__init__(
            depth,
            in_channels=in_channels,
            stem_channels=channels,
            base_channels=channels,
            deep_stem=selective_kernels and not small_images,
            with_cp=with_cp,
            init_cfg=init_cfg,
            **kwargs,
        )
        self.maxpool = nn.Identity() if small_images else _SamePool()
        if small_images:
            self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        width_before = channels
        for name in self.res_layers:
            stage = getattr(self, name)
            stage[0].downsample = _shortcut(
                width_before,
                stage[0].out_channels,
                stage[0].stride,
                selective_kernels,
                self.norm_cfg,
            )
            width_before = stage[0].out_channels
            if selective_kernels:
                for block in stage:
                    # Its output is >= 0, so the ReLU after it has no effect.
                    block.conv2 = SelectiveKernel(block.mid_channels, block.stride, self.norm_cfg)
                    setattr(block, block.norm2_name, nn.Identity())
        self._freeze_stages()

    def make_res_layer(self, with_cp: bool, **kwargs) -> ResLayer:
        stage = _Stage(**kwargs)
        stage.with_cp = with_cp
        return stage


class _Stage(ResLayer):
    """Blocks in a row. mmpretrain's own ``with_cp`` lets BN count a batch twice."""

    with_cp = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            again = self.with_cp and torch.is_grad_enabled()
            x = recomputed(block, x, block) if again else block(x)
        return x


class SelectiveKernel(nn.Module):
    """Two parallel 3x3 convolutions of stride 1 or 2, mixed per channel by a softmax.

    The weights of the mix come from the mean over positions of the sum of both outputs.
    """

    def __init__(self, channels: int, stride: int, norm_cfg: dict = dict(type='BN')) -> None:
        super().__init__()
        middle = max(int(channels * _SK_RATIO), _SK_MIN)
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride, padding=1, bias=False)
        self.bn = _norm(norm_cfg, 2 * channels)
        self.squeeze = nn.Conv2d(channels, middle, 1, bias=False)
        self.squeeze_bn = _norm(norm_cfg, middle)
        self.mix = nn.Conv2d(middle, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        streams = F.relu(self.bn(self.conv(x)))
        streams = streams.unflatten(1, (2, -1))  # (n, 2C, H, W) -> (n, 2, C, H, W)
        mean = streams.sum(1).mean((2, 3), keepdim=True)  # (n, C, 1, 1)
        weights = self.mix(F.relu(self.squeeze_bn(self.squeeze(mean))))  # (n, 2C, 1, 1)
        weights = weights.unflatten(1, (2, -1)).softmax(1)  # (n, 2, C, 1, 1)
        return (streams * weights).sum(1)  # (n, C, H, W)


class _SamePool(nn.Module):
    """Max-pool 3x3 of stride 2 with TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        # An odd side gets one pixel at each end, an even side one at the far end.
        (top, bottom), (left, right) = ((side % 2, 1) for side in x.shape[2:])
        x = F.pad(x, (left, right, top, bottom), value=-torch.inf)
        return F.max_pool2d(x, 3, 2)


class _ShortcutPool(nn.Module):
    """Average pool 2x2 of ResNet-D's shortcut.

    With stride 2 an odd side gets a row of zeros, which count in the average. With
    stride 1 the last row and column are repeated.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, self.stride)
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode='replicate'), 2, 1)


def _shortcut(
    in_channels: int, channels: int, stride: int, with_pool: bool, norm_cfg: dict
) -> nn.Sequential:
    """A pool if ``with_pool``, a 1x1 convolution and a norm."""
    conv = nn.Conv2d(in_channels, channels, 1, 1 if with_pool else stride, bias=False)
    pool = [_ShortcutPool(stride)] if with_pool else []
    return nn.Sequential(*pool, conv, _norm(norm_cfg, channels))


def _norm(norm_cfg: dict, channels: int) -> nn.Module:
    return build_norm_layer(norm_cfg, channels)[1]
