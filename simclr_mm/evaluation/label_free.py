"""Measures of features that need no labels."""

from collections.abc import Sequence
from typing import Literal
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import METRICS

from .features import finite_rows

CHUNK = 1024  # rows at a time: 1024 x 10,000 similarities are 40 MB


def effective_rank(features: Tensor) -> float:
    """RankMe: the number of directions that the features, (m, C), use.

    exp of the entropy of p_k = s_k / sum(s) + 1e-7, with s the singular values of the
    features, neither centred nor normalised. From about 1, if all features are multiples of one
    vector, to min(m, C).

    Source: Garrido et al., RankMe, arXiv:2210.02885, Sec. 3.1, ICML 2023.

    Differs: singular values are roots of the eigenvalues of a C x C matrix in float64,
    so values below 1e-8 of the largest are noise. The paper's 1e-7 is above this.
    """
    x = features.double()
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T  # (r, r), r = min(m, C)
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()  # (r)
    p = values / values.sum().clamp(min=torch.finfo(x.dtype).tiny) + 1e-7
    return float((-p * p.log()).sum().exp())


def feature_std(features: Tensor) -> float:
    """Standard deviation of each channel of normalised features, averaged.

    Source: SimSiam, arXiv:2011.10566, Sec. 4.1: 0 for collapsed features, 1/sqrt(C) for
    isotropic features. Features: (m, C).
    """
    return float(F.normalize(features.double(), dim=1).std(dim=0, correction=0).mean())


def uniformity(features: Tensor) -> float:
    """log of the mean of exp(-2 |x - y|^2) over pairs of normalised features, (m, C), m >= 2.

    From -8 to 0, lower is more uniform; 0 if all features are the same, about -4 if they are
    isotropic.

    Source: Wang and Isola, arXiv:2005.10242, Sec. 4.1, with t = 2.
    """
    x = F.normalize(features.float(), dim=1)
    lengths = 2 * x.square().sum(dim=1)  # (m), 2, or 0 for a row of zeros
    total = 0.0
    for chunk, own in zip(x.split(CHUNK), lengths.split(CHUNK)):
        # -2 |x - y|^2; (chunk, m)
        exponents = 4 * chunk @ x.T - own[:, None] - lengths
        total += float(exponents.exp().sum(dtype=torch.float64))
    m = len(x)
    return float(np.log((total - m) / (m * (m - 1))))


def alignment(views: Tensor) -> float:
    """Mean squared distance between normalised features of two views of an image, (m, V, C).

    The mean over all pairs of views, from 0 (equal features) to 4.

    Source: Wang and Isola, arXiv:2005.10242, Sec. 4.1, with alpha = 2.
    """
    x = F.normalize(views.double(), dim=2)
    num_views = x.shape[1]
    # The sum of |x_p - x_q|^2 over ordered pairs is 2 V sum of |x|^2 - 2 |sum of x|^2.
    pairs = 2 * num_views * x.square().sum(dim=(1, 2)) - 2 * x.sum(dim=1).square().sum(dim=1)  # (m)
    return float(pairs.mean() / (num_views * (num_views - 1)))


@METRICS.register_module()
class LabelFreeMetrics(BaseMetric):
    """Measures of features that need no labels, logged as ``label_free/...``.

    They are the functions of this file on the backbone's features: ``effective_rank``;
    ``feature_std`` with ``isotropic_std``, 1/sqrt(C); ``uniformity``; and ``alignment`` if
    the val pipeline makes views (``simclr_mm.TwoViews``). In a GalleryAndQuery only the
    queries count. Features that are not finite are left out; a log line counts them.

    The images are those whose indices have the lowest checksums, so any number of ranks
    uses the same images.

    Args:
        max_samples: Images at most. ``effective_rank`` cannot exceed their number. 10,000
            are five times the width of ResNet-50 and take 82 MB there.
        collect_device: Where features of several ranks are gathered.

    Raises:
        UserError: max_samples is below 2, there are fewer than two images, or samples have
            no index.
    """

    default_prefix = 'label_free'

    def __init__(
        self, max_samples: int = 10_000, collect_device: Literal['cpu', 'gpu', 'npu'] = 'cpu'
    ) -> None:
        super().__init__(collect_device=collect_device)
        if max_samples < 2:
            raise UserError(
                f'LabelFreeMetrics: max_samples is {max_samples}: give 2 or more to compare.'
            )
        self.max_samples = max_samples

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        # One entry for each rank, because mmengine gathers equally many of each.
        if not self.results:
            self.results.append({})
        kept: dict[tuple, np.ndarray] = self.results[0]
        queries = [sample for sample in data_samples if not sample.get('gallery')]
        if not all('sample_idx' in sample for sample in queries):
            raise UserError(
                "LabelFreeMetrics: samples have no 'sample_idx': keep it in PackInputs.meta_keys."
            )
        if queries:
            # With the path, because concatenated datasets each count from 0.
            keys = [(int(each['sample_idx']), each.get('img_path')) for each in queries]
            # Read a GPU once a batch.
            features = torch.stack([sample['feature'].float() for sample in queries]).cpu()
            kept.update(zip(keys, map(np.copy, features.numpy())))
        if len(kept) > 2 * self.max_samples:
            self.results[0] = self._chosen(kept)

    def _chosen(self, features: dict[tuple, np.ndarray]) -> dict[tuple, np.ndarray]:
        keys = sorted(features, key=lambda key: (crc32(repr(key).encode()), repr(key)))
        return {key: features[key] for key in keys[: self.max_samples]}

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        kept = self._chosen({k: v for rank in results for k, v in rank.items()})
        x = torch.from_numpy(np.stack(list(kept.values())))  # (m, C) or (m, V, C)
        x = x[finite_rows(x, 'features of LabelFreeMetrics')]
        if len(x) < 2:
            raise UserError(
                f'LabelFreeMetrics: {len(x)} image(s) to compare: validate on two or more.'
            )
        views = x if x.ndim == 3 else x[:, None]  # (m, V, C)
        each = views.unbind(dim=1)  # V of (m, C), so that no measure compares two views
        metrics = dict(
            effective_rank=np.mean([effective_rank(view) for view in each]),
            feature_std=np.mean([feature_std(view) for view in each]),
            isotropic_std=x.shape[-1] ** -0.5,
            uniformity=np.mean([uniformity(view) for view in each]),
        )
        if len(each) > 1:
            metrics['alignment'] = alignment(views)
        return {name: float(value) for name, value in metrics.items()}
