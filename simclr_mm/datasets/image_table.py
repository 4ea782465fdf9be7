"""What a folder, a list or a table of paths says of each image."""

import csv
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.installed import optional_package
from simclr_mm.files.storage import is_url
from simclr_mm.files.walk import EXTENSIONS, image_paths

LISTS = ('.txt', '.csv', '.parquet')  # endings of files that list paths


class Row(NamedTuple):
    """One image: its path, and what is known of it. None: nothing is said."""

    path: str
    label: str | None = None  # the name of its class
    group: str | None = None  # of the patient, slide, clip, ...
    split: str | None = None
    time: str | None = None  # a number


def is_list(place: str) -> bool:
    """Whether a place is read as a list of paths. Files on the web are shards."""
    return place.lower().endswith(LISTS) and not is_url(place) and not os.path.isdir(place)


def rows_of(place: str, extensions: Sequence[str] = EXTENSIONS) -> list[Row]:
    """The images of a folder, with the folders right in it as classes, or of a list.

    ``extensions`` are the endings of images in a folder. A list may name any file.

    Raises:
        MissingFileError: The place or the first file of a list is missing.
        UserError: It names no image, or is no table.
    """
    if not is_list(place):
        below = len(os.path.join(place, ''))
        paths = image_paths(place, extensions)
        parts = ((path, path[below:].split(os.sep)) for path in paths)
        return [Row(path, part[0] if len(part) > 1 else None) for path, part in parts]
    if not os.path.isfile(place):
        raise MissingFileError(f'there is no list {os.path.abspath(place)}: name another file.')
    rows = _parquet_rows(place) if place.lower().endswith('.parquet') else _text_rows(place)
    rows = [row for row in rows if row.path.strip()]
    if not rows:
        raise UserError(f'{place} names no image: write one path a line.')
    folder = os.path.dirname(place)
    rows = [row._replace(path=os.path.join(folder, row.path)) for row in rows]
    if not os.path.isfile(rows[0].path):
        raise MissingFileError(
            f'{place}: the first path in it is no file: {rows[0].path!r}. Write whole paths or '
            'paths from the folder of the list; in a .csv file name their column path.'
        )
    return rows


def _text_rows(file: str) -> list[Row]:
    # File names may hold any bytes. Some programs write a byte order mark first.
    with open(file, encoding='utf-8-sig', errors='surrogateescape', newline='') as lines:
        if not file.lower().endswith('.csv'):
            return [Row(line.rstrip('\r\n')) for line in lines]
        try:
            table = _unpadded([row for row in csv.reader(lines) if row])
        except csv.Error as error:
            raise UserError(f'{file} is no table of paths: {error}') from error
    if not table or 'path' not in table[0]:
        return [Row(row[0]) for row in table]
    header, *table = table
    places = {name: header.index(name) for name in Row._fields if name in header}
    rows = [row for row in table if len(row) > places['path']]
    columns = {}
    for name, place in places.items():
        texts = [row[place] if place < len(row) else '' for row in rows]
        columns[name] = texts if name == 'path' else _without_points(texts)
    return [Row(**dict(zip(columns, values))) for values in zip(*columns.values())]


def _unpadded(table: list[list[str]]) -> list[list[str]]:
    """A table without the spaces around its cells, if its header has some: ``path, group``."""
    if table and any(name != name.strip() for name in table[0]):
        return [[cell.strip() for cell in row] for row in table]
    return table


def _without_points(texts: list[str]) -> list[str]:
    """Names that are whole numbers: with gaps, other programs write 7.0 for 7."""
    if all(re.fullmatch(r'(-?\d+(\.0)?)?', text) for text in texts):
        return [text.removesuffix('.0') for text in texts]
    return texts


def _parquet_rows(file: str) -> list[Row]:
    optional_package('pyarrow', 'parquet', file)
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        table = ParquetFile(file)
        names = [name for name in Row._fields if name in table.schema_arrow.names]
        if 'path' not in names:
            raise UserError(
                f'{file} has no column path, only {", ".join(table.schema_arrow.names)}: name '
                'the column of paths so. For images packed in Parquet give their folder.'
            )
        columns = table.read(columns=names).to_pydict()
    except (ArrowException, OSError) as error:
        raise UserError(f'{file} is no Parquet table: {error}') from error
    texts = ([_text(value) for value in columns[name]] for name in names)
    return [Row(**dict(zip(names, values))) for values in zip(*texts)]


def _text(value: object) -> str | None:
    """A cell as text. Numbers with gaps become floating-point: 3.0 is the name 3."""
    if isinstance(value, float) and value == value and value.is_integer():
        value = int(value)
    return '' if value is None or value != value else str(value)


def column_of(file: str, name: str) -> list[str]:
    """A column of a table, one text a line: ``.csv``, ``.parquet``, ``.npy``, or lines of text.

    Raises:
        MissingFileError: There is no such file.
        UserError: It cannot be read, or has no such column.
    """
    if not os.path.isfile(file):
        raise MissingFileError(f'there is no file {os.path.abspath(file)}: name another one.')
    ending = file.lower().rpartition('.')[2]
    try:
        if ending == 'npy':
            return [_text(value) or '' for value in np.load(file).ravel().tolist()]
        if ending == 'parquet':
            optional_package('pyarrow', 'parquet', file)
            from pyarrow.parquet import read_table

            return [
                _text(value) or '' for value in read_table(file, columns=[name])[name].to_pylist()
            ]
        with open(file, encoding='utf-8-sig', errors='surrogateescape', newline='') as lines:
            if ending == 'csv':
                head, *rows = _unpadded(list(csv.reader(lines))) or [[]]
                if name not in head:
                    raise KeyError(name)
                place = head.index(name)
                # Only in a file of one column is an empty line a text.
                texts = [row for row in rows if row or len(head) == 1]
                return _without_points([row[place] if place < len(row) else '' for row in texts])
            return [line.rstrip('\r\n') for line in lines]
    except KeyError as error:
        raise UserError(f'{file} has no column {name}: name one so.') from error
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).partition('\n')[0]  # pyarrow adds its own columns
        raise UserError(f'{file} is no table with the column {name}: {reason}') from error


def merged(rows: Sequence[Row]) -> list[Row]:
    """Each file once, at its first place, with all that is said of it.

    Raises:
        UserError: Two rows say something different of one file.
    """
    once: dict[str, Row] = {}
    for row in rows:
        key = os.path.abspath(row.path)
        first = once.setdefault(key, row)
        for name, old, new in zip(Row._fields[1:], first[1:], row[1:]):
            if old and new and old != new:
                raise UserError(
                    f'{row.path} is named twice, with the {name} {old!r} and {new!r}: name it '
                    'once, or write one of them.'
                )
        if row is not first:
            said = [old or new for old, new in zip(first[1:], row[1:])]
            once[key] = Row(first.path, *said)
    return list(once.values())
