"""SimCLR: a backbone, a projection neck and a contrastive head.

Letters: n images on this rank, V views, C feature width, d projection width, S side in
pixels.
"""
import torch
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from simclr_mm.registry import MODELS

from .micro_batches import in_micro_batches

# ImageNet statistics, RGB, in [0, 255], as in mmpretrain's configs.
_PREPROCESSOR = dict(
    type='simclr_mm.ViewsPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375])


@MODELS.register_module()
class SimCLR(BaseModel):
    """A simple framework for contrastive learning of visual representations.

    Source: SimCLR, arXiv:2002.05709, Algorithm 1.

    Args:
        backbone: Any backbone of mmpretrain; its width is inferred.
        neck: ``ProjectionNeck`` without ``in_channels``; None: features only, no loss.
        head: ``NTXentHead``, ``NTLogisticHead`` or ``MarginTripletHead``; None: no
            loss.
        data_preprocessor: Changes to ``ViewsPreprocessor`` with the ImageNet mean and
            std, or another type.
        micro_batch_size: Images on this rank, all V views of each, that are embedded at
            a time; None: the whole batch. For batches larger than the memory: the loss
            is that of the whole batch with all its negatives, memory that of one
            micro-batch and the projections, time that of one more forward pass. The
            gradient is exact with frozen BN, GroupNorm or LayerNorm. BN in training
            uses the statistics of each micro-batch (SyncBN: of each one across the
            ranks), not of the batch, and counts each once in its running statistics.
        init_cfg: As everywhere in MMEngine.

    Attributes:
        projections: (n, V, d), detached, of the last batch that ``loss`` saw, for
            hooks; None before.

    Raises:
        ValueError: ``micro_batch_size`` is not a whole number above 0.

    Differs: the reference code feeds [0, 1] without mean and std.
    """

    def __init__(self,
                 backbone: dict,
                 neck: dict | None = dict(type='simclr_mm.ProjectionNeck'),
                 head: dict | None = dict(type='simclr_mm.NTXentHead'),
                 data_preprocessor: dict | None = None,
                 micro_batch_size: int | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        if micro_batch_size is not None and (type(micro_batch_size) is not int
                                             or micro_batch_size < 1):
            raise ValueError(
                'model.micro_batch_size must be a whole number of images above 0, or '
                f'None for the whole batch, got {micro_batch_size!r}')
        super().__init__({**_PREPROCESSOR, **(data_preprocessor or {})}, init_cfg)
        self.micro_batch_size = micro_batch_size
        self.projections: Tensor | None = None
        # With the scope named, 'ResNet' is found whatever the default scope is.
        self.backbone = MMPRETRAIN_MODELS.build({'_scope_': 'mmpretrain', **backbone})
        if neck is not None and neck.get('in_channels') is None:
            neck = dict(neck, in_channels=self._infer_width())
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = None if head is None else MODELS.build(head)

    def forward(self,
                inputs: Tensor,
                data_samples: list[DataSample] | None = None,
                mode: str = 'tensor') -> Tensor | dict[str, Tensor] | list[DataSample]:
        """What MMEngine calls, with what a ``ViewsPreprocessor`` returns.

        Args:
            inputs: (n, V, 3, S, S) for mode 'loss', (n, 3, S, S) for the others,
                normalised RGB.
            data_samples: One for each image, or None; only 'predict' uses them.
            mode: 'tensor', 'loss' or 'predict'.

        Returns:
            'tensor': (n, C) features. 'loss': the head's scalars. 'predict': the data
            samples with a field ``feature``, (C).
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(inputs)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}")

    def extract_feat(self, images: Tensor) -> Tensor:
        """Features of the backbone's last stage, averaged over positions.

        Args:
            images: (n, 3, S, S), normalised RGB.

        Returns:
            (n, C). Tokens are averaged too, the class token included where the
            backbone returns it among them (``out_type='raw'``).
        """
        # Convolutions on a CPU run about twice as fast on channels-last memory.
        images = images.contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)
        if isinstance(features, (tuple, list)):
            features = features[-1]
        if features.ndim == 4:
            return features.mean((2, 3))  # (n, C, H, W) -> (n, C)
        if features.ndim == 3:
            # (n, L, C), except for MlpMixer's (n, C, L).
            width = getattr(self.backbone, 'embed_dims', features.shape[2])
            return features.mean(1 if features.shape[2] == width else 2)
        return features

    def loss(self, inputs: Tensor) -> dict[str, Tensor]:
        """The contrastive loss of all views of the batch.

        Args:
            inputs: (n, V, 3, S, S), normalised RGB.

        Returns:
            The head's scalars: ``loss`` and what is logged beside it.

        Raises:
            ValueError: ``inputs`` has no axis of views.
        """
        if self.neck is None or self.head is None:
            raise ValueError('this SimCLR has no neck or no head, so it has no loss: '
                             'set model.neck and model.head')
        if inputs.ndim != 5:
            raise ValueError(
                'the loss needs views, (n, V, 3, S, S), got '
                f'{tuple(inputs.shape)}: put the transform simclr_mm.TwoViews into '
                'train_dataloader.dataset.pipeline')
        if self.micro_batch_size is None or len(inputs) <= self.micro_batch_size:
            z = self._embed(inputs)  # (n, V, d)
        else:
            z = in_micro_batches(self._embed, inputs, self.micro_batch_size, self)
        self.projections = z.detach()
        return self.head.loss(z)

    def _embed(self, inputs: Tensor) -> Tensor:
        """Projections of all views, (n, V, 3, S, S) -> (n, V, d)."""
        # One pass, because all views must share the statistics of BN.
        z = self.neck(self.extract_feat(inputs.flatten(0, 1)))  # (nV, d)
        return z.unflatten(0, inputs.shape[:2])

    def predict(self,
                inputs: Tensor,
                data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Features as data samples, (n, 3, S, S) -> n samples with ``feature``."""
        features = self.extract_feat(inputs)  # (n, C)
        if data_samples is None:
            data_samples = [DataSample() for _ in features]
        for sample, feature in zip(data_samples, features):
            # A copy: a view would be pickled with the storage of the whole batch.
            sample.set_field(feature.clone(), 'feature')
        return data_samples

    @torch.no_grad()
    def _infer_width(self) -> int:
        """C, from one black image in eval mode, which changes no BN statistic."""
        self.backbone.eval()
        for side in _sides(self.backbone):
            try:
                width = self.extract_feat(torch.zeros(1, 3, *side)).shape[1]
                break
            except (AssertionError, RuntimeError) as error:  # a side it cannot take
                reason = error
        else:
            raise ValueError(
                f'cannot infer the width of {type(self.backbone).__name__}: {reason}; '
                'set model.neck.in_channels')
        self.backbone.train()
        return width


def _sides(backbone: nn.Module) -> list[tuple[int, int]]:
    """Image sides in pixels to try, the one the backbone was built for first."""
    built_for = getattr(backbone, 'img_size', None) or getattr(
        getattr(backbone, 'patch_embed', None), 'init_input_size', None)
    if built_for is not None:
        return [built_for if isinstance(built_for, tuple) else (built_for, ) * 2]
    # 64 is quick; backbones made for 224 alone (DaViT, LeViT) refuse it.
    return [(64, 64), (224, 224)]
