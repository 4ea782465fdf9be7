"""Distillation: a student network learns the predictions of a frozen teacher.

Letters: n images on this rank, K classes, S side in pixels.
"""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from simclr_mm.checkpoints import download, load_state, load_weights, model_state
from simclr_mm.checkpoints.stored_config import config_of
from simclr_mm.errors import UserError
from simclr_mm.files.hashes import content_hash
from simclr_mm.files.storage import is_url
from simclr_mm.losses import distillation
from simclr_mm.registry import MODELS

from .memory_order import in_best_order, is_narrow


@MODELS.register_module()
class Distillation(ImageClassifier):
    """mmpretrain's ImageClassifier as a student of another classifier.

    The student is the model: its checkpoints are those of an ImageClassifier, and it
    predicts without its teacher. The teacher is read when training starts. It gets no
    gradient, stays in eval mode with its buffers, and is in no checkpoint; a resumed run
    reads it again, and the runner compares the hash of its file.

    Training needs no labels unless ``alpha`` is below 1. Teacher and student see the same
    random crop.

    Source: SimCLRv2, arXiv:2006.10029, Sec. 2, "Self-training / knowledge distillation via
    unlabeled examples".

    Args:
        backbone: The student's, as for ImageClassifier.
        neck: As for ImageClassifier.
        head: A head whose forward gives logits (n, K), such as LinearClsHead.
        teacher: Checkpoint of a classifier of the same K classes, a path or an http(s) URL.
            Only training needs it.
        teacher_model: Config of the teacher's model, for a checkpoint without a config.
        temperature: tau > 0, no unit, see :func:`~simclr_mm.losses.distillation`. The paper
            uses 1 for a smaller student, 0.1 for one like the teacher.
        alpha: Share of the teacher in the loss, in (0, 1]. The rest is cross entropy with the
            labels, which every image then needs.
        cache_logits: Keep the teacher's logits of each image, found again by the hash of its
            pixels, in the memory of each process (4 K bytes an image). It saves time if the views
            are fixed, as with Resize alone; with random crops nothing is found again.
        data_preprocessor: As for ImageClassifier. Its mean and std have to be the teacher's.

    Attributes:
        teacher_sha256: SHA-256 of the teacher's file; '' before training.

    Raises:
        UserError: alpha is not in (0, 1], the teacher is not named, gives no logits of the
            same classes or was trained on other pixel values, or a label is missing.
        CheckpointError: The teacher cannot be read, or its weights do not fit its config.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        teacher: str | None = None,
        teacher_model: dict | None = None,
        temperature: float = 1.0,
        alpha: float = 1.0,
        cache_logits: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if not 0 < alpha <= 1:
            raise UserError(
                f'model.alpha = {alpha}: give a share of the teacher above 0 and up to 1; '
                'a student without a teacher is an ImageClassifier'
            )
        super().__init__(backbone, neck, head, None, None, data_preprocessor, init_cfg)
        self.teacher = teacher
        self.teacher_model = teacher_model
        self.temperature = temperature
        self.alpha = alpha
        self.teacher_sha256 = ''
        self._logits: dict[bytes, Tensor] | None = {} if cache_logits else None
        self._narrow = is_narrow(self.backbone)
        # In a tuple, which hides it from train(), parameters() and state_dict().
        self._teacher: tuple[nn.Module, ...] = ()

    def init_weights(self) -> None:
        """Initialise the student and read the teacher. MMEngine calls it before training."""
        super().init_weights()
        self._read_teacher()

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> tuple[Tensor, ...]:
        """As ImageClassifier's, for (n, 3, S, S) normalised images."""
        return super().extract_feat(in_best_order(inputs, self._narrow), stage)

    def loss(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None
    ) -> dict[str, Tensor]:
        """The loss of a batch, and detached scalars for the log.

        Args:
            inputs: (n, 3, S, S), normalised.
            data_samples: n, with ``gt_label`` if alpha < 1, or ``gt_score`` where Mixup or CutMix
                mixed the labels.

        Returns:
            ``loss`` in nats; ``agreement``, the share of images in [0, 1] that student and
            teacher put into the same class; with ``cache_logits`` also ``cached``, the share of
            images whose logits were kept; and if alpha < 1 the parts of the loss, ``kd`` and
            ``ce``, before they are weighted.
        """
        logits = _logits(self, inputs)  # (n, K)
        targets, cached = self._targets(inputs)  # (n, K)
        loss = distillation(logits, targets, self.temperature)
        same = logits.detach().argmax(dim=1) == targets.argmax(dim=1)
        losses = dict(loss=loss, agreement=same.float().mean())
        if cached is not None:
            losses['cached'] = loss.new_tensor(cached)
        if self.alpha < 1:
            supervised = F.cross_entropy(logits.float(), _labels(data_samples).to(logits.device))
            losses.update(kd=loss.detach(), ce=supervised.detach())
            losses['loss'] = self.alpha * loss + (1 - self.alpha) * supervised
        return losses

    @torch.no_grad()
    def _targets(self, inputs: Tensor) -> tuple[Tensor, float | None]:
        """The teacher's logits (n, K), and the share of them that was kept."""
        if not self._teacher:
            raise UserError(
                'the teacher is not read: train with a runner, or call init_weights() first'
            )
        (teacher,) = self._teacher
        if next(teacher.parameters()).device != inputs.device:
            teacher.to(inputs.device).to(memory_format=torch.channels_last)
        if self._logits is None:
            return _logits(teacher, in_best_order(inputs, is_narrow(teacher))), None
        pixels = inputs.cpu().numpy()  # one copy for the batch
        keys = [hashlib.sha256(image.tobytes()).digest() for image in pixels]
        new = [row for row, key in enumerate(keys) if key not in self._logits]
        if new:
            logits = _logits(teacher, in_best_order(inputs[new], is_narrow(teacher)))
            self._logits.update(zip((keys[row] for row in new), logits.cpu()))
        found = torch.stack([self._logits[key] for key in keys]).to(inputs.device)
        return found, 1 - len(new) / len(keys)

    def _read_teacher(self) -> None:
        source = self.teacher
        if not source:
            raise UserError(
                'no teacher: name the checkpoint of a classifier, --cfg-options model.teacher=PATH'
            )
        file = download(source) if is_url(source) else source
        checkpoint = load_weights(file)
        settings, preprocessor = self.teacher_model, None
        if settings is None:
            config = config_of(checkpoint, source)
            settings = config.model
            preprocessor = settings.get('data_preprocessor') or config.get('data_preprocessor')
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            teacher = MODELS.build({**settings, 'data_preprocessor': preprocessor})
        if not isinstance(teacher, ImageClassifier) or teacher.head is None:
            raise UserError(
                f'model.teacher: {source} holds a {type(teacher).__name__} without classes: name '
                'the checkpoint of a fine-tuned or linear classifier'
            )
        load_state(teacher, model_state(checkpoint, source), source)
        if preprocessor is not None:
            self._check_pixels(teacher.data_preprocessor, source)
        self._teacher = (teacher.requires_grad_(False).eval(),)
        self.teacher_sha256 = content_hash(file)

    def _check_pixels(self, other: nn.Module, source: str) -> None:
        """Both models get the same normalised images."""
        for key in ('mean', 'std', 'to_rgb'):
            mine, its = _setting(self.data_preprocessor, key), _setting(other, key)
            if mine != its:
                raise UserError(
                    f'data_preprocessor.{key} = {mine}, but the teacher {source} has {its}, and '
                    "both get the same images: give the student the teacher's"
                )


def _logits(model: ImageClassifier, inputs: Tensor) -> Tensor:
    """Logits (n, K) in float32, whatever autocast says.

    bf16 has steps of 1/16 between 8 and 16, and the loss divides by tau.
    """
    feats = model.extract_feat(inputs)
    with torch.autocast(inputs.device.type, enabled=False):
        return model.head(_in_float32(feats))


def _in_float32(feats: Any) -> Any:
    """Features in the nested tuples and lists of mmpretrain's backbones."""
    return feats.float() if isinstance(feats, Tensor) else type(feats)(map(_in_float32, feats))


def _setting(preprocessor: nn.Module, key: str) -> object:
    value = getattr(preprocessor, key, None)
    return value.flatten().tolist() if isinstance(value, Tensor) else value


def _labels(data_samples: list[DataSample] | None) -> Tensor:
    """(n,) labels, or (n, K) shares of each class where images are mixed."""
    if data_samples and all('gt_score' in each for each in data_samples):
        return torch.stack([sample.gt_score for sample in data_samples]).float()
    if not data_samples or any('gt_label' not in each for each in data_samples):
        raise UserError(
            'model.alpha is below 1, and an image has no label: set '
            'train_dataloader.dataset.with_label=True, or model.alpha=1.0 for images without labels'
        )
    return torch.cat([sample.gt_label for sample in data_samples])
