"""The plan of a pack: the shard of each image."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simclr_mm.datasets.lmdb_images import LIST
from simclr_mm.datasets.pack_index import INDEX, TAR_INDEX, UNREADABLE, WORK
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import PARTIAL, alone_in, write_text
from simclr_mm.files.hashes import listing_hash
from simclr_mm.files.walk import BROKEN, EXTENSIONS, images_below

PLAN, LOCK = 'plan.json', f'{WORK}/lock'
# Globs of everything that simclr-mm pack writes, in any format.
_WRITTEN = (
    *(WORK, INDEX, TAR_INDEX, LIST, UNREADABLE, PARTIAL),
    *('shard-[0-9]*', 'data.mdb', 'lock.mdb'),
)


@dataclass(frozen=True)
class PackSettings:
    """The settings that, with the images, determine the bytes of a pack."""

    format: str  # one of pack_index.FORMATS
    short_side: int | None = None  # pixels, of larger images; None: keep all files unchanged
    quality: int = 90  # of JPEG, 1 to 100, for reduced images
    shard_images: int = 2000  # images in a shard


@dataclass
class PackPlan:
    """The files of a folder, their labels and their shards."""

    root: Path
    paths: list[str]  # relative to the root, sorted
    broken: list[str]  # broken links with names of images, in the same form
    settings: PackSettings
    labels: Sequence[int | None]  # of the paths
    classes: list[str] | None = None  # None: no labels

    def shards(self, shuffled: bool) -> list[list[int]]:
        """Sorted rows of each shard: in a fixed random order, or in the order of the folder."""
        rows = np.arange(len(self.paths))
        if shuffled:
            np.random.default_rng(0).shuffle(rows)
        cuts = range(self.settings.shard_images, len(rows), self.settings.shard_images)
        return [sorted(part.tolist()) for part in np.split(rows, cuts)]

    def record(self) -> dict[str, Any]:
        """The settings and files that must stay the same when packing continues."""
        return dict(
            settings=asdict(self.settings),
            classes=self.classes,
            labels=self.classes is not None,
            files=listing_hash(self.root, self.paths),
        )


def plan_pack(
    folder: str, settings: PackSettings, classes_file: str | None, labelled: bool
) -> PackPlan:
    """List a folder and find its classes, if ``labelled``.

    The folders directly below it are classes, if no image lies beside them. ``classes_file``
    has class names, one a line, in the order of their labels. Without it, the classes are all
    folders that hold images, sorted.
    """
    found = images_below(folder)
    broken = [
        path for path in found.passed_over.get(BROKEN, []) if path.lower().endswith(EXTENSIONS)
    ]
    paths = [os.path.relpath(path, folder) for path in found.paths]
    links = sorted(os.path.relpath(path, folder) for path in broken)
    plan = PackPlan(Path(folder), paths, links, settings, [None] * len(paths))
    folders = [path.split(os.sep)[0] for path in paths if os.sep in path]
    if not labelled or len(folders) < len(paths):
        if classes_file is not None:
            raise UserError(
                f'--classes {classes_file}: there are images outside of class folders in {folder}.'
            )
        return plan
    plan.classes = _class_names(classes_file, sorted(set(folders)), folder)
    label_of = {name: label for label, name in enumerate(plan.classes)}
    plan.labels = [label_of[name] for name in folders]
    return plan


def _class_names(file: str | None, folders: list[str], root: str) -> list[str]:
    if file is None:
        return folders
    lines = Path(file).read_text('utf-8', errors='surrogateescape').split('\n')
    names = [line.strip() for line in lines if line.strip()]
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise UserError(
            f'--classes {file} does not name {", ".join(unknown[:10])}, folders of {root}.'
        )
    if len(set(names)) < len(names):
        raise UserError(f'--classes {file} names a class twice: write each name once.')
    return names


def open_work(out: Path, record: dict[str, Any], restart: bool) -> Path:
    """The folder of a pack's state, for this plan only.

    It does not exist if the pack is finished. A folder with other content is refused.
    """
    work = out / WORK
    if restart and (work.is_dir() or (out / INDEX).is_file()):
        _remove_pack(out)
    state = work / PLAN
    if (out / INDEX).is_file():  # written last, so the pack is complete
        state = out / INDEX
        shutil.rmtree(work, ignore_errors=True)
    if state.is_file():
        try:
            before = dict(json.loads(state.read_text())['plan'])
            before['settings'] = dict(before['settings'])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f'{state} is damaged: pack anew with --restart') from error
        _require_same(out, before, record)
        return work
    if out.is_dir() and any(path != work for path in out.iterdir()):
        raise UserError(f'{out} is not empty and holds no pack: name a new folder.')
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / PLAN, json.dumps(dict(plan=record), indent=1))
    return work


def _remove_pack(out: Path) -> None:
    """Remove a pack, unless there are other files in its folder, or somebody packs there."""
    others = [path.name for path in out.iterdir() if not any(map(path.match, _WRITTEN))]
    if others:
        raise UserError(
            f'--restart: {out} holds {", ".join(sorted(others)[:5])} '
            'beside the pack: move these files away, or name a new folder.'
        )
    work = out / WORK
    work.mkdir(exist_ok=True)
    with alone_in(out, LOCK):
        (out / INDEX).unlink(missing_ok=True)  # first, because it marks a complete pack
        for path in out.iterdir():
            if path != work:
                path.unlink()
        shutil.rmtree(work, ignore_errors=True)  # NFS keeps the lock, which is open


def _require_same(out: Path, before: dict[str, Any], record: dict[str, Any]) -> None:
    different = [key for key in record if before.get(key) != record[key]]
    if not different:
        return
    changes = ''.join(
        f'{key} was {before["settings"].get(key)}, is {value}; '
        for key, value in record['settings'].items()
        if before['settings'].get(key) != value
    )
    raise UserError(
        f'{out} holds a pack of other {" and ".join(different)}: {changes}'
        'name a new folder, or replace it with --restart.'
    )
