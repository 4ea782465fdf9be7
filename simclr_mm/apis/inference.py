"""From a picture to a feature or a class."""
from pathlib import Path
from typing import Any, Dict, Union

import numpy as np
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps

from simclr_mm.transforms.loading import LoadImageFromFile

from .model_zoo import get_model

Picture = Union[str, Path, np.ndarray, Image.Image]


def inference_model(model: Union[BaseModel, str],
                    image: Picture,
                    device: Union[str, torch.device, None] = None) -> Dict[str, Any]:
    """Run a model on one picture, with the test pipeline of its config.

    Args:
        model: From :func:`simclr_mm.get_model`, or a name with published weights.
        image: A file, an array (height, width, 3) uint8 in BGR as OpenCV and mmcv give
            it, or a PIL image. The same picture gives the same result.
        device: Moves the model there first. None: it stays where it is.

    Returns:
        For SimCLR ``feature``, a (C) array; for a classifier ``pred_label``,
        ``pred_score``, ``pred_scores`` (one for each class) and, where the classes have
        names, ``pred_class``, as mmpretrain gives them.

    Raises:
        ValueError: the model was not built by ``get_model``, or the array is no image.
        UnreadableImage: the file is not.
    """
    if not isinstance(model, BaseModel):
        model = get_model(model, pretrained=True)
    if device is not None:
        model.to(device)
    batch = default_collate([_pipeline(model)(_read(image))])
    with torch.no_grad():
        sample = model.eval().test_step(batch)[0]
    if 'feature' in sample:
        return dict(feature=sample.feature.cpu().numpy())
    return _prediction(sample.pred_score.cpu(), getattr(model, '_dataset_meta', {}))


def _prediction(scores: torch.Tensor, dataset_meta: dict) -> Dict[str, Any]:
    label = int(scores.argmax())
    result = dict(
        pred_scores=scores.numpy(), pred_label=label, pred_score=float(scores[label]))
    classes = dataset_meta.get('classes')
    if classes is not None:
        result['pred_class'] = classes[label]
    return result


def _pipeline(model: BaseModel) -> Compose:
    """The transforms of the test set, but for the one that reads a file."""
    config = getattr(model, '_config', None)
    if config is None or not config.get('test_dataloader'):
        raise ValueError('the model has no config with a test_dataloader, so it is not '
                         'known how to prepare a picture: build it with get_model')
    transforms = config.test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([
            TRANSFORMS.build(transform) for transform in transforms
            if not transform['type'].endswith('LoadImageFromFile')
        ])


def _read(image: Picture) -> Dict[str, Any]:
    """A picture in the form in which LoadImageFromFile gives it, uint8 BGR."""
    if isinstance(image, (str, Path)):
        return LoadImageFromFile()(dict(img_path=str(image)))
    if isinstance(image, Image.Image):
        # Turned as its EXIF entry says, like every file that OpenCV reads.
        image = np.array(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError('an image array is (height, width, 3) uint8 in BGR, got '
                         f'{image.shape} {image.dtype}')
    shape = image.shape[:2]
    return dict(img=np.ascontiguousarray(image), img_shape=shape, ori_shape=shape)
