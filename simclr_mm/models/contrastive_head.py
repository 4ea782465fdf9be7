from torch import Tensor, nn

from simclr_mm.losses import margin_triplet, nt_logistic, nt_xent
from simclr_mm.registry import MODELS


@MODELS.register_module()
class NTXentHead(nn.Module):
    """The numbers of ``losses.nt_xent`` that a config names.

    Args:
        temperature: tau > 0, no unit. 0.1 is the paper's for ImageNet (Sec. 5.1, Table
            5), 0.5 its for CIFAR-10 (B.9).
        pairs: 'all': every other view of the image is a positive among all VN - 1
            rows; 'separate': the two-view loss of each pair of views, averaged
            (AVGSimCLR). The same for two views.
    """

    def __init__(self, temperature: float = 0.1, pairs: str = 'all') -> None:
        super().__init__()
        self.temperature = temperature
        self.pairs = pairs

    def loss(self, z: Tensor) -> dict[str, Tensor]:
        """The loss and what to log beside it.

        Args:
            z: (n, V, d) projections of this rank, not normalised.

        Returns:
            Scalars: ``loss`` in nats, and detached ``top1``, ``pos_sim``, ``neg_sim``,
            ``chance``, as ``losses.nt_xent`` defines them.
        """
        loss, stats = nt_xent(z, self.temperature, return_stats=True, pairs=self.pairs)
        return dict(loss=loss, **stats)


@MODELS.register_module()
class NTLogisticHead(nn.Module):
    """The numbers of ``losses.nt_logistic`` that a config names.

    Args:
        temperature: tau > 0, no unit. No default: the paper tries 0.1, 0.2, 0.5 and 1
            and does not say which was best (B.10).
        semi_hard: Push only the closest negative that is farther than the positive;
            57.9 instead of 51.6 % on ImageNet (Table 4).
    """

    def __init__(self, temperature: float, semi_hard: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.semi_hard = semi_hard

    def loss(self, z: Tensor) -> dict[str, Tensor]:
        """The loss and what to log beside it.

        Args:
            z: (n, V, d) projections of this rank, not normalised.

        Returns:
            Scalars: ``loss`` in nats, and detached ``top1``, ``pos_sim``, ``neg_sim``,
            ``chance`` and, with ``semi_hard``, ``mined``, as ``losses.nt_logistic``
            defines them.
        """
        loss, stats = nt_logistic(z, self.temperature, self.semi_hard, True)
        return dict(loss=loss, **stats)


@MODELS.register_module()
class MarginTripletHead(nn.Module):
    """The numbers of ``losses.margin_triplet`` that a config names.

    Args:
        margin: m >= 0 in cosine similarity, > 0 with ``semi_hard``. No default: the
            paper tries 0, 0.4, 0.8 and 1.6 and does not say which was best (B.10).
        semi_hard: Push only the closest negative that is farther than the positive and
            within the margin; 57.5 instead of 50.9 % on ImageNet (Table 4).
    """

    def __init__(self, margin: float, semi_hard: bool = False) -> None:
        super().__init__()
        self.margin = margin
        self.semi_hard = semi_hard

    def loss(self, z: Tensor) -> dict[str, Tensor]:
        """The loss and what to log beside it.

        Args:
            z: (n, V, d) projections of this rank, not normalised.

        Returns:
            Scalars: ``loss`` in cosine similarity, and detached ``top1``, ``pos_sim``,
            ``neg_sim``, ``chance`` and, with ``semi_hard``, ``mined``, as
            ``losses.margin_triplet`` defines them.
        """
        loss, stats = margin_triplet(z, self.margin, self.semi_hard, True)
        return dict(loss=loss, **stats)
