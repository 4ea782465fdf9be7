from torch import Tensor, nn

from simclr_mm.losses import nt_xent
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
