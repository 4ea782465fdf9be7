"""Weighted nearest-neighbour classification of features."""

from collections.abc import Sequence
from numbers import Integral
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import METRICS

from .features import check_finite, finite_rows

CHUNK = 256  # queries at a time: 256 x 1.28 million similarities are 1.3 GB


def knn_predict(
    query: Tensor,
    gallery: Tensor,
    labels: Tensor,
    k: int = 200,
    temperature: float = 0.07,
    device: str | torch.device | None = None,
) -> Tensor:
    """Classify by the k most similar gallery features, each weighted by exp(cos / t).

    Source: Wu et al., Unsupervised feature learning via non-parametric instance
        discrimination, arXiv:1805.01978, Sec. 3.4.

    Args:
        query: (q, C) features, all finite.
        gallery: (g, C) features. Rows that are not finite are left out; a log line counts them.
        labels: (g,) int64 classes of the gallery, >= 0.
        k: Neighbours, in [1, g].
        temperature: t > 0.
        device: Where to compute. It needs memory for g * C floats. None: the gallery's.

    Returns:
        (q,) int64 predicted classes, on the query's device.

    Raises:
        UserError: k is not in [1, g], temperature <= 0, a query is not finite or a label
            is negative.
    """
    return best_classes(query, gallery, labels, k, temperature, device)[:, 0]


def best_classes(
    query: Tensor,
    gallery: Tensor,
    labels: Tensor,
    k: int,
    temperature: float,
    device: str | torch.device | None = None,
) -> Tensor:
    """Up to five classes of each query, (q, 5), by decreasing votes; -1: none has a vote."""
    check_finite(_lengths(query), 'queries of kNN')
    finite = finite_rows(_lengths(gallery), 'gallery features of kNN')
    gallery, labels = gallery[finite], labels[finite.to(labels.device)]
    if (labels < 0).any():
        raise UserError(
            f'kNN: {(labels < 0).sum()} gallery labels are negative: leave out unlabelled images.'
        )
    if not 1 <= k <= len(gallery):
        raise UserError(
            f'kNN: k = {k}, but the gallery has {len(gallery)} features: choose k from 1 to that.'
        )
    _check(k, temperature)
    place = gallery.device if device is None else device
    gallery = F.normalize(gallery.to(place, torch.float32), dim=1)
    labels = labels.to(place)
    classes = int(labels.max()) + 1
    predictions = []
    for chunk in query.split(CHUNK):
        chunk = F.normalize(chunk.to(place, torch.float32), dim=1)
        similarity = chunk @ gallery.T  # (chunk, g)
        nearest, rows = similarity.topk(k, dim=1)  # (chunk, k)
        # Relative to the nearest, which votes 1, so that the votes never all underflow.
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
        # Indices in one axis: only so scatter_add_ can be deterministic on a GPU.
        first = torch.arange(0, len(chunk) * classes, classes, device=place)
        places = (first[:, None] + labels[rows]).flatten()  # (chunk * k)
        votes = (
            similarity.new_zeros(len(chunk) * classes)
            .scatter_add_(0, places, weights.flatten())
            .view(len(chunk), classes)
        )
        votes, best = votes.sort(dim=1, descending=True, stable=True)  # (chunk, classes)
        predictions.append(best.where(votes > 0, -1)[:, :5].to(query.device))
    return torch.cat(predictions)


def _check(k: int, temperature: float) -> None:
    if not isinstance(k, Integral):
        raise UserError(f'kNN: k = {k}: give a whole number.')
    if not temperature > 0:
        raise UserError(f'kNN: temperature = {temperature}: give a positive number.')


def _lengths(features: Tensor) -> Tensor:
    """(n, 1) lengths of rows, infinite where float32 cannot hold the length."""
    return torch.linalg.vector_norm(features.float(), dim=1, keepdim=True)


@METRICS.register_module()
class KNNAccuracy(BaseMetric):
    """Accuracy in percent of weighted kNN, logged as ``knn/top1`` and ``knn/top5``.

    For a val or test loop over :class:`~simclr_mm.datasets.GalleryAndQuery` and a model
    whose ``predict`` gives features. They are kept in main memory and compared on the
    GPU, if there is one. Top-5 counts a query whose class is among the five with most
    votes; a class without a vote does not count.

    Args:
        k: Neighbours. 200 as in Wu et al. for ImageNet; use about 20 for small datasets.
        temperature: Of the votes' weights. 0.07 as in Wu et al.
        collect_device: Where features of several ranks are gathered.

    Raises:
        UserError: The val dataset is not a GalleryAndQuery or makes views, or, before the
            first step, k exceeds the gallery or the temperature is not positive.
    """

    default_prefix = 'knn'

    def __init__(
        self,
        k: int = 200,
        temperature: float = 0.07,
        collect_device: Literal['cpu', 'gpu', 'npu'] = 'cpu',
    ) -> None:
        super().__init__(collect_device=collect_device)
        _check(k, temperature)
        self.k = k
        self.temperature = temperature

    @property
    def dataset_meta(self) -> dict | None:
        """The dataset's metainfo, which the loop sets when it is built."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        images = meta.get('gallery_images')
        if images is not None and not 1 <= self.k <= images:
            raise UserError(
                f'KNNAccuracy: k = {self.k}, but the gallery has {images} images: set '
                f'val_evaluator.k (and test_evaluator.k) from 1 to {images}.'
            )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if sample['feature'].ndim != 1:
                raise UserError(
                    'KNNAccuracy: the validation images are views, with '
                    f'{tuple(sample["feature"].shape)} features of one image: take '
                    'simclr_mm.TwoViews out of the validation pipeline.'
                )
            if 'gallery' not in sample:
                raise UserError(
                    'KNNAccuracy: samples do not say whether they are gallery or query: give the '
                    "dataloader a dict(type='simclr_mm.GalleryAndQuery')."
                )
        # Read a GPU once a batch.
        features = torch.stack([sample['feature'].float() for sample in data_samples])
        labels = torch.cat([torch.as_tensor(each['gt_label']).view(1) for each in data_samples])
        in_gallery = [sample['gallery'] for sample in data_samples]
        self.results += zip(features.cpu().numpy(), labels.cpu().numpy(), in_gallery)

    def compute_metrics(self, results: list[tuple[np.ndarray, int, bool]]) -> dict[str, float]:
        features = torch.from_numpy(np.stack([feature for feature, _, _ in results]))
        labels = torch.tensor([int(label) for _, label, _ in results])
        gallery = torch.tensor([in_gallery for _, _, in_gallery in results])
        found = features[~gallery], features[gallery], labels[gallery]
        best = best_classes(*found, self.k, self.temperature, get_device())
        hits = (best == labels[~gallery, None]).float()  # (q, 5) or fewer
        return {f'top{n}': 100 * hits[:, :n].sum(dim=1).mean().item() for n in (1, 5)}
