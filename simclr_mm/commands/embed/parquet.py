"""An embedded folder as one Parquet table."""

import json
from pathlib import Path

import numpy as np

from simclr_mm.commands.command_line.errors import require
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.walk import printable

from .embedding_record import ERRORS, damaged
from .retrieval import FeatureIndex

_ROWS = 16384  # of a row group


def write_parquet(directory: str | Path) -> Path:
    r"""Write ``features.parquet`` beside ``features.npy``, block by block.

    Columns: ``path``, ``feature`` (a list of C float32, null for an unreadable image)
    and ``error`` (the reason, null for a readable image). Parquet stores UTF-8 only: other
    bytes of a name become ``\xff``. The table's metadata have ``embedding.json`` under
    the key ``simclr_mm``.
    """
    require(('pyarrow',), '--parquet')
    import pyarrow as arrow
    from pyarrow.parquet import ParquetWriter

    index = FeatureIndex(directory)
    lines = (index.directory / ERRORS).read_text().splitlines()
    try:
        errors = {entry['row']: printable(entry['reason']) for entry in map(json.loads, lines)}
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(index.directory / ERRORS, 'is damaged') from error
    # Not of fixed size: pyarrow 25, the last for Python 3.10, cannot read nulls of that type.
    feature = arrow.list_(arrow.float32())
    width = index.features.shape[1]
    schema = arrow.schema(
        [('path', arrow.string()), ('feature', feature), ('error', arrow.string())],
        metadata={'simclr_mm': json.dumps(index.record)},
    )
    path = index.directory / 'features.parquet'
    with atomic_file(path) as file, ParquetWriter(file, schema) as writer:
        for start in range(0, len(index.features), _ROWS):
            block = index.features[start : start + _ROWS]  # (m, C)
            rows = range(start, start + len(block))
            reasons = arrow.array([errors.get(row) for row in rows], arrow.string())
            starts = arrow.array(width * np.arange(len(block) + 1, dtype=np.int32))
            features = arrow.ListArray.from_arrays(
                starts, arrow.array(block.reshape(-1)), mask=reasons.is_valid()
            )
            names = arrow.array([printable(index.names[row]) for row in rows])
            writer.write_table(arrow.table([names, features, reasons], schema=schema))
    return path
