"""SimCLR: a backbone, a projection neck and a contrastive head.

Letters: n images on this rank, V views, C feature width, d projection width, S side in pixels.
"""

import torch
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from simclr_mm.checkpoints import fit_probe
from simclr_mm.errors import UserError
from simclr_mm.registry import MODELS

from .memory_order import in_best_order, is_narrow
from .micro_batches import in_micro_batches
from .online_probe import OnlineProbe
from .pooled import pooled
from .views_preprocessor import ViewsPreprocessor, views_axis

# What to write instead of the parts of mmpretrain's SimCLR, which pass tuples and pairs.
_REPLACEMENTS = dict(
    neck="dict(type='simclr_mm.ProjectionNeck', num_layers=2, out_channels=128)",
    head="dict(type='simclr_mm.NTXentHead', temperature=0.1)",
)
# ImageNet statistics, RGB, in [0, 255], as in mmpretrain's configs.
_PREPROCESSOR = dict(
    type='simclr_mm.ViewsPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
)


@MODELS.register_module()
class SimCLR(BaseModel):
    """A simple framework for contrastive learning of visual representations.

    Source: SimCLR, arXiv:2002.05709, Algorithm 1.

    Args:
        backbone: Any backbone of mmpretrain, with ``in_channels`` for other images than RGB. Its
            width is inferred.
        neck: ``ProjectionNeck``, without ``in_channels``. None: features only, no loss.
        head: ``NTXentHead``, ``NTLogisticHead``, ``MarginTripletHead`` or
            ``UnnormalizedXentHead``. None: no loss.
        data_preprocessor: Changes to ``ViewsPreprocessor`` with the ImageNet mean and
            std, or another type.
        micro_batch_size: Images on this rank, with all V views, that are embedded at
            a time, for batches larger than the memory. None: the whole batch. The loss is
            that of the whole batch, for one more forward pass. BN in training uses the
            statistics of each micro-batch; see ``in_micro_batches``.
        online_probe: ``dict(num_classes=K)``: a linear classifier on the features
            (after pooling, before the neck); see ``OnlineProbe``. None: no probe.
        compile_backbone: True, or arguments of ``torch.compile`` such as
            ``dict(mode='max-autotune')``. The backbone is compiled at its first batch,
            once for training and once for evaluation. Checkpoint keys stay the same.
            Compiling takes minutes and pays in longer runs on GPUs.

    Attributes:
        projections: (n, V, d), detached, of the last batch of ``loss``, for hooks.

    Raises:
        UserError: ``micro_batch_size`` is not a whole number above 0, mean and std are not one
            number for each input channel, the width cannot be inferred, or neck or head is a
            part of mmpretrain's SimCLR.

    Differs: the reference code feeds [0, 1] without mean and std.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = dict(type='simclr_mm.ProjectionNeck'),
        head: dict | None = dict(type='simclr_mm.NTXentHead'),
        data_preprocessor: dict | None = None,
        micro_batch_size: int | None = None,
        online_probe: dict | None = None,
        compile_backbone: bool | dict = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if micro_batch_size is not None and (
            type(micro_batch_size) is not int or micro_batch_size < 1
        ):
            raise UserError(
                'model.micro_batch_size must be a whole number of images above 0, or '
                f'None for the whole batch, got {micro_batch_size!r}'
            )
        super().__init__({**_PREPROCESSOR, **(data_preprocessor or {})}, init_cfg)
        self._channels = backbone.get('in_channels', 3)
        normalises = self.data_preprocessor
        if type(normalises).forward.__module__.startswith(('mmengine.', 'mmpretrain.')):
            normalises.register_forward_pre_hook(_refuse_views)
        if isinstance(normalises, ViewsPreprocessor) and len(normalises.mean) != self._channels:
            raise UserError(
                f'model.backbone.in_channels = {self._channels}, but data_preprocessor.mean has '
                f'{len(normalises.mean)} number(s): give one for each channel, as simclr-mm '
                'band-statistics prints them'
            )
        self.micro_batch_size = micro_batch_size
        self.projections: Tensor | None = None
        # With the scope named, 'ResNet' is found whatever the default scope is.
        self.backbone = MMPRETRAIN_MODELS.build({'_scope_': 'mmpretrain', **backbone})
        self._narrow = is_narrow(self.backbone)
        if neck is not None and neck.get('in_channels') is None:
            neck = dict(neck, in_channels=self._infer_width())
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = None if head is None else MODELS.build(head)
        for part, instead in _REPLACEMENTS.items():
            kind = type(getattr(self, part))
            if kind.__module__.startswith(f'mmpretrain.models.{part}s.'):
                raise UserError(
                    f"model.{part}.type {kind.__name__} is a part of mmpretrain's SimCLR "
                    f'and does not fit this one: write model.{part}={instead}'
                )
        self.probe = (
            None if online_probe is None else OnlineProbe(self._infer_width(), **online_probe)
        )
        if compile_backbone or compile_backbone == {}:  # {}: torch.compile's defaults
            options = {} if compile_backbone is True else compile_backbone
            self.backbone.compile(**options)  # in place: torch.compile renames keys

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[DataSample]:
        """MMEngine's entry: ``extract_feat``, ``loss`` or ``predict``."""
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise UserError(f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}")

    def extract_feat(self, images: Tensor) -> Tensor:
        """Features (n, C) of (n, 3 or in_channels, S, S), normalised, see :func:`pooled`."""
        return pooled(self.backbone(in_best_order(images, self._narrow)), self.backbone)

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """For mmpretrain's LearningRateDecayOptimWrapperConstructor."""
        try:
            return self.backbone.get_layer_depth(param_name, 'backbone.')
        except (AttributeError, NotImplementedError) as error:  # ResNets below 50 layers raise it
            raise UserError(
                f'layer-wise decay: this {type(self.backbone).__name__} does not know the '
                'depth of its layers; take VisionTransformer or ResNet-50, for example'
            ) from error

    def loss(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None
    ) -> dict[str, Tensor]:
        """The contrastive loss of all views of the batch, and the probe's.

        Args:
            inputs: (n, V, 3, S, S), normalised RGB, or a list of V tensors (n, 3, S, S).
            data_samples: n, with labels if there is a probe and groups if the head asks for them.

        Returns:
            The head's scalars and the probe's. MMEngine minimises the sum of those with
            'loss' in their name and logs each of them.

        Raises:
            UserError: The model has no neck or no head, or ``inputs`` are no views of one size.
        """
        if self.neck is None or self.head is None:
            raise UserError(
                'this SimCLR has no neck or no head, so it has no loss: '
                'set model.neck and model.head'
            )
        if isinstance(inputs, (list, tuple)):  # from mmpretrain's SelfSupDataPreprocessor
            if len({view.shape for view in inputs}) > 1:
                raise UserError(
                    'the views differ in size: give all of them one size, or write '
                    "data_preprocessor.type='simclr_mm.ViewsPreprocessor'"
                )
            axis = views_axis(inputs, data_samples)
            inputs = torch.stack(list(inputs), dim=axis)  # (n, V, 3, S, S)
        if inputs.ndim != 5:
            raise UserError(
                f'the loss needs views, (n, V, 3, S, S), got {tuple(inputs.shape)}: put the '
                'transform simclr_mm.TwoViews into train_dataloader.dataset.pipeline'
            )
        if self.micro_batch_size is None or len(inputs) <= self.micro_batch_size:
            outputs = self._embed(inputs)
        else:
            outputs = in_micro_batches(self._embed, inputs, self.micro_batch_size, self)
        z = outputs[0]  # (n, V, d)
        self.projections = z.detach()
        grouped = getattr(self.head, 'groups', False)
        losses = self.head.loss(z, data_samples) if grouped else self.head.loss(z)
        if self.probe is not None:
            losses.update(self.probe.loss(outputs[1], data_samples))  # (n, V, C)
        return losses

    def _embed(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Projections (n, V, d) of views, and features (n, V, C) if there is a probe."""
        assert self.neck is not None  # as loss has checked
        # One pass, so that all views share the statistics of BN.
        features = self.extract_feat(inputs.flatten(0, 1))  # (nV, C)
        z = self.neck(features)  # (nV, d)
        outputs = (z,) if self.probe is None else (z, features.detach())
        return tuple(rows.unflatten(0, inputs.shape[:2]) for rows in outputs)

    def predict(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """Data samples of images, (n, 3, S, S), or views, (n, V, 3, S, S).

        They have ``feature``, (C) or (V, C). With a probe, those of single images also have
        ``pred_score``, (K), and ``pred_label``.
        """
        features = self.extract_feat(inputs.flatten(0, -4))  # (n, C) or (nV, C)
        features = features.unflatten(0, inputs.shape[:-3])  # (n, C) or (n, V, C)
        if data_samples is None:
            data_samples = [DataSample() for _ in features]
        for sample, feature in zip(data_samples, features):
            # A copy, because a view is pickled with the storage of the whole batch.
            sample.set_field(feature.clone(), 'feature')
        if self.probe is not None and inputs.ndim == 4:
            scores = self.probe(features).softmax(dim=1)  # (n, K)
            # (n, 1): DataSample would read a scalar back from the device.
            labels = scores.argmax(dim=1, keepdim=True)
            for sample, score, label in zip(data_samples, scores, labels):
                sample.set_pred_score(score.clone()).set_pred_label(label.clone())
        return data_samples

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        """Let a checkpoint lack the probe, in every way of loading."""
        fit_probe(state_dict, self.state_dict(prefix=prefix), prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def _infer_width(self) -> int:
        """C, from one black image in eval mode, which changes no BN statistic."""
        self.backbone.eval()
        for side in _sides(self.backbone):
            try:
                width = self.extract_feat(torch.zeros(1, self._channels, *side)).shape[1]
                break
            except (AssertionError, RuntimeError) as error:  # it refuses this side
                reason = error
        else:
            raise UserError(
                f'cannot infer the width of {type(self.backbone).__name__}: {reason}; '
                'set model.neck.in_channels'
            )
        self.backbone.train()
        return width


def _sides(backbone: nn.Module) -> list[tuple[int, int]]:
    """Image sides in pixels to try, first the side that the backbone was built for."""
    built_for = getattr(backbone, 'img_size', None) or getattr(
        getattr(backbone, 'patch_embed', None), 'init_input_size', None
    )
    if built_for is not None:
        return [built_for if isinstance(built_for, tuple) else (built_for,) * 2]
    # 64 is quick. Backbones that take only 224 (DaViT, LeViT) refuse it.
    return [(64, 64), (224, 224)]


def _refuse_views(preprocessor: nn.Module, arguments: tuple) -> None:
    """A hook: OpenMMLab's preprocessors take the second axis of (n, V, 3, S, S) for colours."""
    inputs = arguments[0].get('inputs') if arguments and isinstance(arguments[0], dict) else None
    if isinstance(inputs, Tensor) and inputs.ndim == 5:
        raise UserError(
            f'data_preprocessor.type = {type(preprocessor).__name__} does not take the views of '
            "simclr_mm.TwoViews: write type='simclr_mm.ViewsPreprocessor' with the same mean and "
            'std'
        )
