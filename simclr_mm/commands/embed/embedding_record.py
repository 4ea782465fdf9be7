"""The files of an embedded folder, and the note of what was embedded how."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import default_collate

from simclr_mm.apis.fingerprint import files_hash, transform_hash, transform_of, weights_hash
from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.errors import UserError
from simclr_mm.files.walk import EXTENSIONS
from simclr_mm.version import __version__

FEATURES = 'features.npy'
PARTIAL = 'features.partial.npy'  # until the last row is there
PATHS = 'paths.json'
ERRORS = 'errors.jsonl'
RECORD = 'embedding.json'

_MEANING = dict(
    weights='the weights',
    files='the images in the folder',
    transform='the transform',
    precision='the precision',
)


def new_record(
    inferencer: FeatureInferencer, folder: Path, paths: list[str], origin: dict[str, str] | None
) -> dict[str, Any]:
    """``embedding.json`` before the first row.

    Args:
        inferencer: The encoder.
        folder: What is embedded.
        paths: Its images, relative to it.
        origin: Where the weights come from.
    """
    files = sum(len(names) for _, _, names in os.walk(folder, followlinks=True))
    black = default_collate([inferencer.pipeline(np.zeros((64, 64, 3), np.uint8))])
    return dict(
        folder=str(folder.absolute()),
        images=len(paths),
        width=inferencer.forward(black).shape[1],
        rows_done=0,
        unreadable=0,
        passed_over=files - len(paths),
        image_endings=list(EXTENSIONS),
        origin=origin or {},
        transform=transform_of(inferencer.model),
        fingerprint=dict(
            weights=weights_hash(inferencer.model),
            files=files_hash(folder, paths),
            transform=transform_hash(inferencer.model),
            precision=inferencer.precision,
        ),
        simclr_mm=__version__,
    )


def read_record(out: Path) -> dict[str, Any] | None:
    """``embedding.json`` of a folder, None where there is none."""
    path = out / RECORD
    return json.loads(path.read_text()) if path.is_file() else None


def earlier_progress(out: Path, fingerprint: dict[str, str]) -> dict[str, int]:
    """How far an earlier call came.

    Args:
        out: Folder of the results.
        fingerprint: What features depend on, as in :func:`new_record`.

    Returns:
        ``rows_done`` and ``unreadable``, or nothing where there are no rows.

    Raises:
        ValueError: the rows there are of something else, or nobody knows of what.
    """
    earlier = read_record(out)
    if earlier is None:
        if (out / FEATURES).exists():
            raise UserError(
                f'{out / FEATURES} exists and {RECORD} does not, so it is '
                'not known what it holds: give another --out, or '
                'overwrite it with --restart'
            )
        return {}
    changed = [
        meaning
        for key, meaning in _MEANING.items()
        if earlier['fingerprint'][key] != fingerprint[key]
    ]
    if changed:
        raise UserError(
            f'{out} holds {earlier["rows_done"]} of {earlier["images"]} rows of '
            f'something else: {" and ".join(changed)} changed since. Give another '
            '--out, or embed everything anew with --restart'
        )
    if not (out / FEATURES).exists() and not (out / PARTIAL).exists():
        return {}  # somebody deleted the rows
    return {key: earlier[key] for key in ('rows_done', 'unreadable')}
