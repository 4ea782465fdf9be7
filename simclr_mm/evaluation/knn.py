"""Weighted nearest-neighbour classification of features."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import METRICS

CHUNK = 256  # queries at a time: 256 x 1.28 million similarities are 1.3 GB


def knn_predict(
    query: Tensor,
    gallery: Tensor,
    labels: Tensor,
    k: int = 200,
    temperature: float = 0.07,
    device: str | None = None,
) -> Tensor:
    """Classify by the k most similar gallery features, each weighted by exp(cos / t).

    Source: Wu et al., Unsupervised feature learning via non-parametric instance
        discrimination, arXiv:1805.01978, Sec. 3.4.

    Args:
        query: (q, C) features.
        gallery: (g, C) features.
        labels: (g,) int64 classes of the gallery, >= 0.
        k: Neighbours, in [1, g].
        temperature: t > 0.
        device: Where to compare, which takes g * C floats there. None: where the
            gallery lies.

    Returns:
        (q,) int64 predicted classes, where the query lies.

    Raises:
        ValueError: k is not in [1, g], or temperature <= 0.
    """
    if not 1 <= k <= len(gallery):
        raise UserError(
            f'kNN: k = {k}, but the gallery has {len(gallery)} features: choose k from 1 to that.'
        )
    if temperature <= 0:
        raise UserError(f'kNN: temperature = {temperature}: give a positive number.')
    device = gallery.device if device is None else device
    gallery = F.normalize(gallery.to(device, torch.float32), dim=1)
    labels = labels.to(device)
    classes = int(labels.max()) + 1
    predictions = []
    for chunk in query.split(CHUNK):
        chunk = F.normalize(chunk.to(device, torch.float32), dim=1)
        similarity = chunk @ gallery.T  # (chunk, g)
        nearest, rows = similarity.topk(k, dim=1)  # (chunk, k)
        # exp((s - 1) / t) is exp(s / t) but for a factor, and cannot overflow.
        weights = ((nearest - 1) / temperature).exp()
        # Places in one axis: so the sum is deterministic on a GPU that is asked to be.
        first = torch.arange(0, len(chunk) * classes, classes, device=device)
        places = (first[:, None] + labels[rows]).flatten()  # (chunk * k)
        votes = (
            similarity.new_zeros(len(chunk) * classes)
            .scatter_add_(0, places, weights.flatten())
            .view(len(chunk), classes)
        )
        predictions.append(votes.argmax(dim=1).to(query.device))
    return torch.cat(predictions)


@METRICS.register_module()
class KNNAccuracy(BaseMetric):
    """Top-1 accuracy in percent of weighted kNN, logged as ``knn/top1``.

    For a val or test loop over :class:`~simclr_mm.datasets.GalleryAndQuery` and a model
    whose ``predict`` gives features. They are kept in main memory and compared on the
    GPU, if there is one.

    Args:
        k: Neighbours. 200 as Wu et al. for ImageNet; small datasets want 20 or so.
        temperature: Of the votes' weights. 0.07 as Wu et al.
        collect_device: Where features of several ranks are gathered.

    Raises:
        ValueError: The val dataset is not a GalleryAndQuery or makes views, or k
            exceeds the gallery.
    """

    default_prefix = 'knn'

    def __init__(
        self, k: int = 200, temperature: float = 0.07, collect_device: str = 'cpu'
    ) -> None:
        super().__init__(collect_device=collect_device)
        self.k = k
        self.temperature = temperature

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if sample['feature'].ndim != 1:
                raise UserError(
                    'KNNAccuracy: the validation images come in views, '
                    f'{tuple(sample["feature"].shape)} features of one image: compare '
                    'single images, without simclr_mm.TwoViews in the pipeline.'
                )
            if 'gallery' not in sample:
                raise UserError(
                    'KNNAccuracy: samples do not say whether they are gallery or '
                    'query: give the dataloader a '
                    "dict(type='simclr_mm.GalleryAndQuery')."
                )
            self.results.append(
                (sample['feature'].cpu(), int(sample['gt_label']), sample['gallery'])
            )

    def compute_metrics(self, results: list[tuple]) -> dict:
        features, labels, in_gallery = zip(*results)
        features = torch.stack(features)  # (g + q, C)
        labels = torch.tensor(labels)
        in_gallery = torch.tensor(in_gallery)
        predicted = knn_predict(
            features[~in_gallery],
            features[in_gallery],
            labels[in_gallery],
            self.k,
            self.temperature,
            get_device(),
        )
        hits = predicted == labels[~in_gallery]
        return dict(top1=100 * hits.float().mean().item())
