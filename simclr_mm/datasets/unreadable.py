"""Replace unreadable training images, and report them."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mmengine.dataset import BaseDataset, ClassBalancedDataset
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from torch.utils.data import Dataset, Subset

from simclr_mm.registry import DATASETS
from simclr_mm.transforms import LoadImageFromFile, TwoViews, UnreadableImage
from simclr_mm.transforms.loading import LOADING_STEPS
from simclr_mm.transforms.random_streams import RandomStream, seeded_globals, view_streams

from .nested import members, transforms_of
from .sampler import SampleIndex

_ATTEMPTS = 100
_DRAW_NOTHING = (*LOADING_STEPS, 'PackInputs')  # steps of other packages

DROPPED = 'a transform of the pipeline dropped the image, by returning None'

# View numbers of draws that belong to no view. No view has them.
_WHOLE_PIPELINE = 2**32
_STAND_IN = 2**33


@DATASETS.register_module()
class ReplaceUnreadable(Dataset):
    """Return another image of the dataset for one that cannot be read.

    The choice is a function of (seed, epoch, image). The failed paths, and why, travel with the
    sample, as metainfo ``unreadable`` of its DataSample, to
    :class:`~simclr_mm.engine.UnreadableImageHook`, which logs and counts them.

    An image that a transform drops, by returning None, is replaced, too. Its path is empty.

    The training loops wrap every training dataset in it. The global generators are seeded for each
    image, unless only TwoViews and steps that do not draw from them are in the pipeline. So
    transforms of other packages are a function of seed, epoch and image, too.

    Args:
        dataset: A dataset, or its config, whose pipeline raises
            :class:`~simclr_mm.transforms.UnreadableImage` for an unreadable image.

    Raises:
        UnreadableImage: A hundred images in a row could not be read, or were dropped.
    """

    dataset: Any

    def __init__(self, dataset: dict | Dataset) -> None:
        if isinstance(dataset, dict):
            dataset = MMPRETRAIN_DATASETS.build(dataset)
        object.__setattr__(self, 'dataset', dataset)
        _keep_addresses(dataset)
        refuse_drops(dataset)
        if not self.batched and any(getattr(each, 'batched', 0) for each in members(dataset)):
            print_log(
                f'{type(dataset).__name__} asks its datasets for one image at a time: '
                'batched=True in them has no effect. Set num_workers instead.',
                logger='current',
                level=logging.WARNING,
            )

    @property
    def batched(self) -> bool:
        """Whether the dataset makes whole batches. Then its images are decoded already."""
        return getattr(self.dataset, 'batched', False)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not yet set: a copy is being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set attributes of the wrapped dataset. A pipeline goes to the datasets that have one."""
        if name == 'pipeline':
            _set_pipeline(self.dataset, value)
        else:
            setattr(self.dataset, name, value)

    def __getitems__(self, indices: Sequence[SampleIndex]) -> dict | list[dict]:
        """A whole batch if the dataset makes batches, else a list of samples."""
        if self.batched:
            return self.dataset.__getitems__(indices)
        return [self[index] for index in indices]

    def __getitem__(self, index: SampleIndex) -> dict:
        unreadable = []
        wanted = index
        for attempt in range(_ATTEMPTS):
            try:
                sample = self._read(wanted)
            except UnreadableImage as error:
                reason = str(error) if error.path else f'image {int(wanted)}: {error}'
                unreadable.append((error.path, reason))
                row = _stream(index, _STAND_IN + attempt).integers(len(self))
                # With a place that no image has: by the same numbers, a transform that drops
                # by chance would drop every stand-in.
                place = index.place + ((attempt + 1) << 51)
                wanted = SampleIndex(row, index.seed, index.epoch, place=place)
                continue
            if unreadable:
                sample['data_samples'].set_field(unreadable, 'unreadable', field_type='metainfo')
            return sample
        raise UnreadableImage(
            f'{_ATTEMPTS} images in a row could not be read, or were dropped; the last: '
            f'{unreadable[-1][1]}'
        )

    def _read(self, index: SampleIndex) -> dict:
        with seeded_pipeline(self.dataset, index):
            return self.dataset[index]


def seeded_pipeline(dataset: Any, index: SampleIndex) -> AbstractContextManager[None]:
    """Seed the global generators by an address, if steps of the dataset's pipeline need them."""
    transforms = transforms_of(dataset)
    others = [each for each in transforms if not isinstance(each, TwoViews)]
    if len(others) < len(transforms) and all(map(_draws_nothing_global, others)):
        return nullcontext()  # TwoViews gives every step its own numbers
    return seeded_globals(_stream(index, _WHOLE_PIPELINE))


def _draws_nothing_global(transform: Any) -> bool:
    ours = type(transform).__module__.partition('.')[0] == __name__.partition('.')[0]
    return ours or type(transform).__name__ in _DRAW_NOTHING


def refuse_drops(dataset: Any) -> None:
    """Raise UnreadableImage if a transform drops an image of a dataset, or of its members.

    MMEngine's datasets choose another one, which no seed determines.
    """
    if isinstance(dataset, BaseDataset):
        dataset._rand_another = _dropped
    for each in members(dataset):
        refuse_drops(each)


def _dropped() -> int:
    raise UnreadableImage(DROPPED)


class _Addressed(list):
    """Indices of another dataset. An index with seed and epoch gives another such index."""

    def __getitem__(self, index):
        found = super().__getitem__(index)
        return index.at(found) if isinstance(index, SampleIndex) else found


def _keep_addresses(dataset: Any) -> None:
    """Let datasets pass on seed and epoch where they look up an index, and unreadable files."""
    if isinstance(dataset, ClassBalancedDataset):
        dataset.full_init()
        dataset.repeat_indices = _Addressed(dataset.repeat_indices)
    elif isinstance(dataset, BaseDataset):
        for step in transforms_of(dataset):
            if isinstance(step, LoadImageFromFile):
                step.ignore_empty = False  # it would drop the file, without name and reason
    elif isinstance(dataset, Subset):
        dataset.indices = _Addressed(map(int, dataset.indices))
    for each in members(dataset):
        _keep_addresses(each)


def _set_pipeline(dataset: Any, pipeline: Any) -> None:
    inside = members(dataset)
    if not inside or 'pipeline' in vars(dataset):
        dataset.pipeline = pipeline
    for each in inside:
        _set_pipeline(each, pipeline)


def _stream(index: SampleIndex, drawn_for: int) -> RandomStream:
    (stream,) = view_streams(index.seed, index.epoch, index.place, drawn_for, 1)
    return stream
