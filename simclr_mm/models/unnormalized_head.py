from torch import Tensor, nn

from simclr_mm.losses.unnormalized import unnormalized_xent
from simclr_mm.registry import MODELS


@MODELS.register_module()
class UnnormalizedXentHead(nn.Module):
    """The number of ``losses.unnormalized_xent``, for the study of Table 5.

    Args:
        temperature: tau > 0, in the unit of dot products. No default: the paper tries
            10 and 100, and neither reaches NT-Xent (Table 5).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def loss(self, z: Tensor) -> dict[str, Tensor]:
        """The loss and what to log beside it.

        Args:
            z: (n, V, d) projections of this rank.

        Returns:
            Scalars: ``loss`` in nats, and detached ``top1``, ``pos_sim``, ``neg_sim``,
            ``chance``, as ``losses.unnormalized_xent`` defines them.
        """
        loss, stats = unnormalized_xent(z, self.temperature, return_stats=True)
        return dict(loss=loss, **stats)
