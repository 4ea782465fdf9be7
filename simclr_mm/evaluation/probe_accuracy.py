"""Accuracy of the online probe on held-out images."""

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from simclr_mm.errors import UserError
from simclr_mm.registry import METRICS


@METRICS.register_module()
class ProbeAccuracy(BaseMetric):
    """Accuracy in percent of ``SimCLR(online_probe=...)``, logged as ``probe/top1``.

    For a val or test loop over any labelled dataset. In a GalleryAndQuery only the queries
    count, because the gallery is training data.

    Args:
        topk: Values of k. A hit has the true class among the k highest scores.
        collect_device: Where the results of several ranks are gathered.

    Raises:
        UserError: The model has no online probe, or k is below 1 or exceeds its classes.
    """

    default_prefix = 'probe'

    def __init__(
        self, topk: Sequence[int] = (1,), collect_device: Literal['cpu', 'gpu', 'npu'] = 'cpu'
    ) -> None:
        super().__init__(collect_device=collect_device)
        counts = topk if isinstance(topk, (list, tuple)) else ()
        if not counts or not all(isinstance(k, int) and k >= 1 for k in counts):
            raise UserError(
                f'ProbeAccuracy: topk = {topk!r}: give whole numbers from 1, such as (1, 5)'
            )
        self.topk = topk

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        found = []
        for sample in data_samples:
            if sample.get('gallery'):
                continue
            if 'pred_score' not in sample:
                raise UserError(
                    'ProbeAccuracy: the model predicts no classes: set model.online_probe='
                    'dict(num_classes=...), and validate on images without TwoViews.'
                )
            scores = sample['pred_score']  # (K)
            if max(self.topk) > len(scores):
                raise UserError(
                    f'ProbeAccuracy: topk = {tuple(self.topk)} of {len(scores)} classes.'
                )
            best = scores.topk(max(self.topk)).indices  # (k)
            # Scores that are not finite are a miss.
            found.append((best == sample['gt_label']) & scores.isfinite().all())
        # Read a GPU once a batch.
        hits = iter(torch.stack(found).cpu() if found else ())
        # mmengine interleaves the ranks by position, so each sample needs an entry.
        self.results += [None if each.get('gallery') else next(hits) for each in data_samples]

    def compute_metrics(self, results: list[Tensor | None]) -> dict[str, float]:
        hits = torch.stack([hit for hit in results if hit is not None]).float()  # (n, k)
        return {f'top{k}': 100 * hits[:, :k].sum(dim=1).mean().item() for k in self.topk}
