"""Groups of images: their numbers, an own split that keeps them whole, and positives from them.

N images of the dataset.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log

from simclr_mm.class_balance import draw_of_each_class
from simclr_mm.errors import UnreadableImage, UserError
from simclr_mm.transforms import TwoViews
from simclr_mm.transforms.random_streams import RandomStream, view_streams

from .image_table import column_of
from .sampler import SampleIndex
from .unreadable import DROPPED

ALONE = -1  # the number of every image that is in no group
_MATE = 2**34  # added to a view's number for the draw of its image; no view has it


def group_number(name: str | None) -> int:
    """A number for a group's name, the same in every dataset and run; -1 for no name."""
    if not name:
        return ALONE
    digest = hashlib.blake2b(name.encode(errors='surrogateescape'), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1  # 63 bits, so that it is not negative


def held_out(classes: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw images to hold out.

    Args:
        classes: (N,) name of each image's class; '' for none.
        groups: (N,) number of each image's group.
        share: In (0, 1).
        seed: Seed of the draw.

    Returns:
        (N,) bool. With groups, whole groups in a random order, as many as come nearest to the
        share, and at least one in each part if there are two. Without groups the share of each
        class, rounded.
    """
    if (groups == ALONE).all():
        labels = np.unique(classes, return_inverse=True)[1]
        rows = draw_of_each_class(labels, lambda size: int(share * size + 0.5), seed)
        return np.isin(np.arange(len(groups)), rows)
    # An image in no group is a unit by itself.
    units = np.where(groups == ALONE, -1 - np.arange(len(groups)), groups)
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    error = np.abs(sizes[order].cumsum() - share * len(groups))
    count = min(int(error.argmin()) + 1, max(1, len(sizes) - 1))
    return np.isin(unit, order[:count])


class GroupMates:
    """For each image, the others of its group that may be its positive.

    Args:
        groups: (N,) number of each image's group.
        times: (N,) when each image was taken, in any unit.
        window: The largest difference of times of an image and its mate. None: any.
    """

    def __init__(self, groups: np.ndarray, times: np.ndarray, window: float | None) -> None:
        self.rows = np.lexsort((times, groups))  # (N,) by group, and by time in it
        self.place = np.empty(len(groups), np.int64)
        self.place[self.rows] = np.arange(len(groups))
        ordered, when = groups[self.rows], times[self.rows]
        # The places [first, end) of each place's group, and within the window.
        self.first = np.searchsorted(ordered, ordered)
        self.end = np.searchsorted(ordered, ordered, side='right')
        self.first[ordered == ALONE] = np.flatnonzero(ordered == ALONE)
        self.end[ordered == ALONE] = np.flatnonzero(ordered == ALONE) + 1
        if window is not None and window < np.inf:
            window += 4 * np.spacing(max(np.abs(times).max(initial=0), window))  # 0.8 - 0.6 > 0.2
            for start in np.unique(self.first):
                part = slice(start, self.end[start])
                self.first[part] = start + np.searchsorted(when[part], when[part] - window)
                self.end[part] = start + np.searchsorted(when[part], when[part] + window, 'right')

    def alone(self) -> int:
        """Images without a mate."""
        return int((self.end - self.first == 1).sum())

    def draw(self, row: int, rng: RandomStream) -> int:
        """The row of one of the image's mates, or its own if it has none."""
        place = self.place[row]
        first, others = self.first[place], self.end[place] - self.first[place] - 1
        if not others:
            return row
        drawn = first + rng.integers(int(others))
        return int(self.rows[drawn + (drawn >= place)])


def groups_of_rows(file: str, images: int) -> np.ndarray:
    """(N,) the group of each image, from a file with a line for each in the order of a dataset.

    Raises:
        MissingFileError: There is no such file.
        UserError: It has another number of lines, or none names a group.
    """
    names = column_of(file, 'group')
    if len(names) != images:
        raise UserError(
            f'{file} has {len(names)} groups, but the dataset has {images} images: write one for '
            'each image, in its order; an empty one for an image in no group.'
        )
    groups = np.array([group_number(name) for name in names], np.int64)
    found = len(set(groups.tolist()) - {ALONE})
    if not found:
        raise UserError(f'{file} names no group: write names, or leave groups out.')
    print_log(
        f'{file}: {images} images by their order, {(groups != ALONE).sum()} in {found} groups',
        logger='current',
    )
    return groups


class GroupedImages(BaseDataset):
    """What datasets share whose images may have a ``group`` in their data info.

    Data samples get the metainfo ``group``. With positives='group' a view after the first shows
    another image of the group.
    """

    positives = 'image'
    window: float | None = None
    _mates: GroupMates | None = None

    def _set_positives(self, positives: str, window: float | None = None) -> None:
        if positives not in ('image', 'group'):
            raise UserError(
                f"{type(self).__name__}.positives is {positives!r}: write 'image' or 'group'."
            )
        self.positives, self.window = positives, window

    def full_init(self) -> None:
        super().full_init()
        self._set_mates()

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        super().get_subset_(indices)
        self._set_mates()

    def get_subset(self, indices: Sequence[int] | int) -> 'GroupedImages':
        subset = super().get_subset(indices)
        subset._set_mates()
        return subset

    def groups_of_images(self) -> np.ndarray:
        """(N,) the number of each image's group, -1 for none."""
        return np.array([self._facts(row).get('group', ALONE) for row in range(len(self))])

    def _facts(self, row: int) -> dict[str, Any]:
        """The data info of an image, without reading it."""
        return self.get_data_info(row)

    def _entering(self, idx: int) -> dict[str, Any]:
        """The results that enter the pipeline."""
        return self.get_data_info(idx)

    def _shown(self) -> str:
        return str(self.data_root)

    def _set_mates(self) -> None:
        """In the process that trains, before its workers start."""
        if self.positives != 'group' or not self._fully_initialized:
            return
        groups = self.groups_of_images()
        name = type(self).__name__
        if (groups == ALONE).all():
            raise UserError(
                f"{self._shown()}: {name}.positives = 'group', but no image has a group: give "
                + ('a table with the column group.' if name == 'ImageList' else 'groups=FILE.')
            )
        times = [self._facts(row).get('time', row) for row in range(len(self))]
        self._mates = GroupMates(groups, np.array(times, float), self.window)
        alone = self._mates.alone()
        if alone:
            line = f'{alone} of {len(groups)} images have no other one as positive'
            print_log(f'{self._shown()}: {line}', logger='current')

    def mate(self, idx: Any, v: int) -> int:
        """The row of the image that view v > 0 of an image shows, from the address of the view."""
        assert self._mates is not None  # positives='group'
        if not hasattr(idx, 'seed'):  # TwoViews warns of it
            return self._mates.draw(int(idx), RandomStream.unseeded())
        (stream,) = view_streams(idx.seed, idx.epoch, idx.place, _MATE + v, 1)
        return self._mates.draw(int(idx), stream)

    def entering(self, idx: int) -> dict[str, Any]:
        """The results that enter the pipeline, with the images of the other views of a group."""
        info = self._entering(idx)
        if self._mates is not None:
            info['imgs'] = self._images_of_views(idx)
        return info

    def prepare_data(self, idx: int) -> Any:
        info = self.entering(idx)
        group = info.get('group')
        sample = self.pipeline(info)
        if group is not None and sample is not None:
            sample['data_samples'].set_field(group, 'group', field_type='metainfo')
        return sample

    def _images_of_views(self, idx: int) -> list[np.ndarray | None]:
        """The images of the views, made by the transforms before TwoViews; None: its own."""
        steps = self.pipeline.transforms
        views = next((k for k, step in enumerate(steps) if isinstance(step, TwoViews)), None)
        if views is None:
            raise UserError(
                f"{type(self).__name__}.positives = 'group' needs simclr_mm.TwoViews in its "
                'pipeline.'
            )
        images: list[np.ndarray | None] = [None]
        for v in range(1, steps[views].num_views):
            address = self.mate(idx, v)
            if isinstance(idx, SampleIndex):  # with a place that no image has
                address = SampleIndex(address, idx.seed, idx.epoch, place=idx.place + (v << 40))
            made = Compose(steps[:views])(self._entering(address))
            if made is None:  # mmcv's mark of a dropped image
                raise UnreadableImage(f'image {int(address)} of its group: {DROPPED}')
            images.append(made['img'])
        return images
