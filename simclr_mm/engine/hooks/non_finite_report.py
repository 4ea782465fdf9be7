"""What is told about a step that was not finite."""

import json

import torch
from mmengine import dist, fileio
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import Tensor

from simclr_mm.errors import NotFiniteError

_NAMES_SHOWN = 5


class FirstBadStep:
    """The first bad one of a few steps, found on the device and read back once.

    Args:
        device: Where flags and projections are.
    """

    def __init__(self, device: torch.device) -> None:
        self._rates: dict[int, float] = {}  # by step
        self._images: dict[int, list[str]] = {}
        self._step = torch.full((), -1, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._range: Tensor | None = None

    def note(
        self, step: int, bad: Tensor, rate: float, images: list[str], projections: Tensor | None
    ) -> None:
        """Enter a step, good or bad. Nothing is read from the device.

        Args:
            step: Its number, as the log counts.
            bad: Bool without dimensions, on the device.
            rate: The learning rate.
            images: Names of this rank's images.
            projections: Of this rank, where there are any.
        """
        self._rates[step], self._images[step] = rate, images
        first = bad & (self._step < 0)
        self._step = torch.where(first, step, self._step)
        self._count = self._count + bad
        if projections is not None:
            now = _range(projections)
            before = now if self._range is None else self._range
            self._range = torch.where(first, now, before)

    def read(self) -> dict | None:
        """The report of all ranks, on each of them, or None if every step was good."""
        step = int(self._step)
        if step < 0:
            return None
        rank: dict[str, object] = dict(images=self._images[step])
        if self._range is not None:
            keys = ('lowest', 'highest', 'not_finite')
            rank['projections'] = dict(zip(keys, self._range.tolist()))
        ranks = dist.all_gather_object(rank)
        return dict(
            step=step, learning_rate=self._rates[step], skipped_steps=int(self._count), ranks=ranks
        )


def _range(projections: Tensor) -> Tensor:
    """Lowest and highest finite number, 0 if there is none, and how many are not."""
    z = projections.float()
    finite = z.isfinite()
    z = torch.where(finite, z, 0.0)
    return torch.stack([z.min(), z.max(), (~finite).sum()])  # (3)


def image_names(data_batch: dict | None) -> list[str]:
    """Paths of a batch's images, or their numbers where they come from an array."""
    data_batch = data_batch or {}
    if 'sample_idx' in data_batch:  # made as a whole
        return [f'image {index}' for index in data_batch['sample_idx']]
    return [
        sample.get('img_path') or f'image {sample.get("sample_idx")}'
        for sample in data_batch.get('data_samples') or ()
    ]


def stop(runner: Runner, report: dict, by_epoch: bool) -> None:
    """Save a checkpoint and the report beside it, then end the run on all ranks.

    Args:
        runner: The runner; its model and optimizer are as after the last good step.
        report: Of :meth:`FirstBadStep.read`.
        by_epoch: Whether the run is at the end of an epoch.

    Raises:
        NotFiniteError: Always.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    folder = hook.out_dir if hook else runner.work_dir
    backend_args = hook.backend_args if hook else None
    name = f'non_finite_step_{report["step"]}'
    runner.save_checkpoint(folder, f'{name}.pth', by_epoch=by_epoch, backend_args=backend_args)
    file = fileio.join_path(folder, name, backend_args=backend_args)
    if dist.is_main_process():
        text = json.dumps(report, indent=1)
        fileio.put(text.encode(), f'{file}.json', backend_args=backend_args)
    dist.barrier()  # a rank that ends early would have the others killed
    raise NotFiniteError(_message(report, file))


def _message(report: dict, file: str) -> str:
    images = [name for rank in report['ranks'] for name in rank['images']]
    shown = ', '.join(images[:_NAMES_SHOWN]) or 'without names'
    if len(images) > _NAMES_SHOWN:
        shown += f' and {len(images) - _NAMES_SHOWN} more'
    return (
        f'step {report["step"]}: loss or gradient is not finite. Learning rate '
        f'{report["learning_rate"]:g}{_projections(report)}; images: {shown}. '
        f'{report["skipped_steps"]} step(s) were skipped. All names are in '
        f'{file}.json, a model without them in {file}.pth: lower the learning rate, '
        'lengthen the warm-up or look at the images, and go on from it, or from an '
        'earlier checkpoint, with --resume.'
    )


def _projections(report: dict) -> str:
    """Their range over all ranks, or nothing for a model that has none."""
    ranges = [rank.get('projections') for rank in report['ranks']]
    if None in ranges:
        return ''
    lowest = min(each['lowest'] for each in ranges)
    highest = max(each['highest'] for each in ranges)
    not_finite = sum(each['not_finite'] for each in ranges)
    return (
        f'; projections from {lowest:g} to {highest:g} and {not_finite:g} numbers '
        'that are not finite'
    )
