"""The files of an embedded folder, and the record of images and encoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import default_collate

from simclr_mm.apis.encoder import plain_data
from simclr_mm.apis.inference import FeatureInferencer, read_picture
from simclr_mm.errors import UserError
from simclr_mm.files.hashes import listing_hash
from simclr_mm.files.storage import is_url
from simclr_mm.version import __version__

from .images import Images

FEATURES = 'features.npy'
PARTIAL = 'features.partial.npy'  # until all rows are written
PATHS = 'paths.json'
ERRORS = 'errors.jsonl'
RECORD = 'embedding.json'

_MEANING = dict(
    weights='the weights',
    files='the images in the folder',
    transform='the transform',
    precision='the precision',
)
_NEEDED: dict[str, type] = dict(
    **dict.fromkeys(('images', 'rows_done', 'unreadable'), int),
    **dict.fromkeys(('folder', 'simclr_mm'), str),
    **dict.fromkeys(('origin', 'fingerprint'), dict),
)
_CONFIG = ('model', 'data_preprocessor', 'test_dataloader')  # parts that build an encoder


def new_record(
    inferencer: FeatureInferencer, images: Images, names: list[str], origin: dict[str, str] | None
) -> dict[str, Any]:
    """``embedding.json`` before the first row."""
    encoder, location = inferencer.encoder, images.location
    black = read_picture(np.zeros((64, 64, encoder.bands), np.uint8), inferencer.loading)
    folder, files = Path(location), names
    if images.is_pack and folder.is_dir():
        files = sorted(path.name for path in folder.iterdir())
    if images.is_pack and is_url(location):  # whose names are the same in another pack
        files = [*names, *images.images.storage()]
    return dict(
        folder=location if is_url(location) else str(folder.absolute()),
        pack=images.is_pack,
        images=len(names),
        width=inferencer.forward(default_collate([inferencer.transforms(black)])).shape[1],
        rows_done=0,
        unreadable=0,
        origin=origin or {},
        transform=encoder.transform(),
        config=plain_data({key: encoder.config.get(key) for key in _CONFIG}),
        fingerprint=dict(
            encoder.fingerprint(), files=listing_hash(folder, files), precision=inferencer.precision
        ),
        simclr_mm=__version__,
    )


def damaged(path: Path, problem: str) -> UserError:
    """The error for a file that ``simclr-mm embed`` did not write so."""
    return UserError(f'{path} {problem}: embed again with --restart')


def read_json(path: Path) -> Any:
    """The content of a file of an embedded folder. A damaged file is a UserError."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f'is damaged ({error})') from error


def read_record(out: Path) -> dict[str, Any] | None:
    """``embedding.json`` of a folder. None if there is none. A damaged one is a UserError."""
    path = out / RECORD
    if not path.is_file():
        return None
    record = read_json(path)
    settings = record if isinstance(record, dict) else {}
    wrong = [key for key, kind in _NEEDED.items() if not isinstance(settings.get(key), kind)]
    if 'fingerprint' not in wrong:
        wrong += [f'fingerprint.{key}' for key in _MEANING if key not in settings['fingerprint']]
    if wrong:
        raise damaged(path, f'is not what simclr-mm embed writes, without {", ".join(wrong)}')
    return settings


def earlier_progress(
    out: Path, fingerprint: dict[str, str], replace: bool = False
) -> dict[str, int]:
    """``rows_done`` and ``unreadable`` of an earlier call, or nothing if there are no rows.

    Rows of something else or of unknown origin are nothing where they may be replaced. Otherwise
    they are a UserError.
    """
    try:
        earlier = read_record(out)
    except UserError as error:
        if not replace:
            raise
        print(f'{out} is embedded anew: {str(error).partition(": embed")[0]}')
        return {}
    if earlier is None and replace:
        return {}
    if earlier is None and (out / FEATURES).exists():
        raise UserError(
            f'{out / FEATURES} exists without {RECORD}, so its content is unknown: '
            'give another --out, or overwrite it with --restart'
        )
    if earlier is None:
        return {}
    before = earlier['fingerprint']
    changed = [meaning for key, meaning in _MEANING.items() if before[key] != fingerprint[key]]
    if changed and replace:
        print(f'{out} is embedded anew: {" and ".join(changed)} changed since.')
        return {}
    if changed:
        version = earlier['simclr_mm']
        by = '' if version == __version__ else f' They were written by simclr_mm {version}.'
        raise UserError(
            f'{out} holds {earlier["rows_done"]} of {earlier["images"]} rows of '
            f'something else: {" and ".join(changed)} changed since.{by} Give another '
            '--out, or embed everything again with --restart'
        )
    if not (out / FEATURES).exists() and not (out / PARTIAL).exists():
        return {}  # the rows were deleted
    return {key: earlier[key] for key in ('rows_done', 'unreadable')}
