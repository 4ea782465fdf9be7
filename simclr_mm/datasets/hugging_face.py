"""Images in Parquet or Arrow files, read with Hugging Face's ``datasets``."""

import glob
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.installed import optional_package
from simclr_mm.files.storage import is_url
from simclr_mm.registry import DATASETS
from simclr_mm.transforms.to_rgb import unreadable

from .pack_index import read_index, require_whole
from .stored_images import StoredImages

_HUB = 'hf://'


@DATASETS.register_module()
class HuggingFaceImages(StoredImages):
    """Images in a column of a table that ``datasets`` maps into memory.

    ``datasets`` converts Parquet files once to Arrow files of the same size in its cache
    (``HF_HOME``).

    Args:
        data_root: A folder of ``*.parquet`` or ``*.arrow`` files, a folder written by
            ``save_to_disk``, the URL of a Parquet file, or ``hf://NAME`` for a dataset on the hub.
        split: The split of a dataset on the hub or of splits from ``save_to_disk``; None:
            ``train``. Other data have no splits and refuse one.
        image_column: Column of encoded images: bytes, or a dict of ``bytes`` and ``path``,
            as the feature ``Image`` stores them.
        label_column: Column of class numbers, read if ``with_label``.
        **kwargs: As for :class:`StoredImages`.

    Raises:
        MissingPackageError: datasets is not installed.
        MissingFileError: There are no such files.
        UserError: There is no such column or split, a column holds something else, or
            ``datasets`` cannot read the files.
    """

    def __init__(
        self,
        data_root: str | Path,
        split: str | None = None,
        image_column: str = 'image',
        label_column: str = 'label',
        **kwargs,
    ) -> None:
        self.split = split
        self.image_column = image_column
        self.label_column = label_column
        super().__init__(data_root=data_root, **kwargs)

    def storage(self) -> list[str]:
        remote = not Path(self.data_root).exists()
        return [self.table._fingerprint] if remote else super().storage()

    def find(self) -> tuple[np.ndarray | None, list[str] | None, int]:
        datasets = optional_package('datasets', 'parquet', type(self).__name__)
        try:
            table = self._load(datasets)
        except UserError:
            raise
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            reason = error.__cause__ or error
            file = str(getattr(reason, 'filename', None) or '')
            if isinstance(reason, OSError) and file.startswith(str(datasets.config.HF_CACHE_HOME)):
                raise UserError(
                    f'datasets cannot write its cache {file} ({reason.strerror}): name another '
                    'folder with HF_HOME'
                ) from error
            raise UserError(f'{self.data_root} is no table of images: {reason}') from error
        if self.image_column not in table.column_names:
            raise UserError(
                f'{self.data_root} has no column {self.image_column!r}, only '
                f'{", ".join(table.column_names)}: rename one, or set image_column.'
            )
        kind = table.features[self.image_column]
        if isinstance(kind, datasets.Image):
            table = table.cast_column(self.image_column, datasets.Image(decode=False))
        elif not (
            'bytes' in kind
            if isinstance(kind, dict)
            else getattr(kind, 'dtype', '') in ('binary', 'large_binary')
        ):
            raise UserError(
                f'{self.data_root}: column {self.image_column!r} holds {kind} and no encoded '
                'images: set another image_column.'
            )
        self.table = table.select_columns([self.image_column])
        if self.label_column not in table.column_names:
            if self.with_label:
                raise UserError(
                    f'{self.data_root} has no column {self.label_column!r}, only '
                    f'{", ".join(table.column_names)}: give label_column, or with_label=False.'
                )
            return None, None, len(table)
        kind = table.features[self.label_column]
        classes = getattr(kind, 'names', None)
        return self._labels(table, kind) if self.with_label else None, classes, len(table)

    def _labels(self, table: Any, kind: Any) -> np.ndarray | None:
        if 'int' not in getattr(kind, 'dtype', ''):
            raise UserError(
                f'{self.data_root}: column {self.label_column!r} holds {kind} and no numbers of '
                'classes: give label_column, or with_label=False.'
            )
        column = table.data.column(self.label_column)
        return None if column.null_count else column.to_numpy().astype(np.int64)

    def name(self, row: int) -> str:
        return f'{self.data_root}/row {row}'

    def read(self, row: int) -> bytes:
        value = self.table[row][self.image_column]
        content, path = value, None
        if isinstance(value, dict):
            content, path = value['bytes'], value.get('path')
        if content is None and path is not None and Path(path).is_file():
            content = Path(path).read_bytes()
        if content is None:
            raise unreadable(self.name(row), 'there is no image.')
        return content

    def _load(self, datasets: ModuleType) -> Any:
        """The table of ``datasets``, for every kind of data_root."""
        if self.data_root.startswith(_HUB):
            return datasets.load_dataset(self.data_root[len(_HUB) :], split=self.split or 'train')
        if is_url(self.data_root):
            self._refuse_split()
            files = [self.data_root]
        else:
            folder = Path(self.data_root)
            if (folder / 'dataset_dict.json').is_file():
                splits = datasets.load_from_disk(str(folder))
                split = self.split or 'train'
                if split not in splits:
                    raise UserError(
                        f'{folder} has no split {split!r}, only {", ".join(splits)}: give split.'
                    )
                return splits[split]
            self._refuse_split()
            if (folder / 'state.json').is_file():
                return datasets.load_from_disk(str(folder))
            pack = read_index(folder)
            if pack is not None:
                require_whole(folder, pack)
            parquet, arrow = (sorted(folder.glob(f'*.{kind}')) for kind in ('parquet', 'arrow'))
            if parquet and arrow:
                raise UserError(f'{folder} holds *.parquet and *.arrow: give a folder of one kind.')
            files = [glob.escape(str(file)) for file in parquet or arrow]  # they are patterns there
        if not files:
            raise MissingFileError(
                f'{Path(self.data_root).absolute()} holds neither *.parquet nor '
                '*.arrow: give their folder as data_root.'
            )
        kind = 'arrow' if files[0].endswith('.arrow') else 'parquet'
        return datasets.load_dataset(kind, data_files=files, split='train')

    def _refuse_split(self) -> None:
        if self.split is not None:
            raise UserError(
                f'{self.data_root} has no splits: leave split={self.split!r} out, and give the '
                'place of the images that you mean as data_root.'
            )
