"""Images from several folders, lists and tables of paths, with their classes and groups."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from simclr_mm.errors import UserError, listed
from simclr_mm.files.walk import printable
from simclr_mm.registry import DATASETS
from simclr_mm.transforms.loading import extensions_of

from .groups import ALONE, GroupedImages, group_number, held_out
from .image_table import Row, merged, rows_of


@DATASETS.register_module()
class ImageList(GroupedImages, BaseDataset):
    """The images of several places, in their order, each file once.

    Args:
        places: Folders, searched at any depth, and lists of paths: ``.txt`` with one path a
            line, or ``.csv`` and ``.parquet`` with the paths in the column ``path``. A ``.csv``
            without it has them in the first column. A relative path starts at the folder
            of its list. A table's columns ``label``, ``group``, ``split`` and ``time`` are read
            too; the class of an image in a folder is the folder right in the place.
        pipeline: Transforms of one sample.
        with_label: Samples have the class as label. Classes are sorted by name, or as numbers if
            all are. Images without a class are left out, and the log counts them.
        split: Take the images whose column ``split`` has this value. None: all.
        val_share: Make a split of one's own, in (0, 1): ``split`` is then 'val' for this share
            of the images, or 'train' for the others. A group is in one of them as a whole.
            Without groups, each class gives the share.
        seed: Seed of that split, >= 0.
        positives: 'image': all views show the image itself. 'group': views after the first
            show another image of its group, drawn for each view from (seed, epoch, image,
            view). An image alone in its group is its own positive.
        window: With 'group', the largest difference of the column ``time`` of an image and its
            positive, or, without this column, of their places among those used. None: any.
        **kwargs: As for mmpretrain's BaseDataset, for example ``indices``.

    Data samples have the metainfo ``group``, a number for the group's name (-1: none), if any image
    has a group.

    Raises:
        MissingFileError: A place or the first file of a list is missing.
        MissingPackageError: A Parquet table, and pyarrow is not installed.
        UserError: A folder or a list holds no image, no image is of the split or has a class, or
            'group' without groups or without TwoViews in the pipeline.
    """

    FIXED = ('ann_file',)  # given to the base class

    def __init__(
        self,
        places: Sequence[str],
        pipeline: Sequence[dict | Callable] = (),
        with_label: bool = False,
        split: str | None = None,
        val_share: float | None = None,
        seed: int = 0,
        positives: str = 'image',
        window: float | None = None,
        **kwargs,
    ) -> None:
        self._set_positives(positives, window)
        if window is not None and not (
            positives == 'group' and isinstance(window, Real) and window > 0
        ):
            raise UserError(
                f"ImageList.window = {window!r}: give a number above 0, with positives='group'."
            )
        if val_share is not None and (not 0 < val_share < 1 or split not in ('train', 'val')):
            raise UserError(
                f'ImageList.val_share = {val_share} with split = {split!r}: give a number '
                "between 0 and 1, and split='train' or 'val'."
            )
        self.places = list(places)
        self.with_label = with_label
        self.split = split
        self.val_share = val_share
        self.seed = seed
        super().__init__(ann_file='', pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list[dict]:
        extensions = extensions_of(self.pipeline.transforms)
        found = [row for place in self.places for row in rows_of(place, extensions)]
        if not self.with_label and self.val_share is None:  # what is not used cannot disagree
            found = [row._replace(label=None) for row in found]
        rows = merged(found)
        if len(rows) < len(found):
            self._log(f'{len(found) - len(rows)} images are named again and used once')
        classes = self._classes(rows)
        rows = self._part(rows)
        if self.with_label:
            labelled = [row for row in rows if row.label]
            if not labelled:
                raise UserError(
                    f'{self._shown()}: no image has a class: put images into folders of classes, '
                    'or give a table with the column label.'
                )
            if len(labelled) < len(rows):
                self._log(f'left out {len(rows) - len(labelled)} images without a class')
            rows = labelled
        grouped = any(row.group for row in rows)
        timed = self.positives == 'group' and any(row.time for row in rows)
        data = []
        for row in rows:
            entry: dict[str, Any] = dict(img_path=row.path)
            if self.with_label and row.label:
                entry['gt_label'] = classes[row.label]
            if grouped:
                entry['group'] = group_number(row.group)
            if timed:
                entry['time'] = _time(row)
            data.append(entry)
        return data

    def _classes(self, rows: list[Row]) -> dict[str, int]:
        """The number of each class, of all splits, so that they agree."""
        if not self.with_label:
            return {}
        found = {row.label for row in rows if row.label}
        numbers = all(name.isdecimal() for name in found)
        names = sorted(found, key=int if numbers else None)
        named = self._metainfo.setdefault('classes', tuple(names))
        unknown = sorted(found - set(named))
        if unknown:
            raise UserError(
                f'{self._shown()}: metainfo.classes of the dataset lacks {listed(unknown)}: name '
                'all classes, or leave it out.'
            )
        return {name: number for number, name in enumerate(named)}

    def _part(self, rows: list[Row]) -> list[Row]:
        """The rows of the split."""
        if self.val_share is not None:
            return self._own_part(rows, self.val_share)
        counts = Counter(row.split or 'none' for row in rows)
        splits = ', '.join(f'{count} {name}' for name, count in sorted(counts.items()))
        if self.split is None:
            if counts.keys() != {'none'}:
                self._log(f'images of all splits are used ({splits}); choose one with split=')
            return rows
        kept = [row for row in rows if row.split == self.split]
        if not kept:
            raise UserError(
                f'{self._shown()}: no image is of the split {self.split!r} ({splits}): choose '
                'another split, write the column split, or set val_share.'
            )
        self._log(f'{len(kept)} of {len(rows)} images are of the split {self.split} ({splits})')
        return kept

    def _own_part(self, rows: list[Row], share: float) -> list[Row]:
        if any(row.split for row in rows):
            self._log('the column split is ignored; to use it, name one of its splits')
        groups = np.array([group_number(row.group) for row in rows])
        classes = np.array([row.label or '' for row in rows])
        # The order of the table decides nothing.
        order = np.array(sorted(range(len(rows)), key=lambda number: rows[number].path))
        held = np.empty(len(rows), bool)
        held[order] = held_out(classes[order], groups[order], share, self.seed)
        kept = held if self.split == 'val' else ~held
        if not kept.any() or kept.all():
            raise UserError(
                f'{self._shown()}: val_share = {share} of {len(rows)} images leaves one part '
                'empty: give another share.'
            )
        units = f'{len(set(groups[held]) - {ALONE})} whole groups, ' * bool((groups >= 0).any())
        missing = sorted(set(classes) - set(classes[held]) - {''})
        untrained = sorted(set(classes) - set(classes[~held]) - {''})
        self._log(
            f'split of its own, seed {self.seed}: {units}{held.sum()} of {len(rows)} images '
            f'({held.mean():.1%}) are val, the others train; this is {self.split}'
            + (f'; no val image of the classes {listed(missing)}' if missing else '')
            + (f'; no other image of the classes {listed(untrained)}' if untrained else '')
        )
        return [row for row, keep in zip(rows, kept) if keep]

    def _log(self, line: str) -> None:
        print_log(f'{self._shown()}: {line}', logger='current')

    def _shown(self) -> str:
        return ', '.join(map(printable, self.places))


def _time(row: Row) -> float:
    with contextlib.suppress(ValueError):
        time = float(row.time or '')
        if math.isfinite(time):
            return time
    raise UserError(
        f'{row.path}: its time is {row.time!r}: write a number for every image, or leave '
        'the column time out.'
    )
