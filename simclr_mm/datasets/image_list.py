"""Images from several folders and lists of paths, without labels."""

import csv
import os
from collections.abc import Callable, Sequence

from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.walk import image_paths, printable
from simclr_mm.registry import DATASETS

LISTS = ('.txt', '.csv')  # endings of files that list paths


@DATASETS.register_module()
class ImageList(BaseDataset):
    """Every image of several places, in their order, each file once, without labels.

    Args:
        places: Folders, searched at any depth, and lists of paths: ``.txt`` with one path a
            line, or ``.csv`` with the paths in the column ``path`` or, without it, in the
            first column. A relative path starts at the folder of its list.
        pipeline: Transforms of one sample.
        **kwargs: As for mmpretrain's BaseDataset, for example ``indices``.

    Raises:
        MissingFileError: A place or the first file of a list is missing.
        UserError: A folder or a list holds no image.
    """

    FIXED = ('ann_file',)  # given to the base class

    def __init__(
        self, places: Sequence[str], pipeline: Sequence[dict | Callable] = (), **kwargs
    ) -> None:
        self.places = list(places)
        super().__init__(ann_file='', pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list[dict]:
        paths = [
            path
            for place in self.places
            for path in (_listed(place) if is_list(place) else image_paths(place))
        ]
        once = {os.path.abspath(path): path for path in paths}
        if len(once) < len(paths):
            print_log(
                f'{", ".join(map(printable, self.places))}: {len(paths) - len(once)} images '
                'are named again and used once',
                logger='current',
            )
        return [dict(img_path=path) for path in once.values()]


def is_list(place: str) -> bool:
    """Whether a place is read as a list of paths."""
    return place.lower().endswith(LISTS) and not os.path.isdir(place)


def _listed(file: str) -> list[str]:
    """The paths in a list."""
    if not os.path.isfile(file):
        raise MissingFileError(f'there is no list {os.path.abspath(file)}: name another file.')
    # File names may hold any bytes. Some programs write a byte order mark first.
    with open(file, encoding='utf-8-sig', errors='surrogateescape', newline='') as lines:
        if file.lower().endswith('.csv'):
            try:
                rows = [row for row in csv.reader(lines) if row]
            except csv.Error as error:
                raise UserError(f'{file} is no table of paths: {error}') from error
            column = rows[0].index('path') if rows and 'path' in rows[0] else None
            rows = rows if column is None else rows[1:]
            names = [row[column or 0] for row in rows if len(row) > (column or 0)]
        else:
            names = [line.rstrip('\r\n') for line in lines]
    names = [name for name in names if name.strip()]
    if not names:
        raise UserError(f'{file} names no image: write one path a line.')
    paths = [os.path.join(os.path.dirname(file), name) for name in names]
    if not os.path.isfile(paths[0]):
        raise MissingFileError(
            f'{file}: the first path in it is no file: {paths[0]!r}. Write whole paths or '
            'paths from the folder of the list; in a .csv file name their column path.'
        )
    return paths
