"""A linear classifier that is trained along with the encoder, for monitoring."""

import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from simclr_mm.errors import UserError


class OnlineProbe(nn.Module):
    """Multinomial logistic regression on detached features.

    ``SimCLR(online_probe=dict(num_classes=K))`` builds it. The encoder's optimizer
    trains it in the same step, on all views of each image with the image's label.

    Source: SimCLR's reference code, flag ``lineareval_while_pretraining``: tf2/model.py
    (stop_gradient, no layer adaptation under LARS) and tf2/run.py (labels of all views).

    Args:
        in_channels: C.
        num_classes: K >= 2.

    Raises:
        UserError: num_classes is not a whole number above 1.

    Differs: weights start at 0, in the reference code at N(0, 0.01). So the probe draws no
    random numbers, and the encoder starts with the same weights as without a probe.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if type(num_classes) is not int or num_classes < 2:
            raise UserError(
                f'model.online_probe.num_classes is {num_classes!r}: give a whole number above 1'
            )
        self.fc = nn.utils.skip_init(nn.Linear, in_channels, num_classes)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self._labels_checked = False

    def forward(self, features: Tensor) -> Tensor:
        """Logits, (..., C) -> (..., K), in float32 also under autocast.

        In float16 the probe's gradient could overflow, and the loss scaler would skip the
        encoder's step too.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.fc(features.detach().to(self.fc.weight.dtype))

    def loss(self, features: Tensor, data_samples: list[DataSample] | None) -> dict[str, Tensor]:
        """Cross entropy and accuracy over all views, for features (n, V, C) and n samples.

        Returns:
            Scalars: ``probe_loss`` in nats, which mmengine adds to the loss, and
            detached ``probe_top1``, a share in [0, 1].

        Raises:
            UserError: An image has no label, or a label of the first batch is not in [0, K).
        """
        labels = self._labels(data_samples).to(features.device)  # (n)
        labels = labels.repeat_interleave(features.shape[1])  # (nV)
        logits = self(features).flatten(0, 1)  # (nV, K)
        hits = logits.detach().argmax(dim=1) == labels
        return dict(probe_loss=F.cross_entropy(logits, labels), probe_top1=hits.float().mean())

    def _labels(self, data_samples: list[DataSample] | None) -> Tensor:
        if not data_samples or any('gt_label' not in each for each in data_samples):
            raise UserError(
                'model.online_probe needs the label of every training image: set '
                'train_dataloader.dataset.with_label=True, or model.online_probe=None '
                'for images without labels'
            )
        labels = torch.cat([sample.gt_label for sample in data_samples])  # (n)
        if not self._labels_checked:  # only once, because it waits for the device
            classes = self.fc.out_features
            if len(labels) != len(data_samples) or not (
                0 <= labels.min() and labels.max() < classes
            ):
                raise UserError(
                    f'model.online_probe.num_classes is {classes}, so each training image needs '
                    f'one label from 0 to {classes - 1}; this batch of {len(data_samples)} has '
                    f'{len(labels)} from {labels.min()} to {labels.max()}'
                )
            self._labels_checked = True
        return labels
