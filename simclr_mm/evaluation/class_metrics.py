"""Metrics of transfer learning: accuracies, and the mean average precision of VOC.

m examples, K classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from mmpretrain.evaluation import SingleLabelMetric, VOCAveragePrecision
from sklearn.metrics import recall_score

from simclr_mm.errors import UserError
from simclr_mm.registry import METRICS


def top1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of (m,) labels that are predicted, in [0, 1]."""
    return float(np.mean(predicted == labels))


def mean_per_class(predicted: np.ndarray, labels: np.ndarray) -> float:
    """:func:`top1` of each class, averaged over the classes among the labels."""
    return float(recall_score(labels, predicted, labels=np.unique(labels), average='macro'))


def voc07_map(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes of the average precision at eleven recalls.

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010,
    Sec. 4.2: the mean, over recalls of 0, 0.1 ... 1, of the highest precision at this
    recall or a greater one. Ties in scores are broken by order.

    Args:
        scores: (m, K), higher for more likely classes.
        targets: (m, K), 1 for the classes of an image, 0 for others, -1 for classes that
            are not scored, because the image shows only difficult objects of them.

    Returns:
        Mean over the classes that some image has, in [0, 1].

    Raises:
        UserError: No image has any class.
    """
    values = [
        _eleven_points(scores[:, k], targets[:, k])
        for k in range(targets.shape[1])
        if (targets[:, k] == 1).any()
    ]
    if not values:
        raise UserError('voc07_map: none of the images has a class')
    return float(np.mean(values))


def _eleven_points(scores: np.ndarray, targets: np.ndarray) -> float:
    """Average precision of one class."""
    scores, targets = scores[targets != -1], targets[targets != -1]
    hits = targets[np.argsort(-scores, kind='stable')] == 1
    found = np.cumsum(hits)  # images of the class among the first 1, 2, ...
    precision = found / np.arange(1, len(hits) + 1)
    # In whole numbers, because 3 * 0.1 is more than 0.3.
    return float(np.mean([precision[10 * found >= k * found[-1]].max() for k in range(11)]))


# Each takes predicted classes (m,), or scores (m, K) if an image has several classes, and
# the truth. Each returns a share.
CLASS_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = dict(
    top1=top1, mean_per_class=mean_per_class, voc07_map=voc07_map
)


@METRICS.register_module()
class MeanPerClass(SingleLabelMetric):
    """:func:`mean_per_class` in percent, as a metric of val and test loops.

    Differs: mmpretrain's mean recall counts a class without images as 0.
    """

    default_prefix: str | None = 'mean_per_class'

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        labels = np.concatenate([result['gt_label'].numpy() for result in results])
        predicted = np.array(
            [
                int(result['pred_score'].argmax())
                if 'pred_score' in result
                else int(result['pred_label'])
                for result in results
            ]
        )
        return dict(accuracy=100 * mean_per_class(predicted, labels))


@METRICS.register_module()
class VOC07MeanAP(VOCAveragePrecision):
    """:func:`voc07_map` in percent, as a metric of val and test loops.

    Args:
        **kwargs: As for VOCAveragePrecision. By default difficult objects do not count.

    Differs: mmpretrain's VOCAveragePrecision sums over all recalls, which gives other numbers.
    """

    default_prefix: str | None = 'voc07'

    @staticmethod
    def calculate(
        pred: torch.Tensor, target: torch.Tensor, average: str | None = 'macro'
    ) -> torch.Tensor:
        """mmpretrain's signature; (m, K) scores and targets -> percent."""
        return torch.tensor(100 * voc07_map(pred.cpu().numpy(), target.cpu().numpy()))
