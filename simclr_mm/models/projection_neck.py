import math
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from simclr_mm.errors import UserError
from simclr_mm.registry import MODELS

from .pooled import pooled

# Linear layers as PyTorch initialises them, U(+-1/sqrt(fan_in)); mmpretrain's neck too.
_INIT: list[dict] = [
    dict(
        type='Kaiming',
        layer='Linear',
        a=math.sqrt(5),
        mode='fan_in',
        nonlinearity='leaky_relu',
        distribution='uniform',
    ),
    dict(type='Constant', layer=['_BatchNorm', 'GroupNorm', 'LayerNorm'], val=1),
]


@MODELS.register_module()
class ProjectionNeck(BaseModule):
    """The projection head g: fc, norm, then (ReLU, fc, norm) for each further layer.

    Source: SimCLR, arXiv:2002.05709, Sec. 2.1 and 4.2; ``until``: SimCLR v2, arXiv:2006.10029,
    Sec. 2.

    Args:
        in_channels: C, width of the features. ``SimCLR`` sets it.
        hid_channels: Width of every layer but the last. C by default, as in the
            paper (2048 for ResNet-50).
        out_channels: d, width of the projection; 128 as in Sec. 2.2. The features hardly
            depend on it (Fig. 8). With 0 layers it is ignored, and d is C.
        num_layers: 0 (no head), 1 (linear), 2 (the paper) or more (3 in SimCLR v2).
        norm_cfg: Norm after every fc layer, also the last. 'BN1d' runs on a CPU
            and becomes SyncBN together with the backbone's. None: no norms, and fc layers
            with a bias, as in the checkpoints of solo-learn and VISSL.
        last_bias: False: the last norm learns no shift, as in the reference code. Its bias
            stays in checkpoints, as 0 without a gradient.
        until: Hand on the features after this layer, after its ReLU, for a classifier that
            is trained on the middle of the head: 1 is the first layer, 0 the features before
            the head. The layers behind it are not built. -1 or None: the whole head, as is
            ``num_layers``. It is ``ft_proj_selector`` of the reference code.
        init_cfg: By default PyTorch's own initialisation of linear layers, and norms with
            weight 1 and bias 0.

    Raises:
        UserError: num_layers is negative, a width is below 1, there is no layer ``until``, or
            the features have another width than in_channels.

    Differs: the reference code draws fc weights from N(0, 0.01). At 2048 inputs this is within 30 %
    of PyTorch's 1/sqrt(3 * 2048) = 0.013. In a narrow neck it would make SGD's relative steps many
    times larger, because the norm hides the weights' scale. The last norm of the reference code has
    no bias; here it has one unless ``last_bias=False``, as in mmselfsup's checkpoints.
    """

    def __init__(
        self,
        in_channels: int,
        hid_channels: int | None = None,
        out_channels: int = 128,
        num_layers: int = 2,
        norm_cfg: dict | None = dict(type='BN1d'),
        last_bias: bool = True,
        until: int | None = None,
        init_cfg: dict | list[dict] | None = _INIT,
    ) -> None:
        if num_layers < 0:
            raise UserError(f'num_layers must be >= 0, got {num_layers}: set model.neck.num_layers')
        for name, width in (('hid_channels', hid_channels), ('out_channels', out_channels)):
            if width is not None and width < 1:
                raise UserError(f'{name} must be >= 1, got {width}: set model.neck.{name}')
        if until is not None and not -1 <= until <= num_layers:
            raise UserError(
                f'until = {until}: a head of {num_layers} layers has the layers 0 to {num_layers}, '
                'and -1 is the last: set model.neck.until'
            )
        if norm_cfg is None and not last_bias:
            raise UserError(
                'last_bias = False is about the last norm, and norm_cfg = None has no norms: '
                'leave model.neck.last_bias out'
            )
        super().__init__(init_cfg)
        self.num_layers = num_layers if until in (None, -1) else until
        self.whole = self.num_layers == num_layers
        self.normed = norm_cfg is not None
        widths = [in_channels] + [hid_channels or in_channels] * (num_layers - 1)
        widths.append(out_channels)
        for layer in range(self.num_layers):
            fc = nn.Linear(widths[layer], widths[layer + 1], bias=norm_cfg is None)
            self.add_module(f'fc{layer}', fc)
            if norm_cfg is not None:
                self.add_module(f'bn{layer}', build_norm_layer(norm_cfg, widths[layer + 1])[1])
        if not last_bias and self.whole and num_layers > 0:
            getattr(self, f'bn{num_layers - 1}').bias.requires_grad_(False)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor]:
        """(n, C) -> (n, d). The stages of a backbone, in a classifier -> ((n, d),)."""
        if not isinstance(x, Tensor):
            return (self._project(pooled(x)),)
        return self._project(x)

    def _project(self, x: Tensor) -> Tensor:
        if self.num_layers > 0 and x.shape[1] != self.fc0.in_features:
            raise UserError(
                f'model.neck.in_channels = {self.fc0.in_features}, but the backbone gives '
                f'{x.shape[1]} features: in SimCLR leave it out, in a classifier set it to this'
            )
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.relu(x)
            x = getattr(self, f'fc{layer}')(x)
            if self.normed:
                x = getattr(self, f'bn{layer}')(x)
        return x if self.whole or self.num_layers == 0 else F.relu(x)
