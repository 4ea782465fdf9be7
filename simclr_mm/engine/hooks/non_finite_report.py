"""The report about a step that was not finite."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine import dist, fileio
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import Tensor

from simclr_mm.errors import NotFiniteError, listed


class Step(NamedTuple):
    """A step, taken or skipped, on this rank."""

    number: int  # in the log
    bad: Tensor  # bool without dimensions, on the device
    rate: float  # the learning rate
    images: list[str]  # their names
    projections: Tensor | None  # from range_of


def first_bad(steps: Sequence[Step]) -> dict | None:
    """The report of all ranks, on each rank. None if every step was good."""
    bad = torch.stack([step.bad for step in steps]).tolist() if steps else []
    if True not in bad:
        return None
    first = steps[bad.index(True)]
    rank: dict[str, object] = dict(images=first.images)
    if first.projections is not None:
        keys = ('lowest', 'highest', 'not_finite')
        rank['projections'] = dict(zip(keys, first.projections.tolist()))
    ranks = dist.all_gather_object(rank)
    return dict(step=first.number, learning_rate=first.rate, skipped_steps=sum(bad), ranks=ranks)


def range_of(projections: Tensor | None) -> Tensor | None:
    """Lowest and highest finite number (0 if there is none), and the count of the others; (3)."""
    if projections is None:
        return None
    z = projections.float()
    finite = z.isfinite()
    z = torch.where(finite, z, 0.0)
    return torch.stack([z.min(), z.max(), (~finite).sum()])


def image_names(data_batch: dict | None) -> list[str]:
    """Paths of a batch's images, or their indices if they come from an array."""
    data_batch = data_batch or {}
    if 'sample_idx' in data_batch:  # a whole batch from an array
        return [f'image {index}' for index in data_batch['sample_idx']]
    return [
        sample.get('img_path') or f'image {sample.get("sample_idx")}'
        for sample in data_batch.get('data_samples') or ()
    ]


def stop(runner: Runner, report: dict, by_epoch: bool) -> None:
    """Save a checkpoint and the report of :func:`first_bad`, then end the run on all ranks.

    The model and the optimizer are as after the last good step.

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
    dist.barrier()  # the first rank that ends gets the others killed
    raise NotFiniteError(_message(report, file))


def _message(report: dict, file: str) -> str:
    images = [name for rank in report['ranks'] for name in rank['images']]
    shown = listed(images) or 'without names'
    return (
        f'step {report["step"]}: loss or gradient is not finite. Learning rate '
        f'{report["learning_rate"]:g}{_projections(report)}; images: {shown}. '
        f'{report["skipped_steps"]} step(s) were skipped. All names are in {file}.json, the model '
        f'without these steps is in {file}.pth: check the images and repeat the command with '
        f'--resume {file}.pth, or lower the learning rate or lengthen the warm-up and start from '
        f'its weights, --cfg-options load_from={file}.pth.'
    )


def _projections(report: dict) -> str:
    """The range of the projections over all ranks. '' for a model without projections."""
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
