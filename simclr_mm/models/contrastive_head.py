"""Registered heads: the contrastive losses with the numbers that a config names.

The functions are in :mod:`simclr_mm.losses`.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from simclr_mm.errors import UserError
from simclr_mm.losses import (
    margin_triplet_with_stats,
    nt_logistic_with_stats,
    nt_xent_with_stats,
    unnormalized_xent_with_stats,
)
from simclr_mm.registry import MODELS


class _Head(nn.Module):
    def __init__(self, function: Callable, **numbers: Any) -> None:
        super().__init__()
        self.function = function
        self._names = tuple(numbers)
        for name, number in numbers.items():  # a hook may change them
            setattr(self, name, number)

    def _numbers(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}

    def loss(self, z: Tensor) -> dict[str, Tensor]:
        """The scalar ``loss``, and detached scalars for the log, of this rank's projections.

        z is (n, V, d), not normalised.
        """
        loss, stats = self.function(z, **self._numbers())
        return dict(loss=loss, **stats)

    def extra_repr(self) -> str:
        return ', '.join(f'{name}={value!r}' for name, value in self._numbers().items())


@MODELS.register_module()
class NTXentHead(_Head):
    """Head of :func:`~simclr_mm.losses.nt_xent`, in nats.

    Logs ``top1``, ``pos_sim``, ``neg_sim`` and ``chance``.

    Args:
        temperature: tau >= 0.002, no unit. The paper uses 0.1 for ImageNet (Sec. 5.1, Table
            5) and 0.5 for CIFAR-10 (B.9).
        pairs: 'all': every other view of the image is a positive among all VN - 1
            rows. 'separate': the two-view loss of each pair of views, averaged
            (AVGSimCLR). Both are the same for two views.
        groups: Images of one group (patient, slide, clip) are no negatives of each other.
            Each data sample has its ``group``, as from ``simclr_mm.ImageList``.

    Raises:
        UserError: A data sample has no group, where ``groups`` asks for it.
    """

    def __init__(self, temperature: float = 0.1, pairs: str = 'all', groups: bool = False) -> None:
        super().__init__(nt_xent_with_stats, temperature=temperature, pairs=pairs)
        self.groups = groups

    def loss(self, z: Tensor, data_samples: list[DataSample] | None = None) -> dict[str, Tensor]:
        """As for every head, and with ``groups`` from those of the n ``data_samples``."""
        if not self.groups:
            return super().loss(z)
        numbers = [sample.get('group') for sample in data_samples or [DataSample()]]
        wrong = [number for number in numbers if not isinstance(number, Integral)]
        if wrong:
            raise UserError(
                f'model.head.groups needs a whole number, the group, of every training image, and '
                f'{len(wrong)} of {len(numbers)} samples of this batch have {wrong[0]!r}: give '
                'a table with the column group to simclr_mm.ImageList, or set '
                'model.head.groups=False'
            )
        loss, stats = self.function(z, **self._numbers(), groups=torch.tensor(numbers))
        return dict(loss=loss, **stats)


@MODELS.register_module()
class NTLogisticHead(_Head):
    """Head of :func:`~simclr_mm.losses.nt_logistic`, in nats.

    Logs what ``NTXentHead`` logs, and ``mined`` with ``semi_hard``.

    Args:
        temperature: tau > 0, no unit. No default: the paper tries 0.1, 0.2, 0.5 and 1
            and does not say which is best (B.10).
        semi_hard: Use only the closest negative that is farther than the positive. It
            raises ImageNet accuracy from 51.6 to 57.9 % (Table 4).
    """

    def __init__(self, temperature: float, semi_hard: bool = False) -> None:
        super().__init__(nt_logistic_with_stats, temperature=temperature, semi_hard=semi_hard)


@MODELS.register_module()
class MarginTripletHead(_Head):
    """Head of :func:`~simclr_mm.losses.margin_triplet`, in cosine similarity.

    Logs what ``NTXentHead`` logs, and ``mined`` with ``semi_hard``.

    Args:
        margin: m >= 0 in cosine similarity, > 0 with ``semi_hard``. No default: the
            paper tries 0, 0.4, 0.8 and 1.6 and does not say which is best (B.10).
        semi_hard: Use only the closest negative that is farther than the positive and
            within the margin. It raises ImageNet accuracy from 50.9 to 57.5 % (Table 4).
    """

    def __init__(self, margin: float, semi_hard: bool = False) -> None:
        super().__init__(margin_triplet_with_stats, margin=margin, semi_hard=semi_hard)


@MODELS.register_module()
class UnnormalizedXentHead(_Head):
    """Head of :func:`~simclr_mm.losses.unnormalized_xent`, for the study of Table 5.

    Args:
        temperature: tau > 0, in the unit of dot products. No default: the paper tries
            10 and 100, and both are worse than NT-Xent (Table 5).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__(unnormalized_xent_with_stats, temperature=temperature)
