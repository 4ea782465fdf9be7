"""From pictures to features or classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import BaseModel
from mmpretrain.apis.base import BaseInferencer
from PIL import Image
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.files.walk import image_paths
from simclr_mm.models import pooled
from simclr_mm.transforms.loading import LoadImageFromFile
from simclr_mm.transforms.to_rgb import to_rgb

from .encoder import Encoder, encoder_of
from .loading import build_encoder

Picture = str | Path | np.ndarray | Image.Image
PRECISIONS = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)


def inference_model(
    model: Encoder | BaseModel | str, image: Picture, device: str | torch.device | None = None
) -> dict[str, Any]:
    """Run a model on one picture, with the test pipeline of its config.

    Args:
        model: From :func:`simclr_mm.get_model` or :func:`load_encoder`, or a name with
            published weights.
        image: A file, an array (height, width, 3) uint8 in BGR as OpenCV and mmcv give
            it, or a PIL image. The same picture gives the same result.
        device: Moves the model there first. None: it stays where it is.

    Returns:
        For SimCLR, and for a classifier without a head, ``feature``, a (C) array; for a
        classifier ``pred_label``, ``pred_score``, ``pred_scores`` (one for each class)
        and, where the classes have names, ``pred_class``, as mmpretrain gives them.

    Raises:
        UserError: the model was not built by ``get_model``, the array is no image, or
            there is no such device.
        UnreadableImage: the file is not.
    """
    encoder = _encoder(model, True).on(device)
    batch = default_collate([encoder.transforms(read_picture(image))])
    network = encoder.model.eval()
    with torch.no_grad():
        if getattr(network, 'head', None) is None:
            inputs = network.data_preprocessor(batch, False)['inputs']
            return dict(feature=encoder.features(inputs)[0].cpu().numpy())
        sample = network.test_step(batch)[0]
    if 'feature' in sample:
        return dict(feature=sample.feature.cpu().numpy())
    return _prediction(sample.pred_score.cpu(), encoder.classes)


class FeatureInferencer(BaseInferencer):
    """Features of many pictures: files, arrays, PIL images, lists of these, a folder.

    Args:
        model: From :func:`simclr_mm.get_model` or :func:`load_encoder`; or what
            ``get_model`` builds one from: a name, a config.
        pretrained: As for ``get_model``; not used where ``model`` is built already.
        device: Moves the model there. None: it stays where it is, which is the CPU for
            a new one.
        precision: 'fp32', 'fp16' (GPU only) or 'bf16': autocast, so weights, BN and
            what is returned stay float32.
        compile: Compile the network with ``torch.compile``; the first batch takes up to
            a minute longer.
        **kwargs: As for ``get_model``.

    Raises:
        UserError: an unknown precision or device, 'fp16' on a CPU, or a model without
            a config.

    Differs: mmpretrain's FeatureExtractor loads weights that do not fit without an
        error, gives a list of tensors, and takes a folder's top level only.
    """

    def __init__(
        self,
        model: Encoder | BaseModel | str | Path | Config,
        pretrained: bool | str | Path = True,
        device: str | torch.device | None = None,
        precision: str = 'fp32',
        compile: bool = False,
        **kwargs,
    ) -> None:
        self.encoder = _encoder(model, pretrained, **kwargs).on(device)
        self.transforms = self.encoder.transforms
        super().__init__(self.encoder.model)
        self.precision = precision
        self.device = next(self.model.parameters()).device
        _check_precision(precision, self.device)
        extract = self.model.extract_feat
        self.extract = torch.compile(extract) if compile else extract

    def __call__(self, inputs: Picture | Sequence[Picture], batch_size: int = 32) -> np.ndarray:
        """Embed pictures, with a progress bar.

        Args:
            inputs: One picture as for :func:`inference_model`, a list of them, or a
                folder: every image in it, at any depth, sorted by path as
                :func:`image_paths` lists them.
            batch_size: Pictures at a time.

        Returns:
            (N, C) float32, a row for each picture, in order.

        Raises:
            UnreadableImage: a file is no image. ``embed_folder`` goes on instead.
            UserError: an array is no image, or there is none; batch_size is below 1.
        """
        if batch_size < 1:
            raise UserError(f'batch_size is {batch_size}: give at least 1')
        return super().__call__(inputs, batch_size=batch_size)

    @torch.no_grad()
    def forward(self, inputs: dict) -> np.ndarray:
        """Embed a collated batch; (n, C) float32."""
        images = self.model.data_preprocessor(inputs, False)['inputs']  # (n, 3, S, S)
        dtype = PRECISIONS[self.precision]
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
            features = self.extract(images)
        return pooled(features, self.model).float().cpu().numpy()

    def postprocess(
        self, preds: list[np.ndarray], visualization: None = None, return_datasamples: bool = False
    ) -> np.ndarray:
        """n features (C) -> (n, C)."""
        if not preds:
            raise UserError('no picture was given: the list is empty')
        return np.stack(preds)

    def _inputs_to_list(self, inputs: Picture | Sequence[Picture]) -> list:
        if isinstance(inputs, (str, Path)) and Path(inputs).is_dir():
            return image_paths(inputs)
        return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]

    def _init_pipeline(self, cfg: Config) -> Callable:
        return Compose([read_picture, self.transforms])


def read_picture(image: Picture) -> dict[str, Any]:
    """A picture in the form in which LoadImageFromFile gives it, uint8 BGR."""
    if isinstance(image, (str, Path)):
        return LoadImageFromFile()(dict(img_path=str(image)))
    if isinstance(image, Image.Image):
        name = str(getattr(image, 'filename', '') or 'the PIL image')
        image = to_rgb(image, name)[..., ::-1]  # by the rule for files
    if not (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
    ):
        got = (
            f'{image.shape} {image.dtype}'
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise UserError(
            'an image is a path, a PIL image or an array (height, width, '
            f'3) uint8 in BGR, got {got}'
        )
    shape = image.shape[:2]
    return dict(img=np.ascontiguousarray(image), img_shape=shape, ori_shape=shape)


def _encoder(
    model: Encoder | BaseModel | str | Path | Config, pretrained: bool | str | Path, **kwargs
) -> Encoder:
    if isinstance(model, (Encoder, BaseModel)):
        return encoder_of(model)
    return build_encoder(model, pretrained, **kwargs)


def _check_precision(precision: str, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise UserError(f'precision is {precision!r}: choose one of {", ".join(PRECISIONS)}')
    if precision == 'fp16' and device.type == 'cpu':
        raise UserError('precision fp16 needs a GPU: on a CPU take bf16')


def _prediction(scores: Tensor, classes: Sequence[str] | None) -> dict[str, Any]:
    label = int(scores.argmax())
    result = dict(pred_scores=scores.numpy(), pred_label=label, pred_score=float(scores[label]))
    if classes is not None:
        result['pred_class'] = classes[label]
    return result
