"""Features of a whole dataset."""

from collections.abc import Callable

import numpy as np
import torch
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

Target = int | np.ndarray


def class_of(sample: DataSample) -> int:
    """The class of an image that has one."""
    return int(sample.gt_label)


@torch.no_grad()
def extract_features(
    model: BaseModel,
    loader: DataLoader,
    embed: Callable[[Tensor], Tensor] | None = None,
    description: str = 'features',
    target: Callable[[DataSample], Target] = class_of,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed every image of a dataloader, in its order, in eval mode.

    Args:
        model: A model with ``extract_feat`` and a data preprocessor.
        loader: Batches of ``inputs`` and labelled ``data_samples``.
        embed: Takes normalised images (n, 3, S, S). None: the model's ``extract_feat``.
        target: The target of a sample: its class, or an array for an image with several.

    Returns:
        (n, C) float32 features, and (n,) int64 labels or the stacked targets.
    """
    embed = embed or model.extract_feat
    was_training = model.training
    model.eval()
    features, labels = [], []
    for batch in track(loader, description=description, transient=True):
        batch = model.data_preprocessor(batch, training=False)
        features.append(embed(batch['inputs']).cpu().numpy())
        labels += [target(sample) for sample in batch['data_samples']]
    model.train(was_training)
    return np.concatenate(features), np.array(labels)
