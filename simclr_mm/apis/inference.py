"""Features or classes of images."""

import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.model import BaseModel
from PIL import Image
from rich.progress import track
from torch import Tensor

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.evaluation.features import in_eval_mode
from simclr_mm.files.storage import is_url
from simclr_mm.files.walk import image_paths
from simclr_mm.models import pooled
from simclr_mm.transforms.load_bands import LoadBands
from simclr_mm.transforms.loading import LoadImageFromFile
from simclr_mm.transforms.to_rgb import to_rgb

from .encoder import Encoder
from .loading import encoder_of

Picture = str | Path | np.ndarray | Image.Image
PRECISIONS = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)


def inference_model(
    model: Encoder | BaseModel | str, image: Picture, device: str | torch.device | None = None
) -> dict[str, Any]:
    """Run a model on one image, with the test pipeline of its config.

    Args:
        model: From :func:`simclr_mm.get_model` or :func:`load_encoder`, or a name with
            published weights.
        image: A file, an array (height, width, 3) uint8 in BGR as from OpenCV and mmcv,
            or a PIL image. All three give the same result. For an encoder of bands a file,
            or an array (height, width, bands) of the file's values, of the bands that it takes.
        device: Move the model to this device first. None: it stays.

    Returns:
        For SimCLR, and for a classifier without a head, ``feature``, a (C) array. For a
        classifier ``pred_label``, ``pred_score``, ``pred_scores`` (one for each class)
        and, if the classes have names, ``pred_class``, as in mmpretrain.

    Raises:
        UserError: ``get_model`` did not build the model, the array is no image, or
            there is no such device.
        UnreadableImage: The file is no image.
    """
    encoder = encoder_of(model).on(device)
    batch = default_collate([encoder.transforms(read_picture(image, encoder.loading))])
    network = encoder.model
    with torch.no_grad(), in_eval_mode(network):
        if getattr(network, 'head', None) is None:
            inputs = network.data_preprocessor(batch, False)['inputs']
            return dict(feature=encoder.features(inputs)[0].cpu().numpy())
        sample = network.test_step(batch)[0]
    if 'feature' in sample:
        return dict(feature=sample.feature.cpu().numpy())
    return _prediction(sample.pred_score.cpu(), encoder.classes)


class FeatureInferencer:
    """Features of many pictures: files, arrays, PIL images, lists of these, a folder.

    Args:
        model: From :func:`simclr_mm.get_model` or :func:`load_encoder`, or an argument
            of ``get_model``: a name or a config.
        pretrained: As for ``get_model``; ignored if ``model`` is built already.
        device: Move the model to this device. None: it stays; a new model is on the CPU.
        precision: 'fp32', 'fp16' (GPU only) or 'bf16': autocast, so weights, BN and
            the returned features stay float32.
        compile: Compile the network with ``torch.compile``. The first batch takes up to
            a minute longer.
        **kwargs: As for ``get_model``.

    Raises:
        UserError: An unknown precision or device, 'fp16' on a CPU, or a model without
            a config.

    Differs: mmpretrain's FeatureExtractor loads weights that do not fit without an
    error, returns a list of tensors, and reads a folder's top level only.
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
        self.encoder = encoder_of(model, pretrained, **kwargs).on(device)
        self.transforms = self.encoder.transforms
        self.loading = self.encoder.loading
        self.model = self.encoder.model
        self.precision = precision
        self.device = next(self.model.parameters()).device
        if precision not in list(PRECISIONS):  # also what no dict can look up
            raise UserError(f'precision is {precision!r}: choose one of {", ".join(PRECISIONS)}')
        if precision == 'fp16' and self.device.type == 'cpu':
            raise UserError('precision fp16 needs a GPU: on a CPU take bf16')
        extract = self.model.extract_feat
        self.extract = torch.compile(extract) if compile else extract

    def __call__(self, inputs: Picture | Sequence[Picture], batch_size: int = 32) -> np.ndarray:
        """Embed images, with a progress bar.

        Args:
            inputs: One image as for :func:`inference_model`, a list of images, or a
                folder: every image in it, at any depth, sorted by path as in
                :func:`image_paths`.
            batch_size: Images at a time.

        Returns:
            (N, C) float32, a row for each image, in order.

        Raises:
            UnreadableImage: A file is no image. ``embed_folder`` would continue.
            UserError: An array is no image, there is no image, or batch_size is below 1.
        """
        if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
            raise UserError(f'batch_size is {batch_size!r}: give a whole number from 1')
        if isinstance(inputs, (str, Path)) and os.path.isdir(os.path.expanduser(inputs)):
            inputs = image_paths(os.path.expanduser(inputs), self.loading.extensions)
        pictures: list[Any] = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if not pictures:
            raise UserError('the list of images is empty: give at least one')
        features = []
        for start in track(range(0, len(pictures), batch_size), 'embedding'):
            some = pictures[start : start + batch_size]
            read = [self.transforms(read_picture(each, self.loading)) for each in some]
            batch = default_collate(read)
            features.append(self.forward(batch))
        return np.concatenate(features)

    @torch.no_grad()
    def forward(self, inputs: dict) -> np.ndarray:
        """Embed a collated batch; (n, C) float32. A model that trains does so again afterwards."""
        with in_eval_mode(self.model):
            images = self.model.data_preprocessor(inputs, False)['inputs']  # (n, bands, S, S)
            dtype = PRECISIONS[self.precision]
            with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
                features = self.extract(images)
            return pooled(features, self.model).float().cpu().numpy()


def read_picture(image: Picture, loading: LoadImageFromFile | None = None) -> dict[str, Any]:
    """An image in the format of its loading step: uint8 BGR, or as LoadBands gives it."""
    if isinstance(image, (str, Path)):
        loading = loading or LoadImageFromFile()
        place = os.path.expanduser(str(image))
        if not (loading.backend_args or is_url(place) or os.path.lexists(place)):
            raise MissingFileError(f'there is no file or folder {os.path.abspath(place)}')
        return loading(dict(img_path=place))
    if isinstance(loading, LoadBands):
        if not isinstance(image, np.ndarray) or image.ndim != 3 or not image.size:
            got = image.shape if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(
                f'an image of bands is a path or an array (height, width, bands), got {got}'
            )
        image = loading.finished(image, 'the array')
        return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
    if isinstance(image, Image.Image):
        name = str(getattr(image, 'filename', '') or 'the PIL image')
        image = to_rgb(image, name)[..., ::-1]  # by the rule for files
    is_array = isinstance(image, np.ndarray)
    fits = is_array and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not fits or image.size == 0:
        got = f'{image.shape} {image.dtype}' if is_array else type(image).__name__
        array = 'an array (height, width, 3) uint8 in BGR'
        raise UserError(f'an image is a path, a PIL image or {array}, got {got}')
    shape = image.shape[:2]
    return dict(img=np.ascontiguousarray(image), img_shape=shape, ori_shape=shape)


def _prediction(scores: Tensor, classes: Sequence[str] | None) -> dict[str, Any]:
    label = int(scores.argmax())
    result = dict(pred_scores=scores.numpy(), pred_label=label, pred_score=float(scores[label]))
    if classes is not None:
        result['pred_class'] = classes[label]
    return result
