"""Features of a whole dataset, and rows of them that are not finite."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from simclr_mm.errors import UserError, listed

Target = int | np.ndarray
Batch = tuple[np.ndarray, np.ndarray]  # features (n, C), and targets
NOTHING: Batch = np.empty((0, 0), np.float32), np.empty(0, np.int64)


def class_of(sample: DataSample) -> int:
    """The class of an image that has one."""
    return int(sample.gt_label)


@contextmanager
def in_eval_mode(model: BaseModel) -> Iterator[None]:
    """Each part of the model goes back to the mode that it had; some may be frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@torch.no_grad()
def extract_features(
    model: BaseModel,
    loader: DataLoader,
    embed: Callable[[Tensor], Tensor] | None = None,
    description: str = 'features',
    target: Callable[[DataSample], Target] = class_of,
    gather: Callable[[Iterator[Batch]], Iterable[Batch]] = iter,
) -> Batch:
    """Embed every image of a dataloader, in its order, in eval mode.

    Args:
        model: A model with ``extract_feat`` and a data preprocessor.
        loader: Batches of ``inputs`` and labelled ``data_samples``.
        embed: Takes normalised images (n, 3, S, S). None: the model's ``extract_feat``.
        target: The target of a sample: its class, or an array for an image with several.
        gather: Takes the features and targets of this loader's batches, and gives those of all
            ranks, or none.

    Returns:
        (n, C) float32 features, and (n,) int64 labels or the stacked targets.
    """
    embed = embed or model.extract_feat

    def batches() -> Iterator[Batch]:
        for batch in track(loader, description=description, transient=True):
            batch = model.data_preprocessor(batch, training=False)
            targets = np.array([target(sample) for sample in batch['data_samples']])
            yield embed(batch['inputs']).cpu().numpy(), targets

    with in_eval_mode(model):
        found = list(gather(batches())) or [NOTHING]
    features, targets = zip(*found)
    return np.concatenate(features), np.concatenate(targets)


def finite_rows(features: Tensor, what: str) -> Tensor:
    """Which rows of (n, ...) are finite, (n) booleans. A log line counts and names the others.

    Raises:
        UserError: No row is finite, or there is none.
    """
    if not len(features):
        raise UserError(f'there are no {what}')
    finite = features.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        message = _message(finite, what)
        if not finite.any():
            raise UserError(f'{message}; no row is left.')
        print_log(f'{message}; they are left out.', logger='current', level=logging.WARNING)
    return finite


def check_finite(features: Tensor, what: str) -> None:
    """Refuse rows that are not finite, and name their numbers."""
    finite = features.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        raise UserError(f'{_message(finite, what)}; leave them out.')


def _message(finite: Tensor, what: str) -> str:
    rows = (~finite).nonzero().flatten().tolist()
    named = f'{len(rows)} of {len(finite)} {what} are not finite (NaN or infinity)'
    return f'{named}: rows {listed(rows)}'
