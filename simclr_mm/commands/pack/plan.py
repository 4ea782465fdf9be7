"""Which image goes into which shard, fixed before the first is written."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from simclr_mm.datasets import ImageFolder
from simclr_mm.datasets.lmdb_images import LIST
from simclr_mm.datasets.pack_index import INDEX, TAR_INDEX, UNREADABLE, WORK
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import PARTIAL, atomic_file
from simclr_mm.files.hashes import listing_hash

PLAN = 'plan.json'
# Globs of all that tools/pack.py writes, in any format.
_WRITTEN = (
    WORK,
    INDEX,
    TAR_INDEX,
    LIST,
    UNREADABLE,
    'shard-[0-9]*',
    'data.mdb',
    'lock.mdb',
    PARTIAL,
)


@dataclass(frozen=True)
class PackSettings:
    """What decides the bytes of a pack, besides its images.

    Attributes:
        format: One of ``pack_index.FORMATS``.
        short_side: Pixels to which the shorter side of a longer image is reduced, or
            None: files go in as they are.
        quality: JPEG quality of reduced images, 1 to 100.
        shard_images: Images in a shard.
    """

    format: str
    short_side: int | None = None
    quality: int = 90
    shard_images: int = 2000


@dataclass
class PackPlan:
    """The files of a folder, their labels and their shards.

    Attributes:
        root: The folder.
        paths: Relative to it, sorted.
        labels: One for each, or None.
        classes: Their names, or None.
        settings: As the user gave them.
    """

    root: Path
    paths: list[str]
    labels: list[int] | None
    classes: list[str] | None
    settings: PackSettings

    def shards(self, shuffled: bool) -> list[list[int]]:
        """Rows of each shard, sorted; dealt at random, always the same, or in order."""
        rows = np.arange(len(self.paths))
        if shuffled:
            np.random.default_rng(0).shuffle(rows)
        cuts = range(self.settings.shard_images, len(rows), self.settings.shard_images)
        return [sorted(part.tolist()) for part in np.split(rows, cuts)]

    def record(self) -> dict:
        """What has to be the same to go on with a pack."""
        return dict(
            settings=asdict(self.settings),
            classes=self.classes,
            labels=self.labels is not None,
            files=listing_hash(self.root, self.paths),
        )


def plan_pack(
    folder: str, settings: PackSettings, classes_file: str | None, labelled: bool
) -> PackPlan:
    """List a folder and find its classes.

    Args:
        folder: Class folders, or any images. The folders directly below it are classes,
            if no image lies beside them.
        settings: As the user gave them.
        classes_file: Class names, one a line, in the order of their labels; None: all
            folders, sorted.
        labelled: Whether to look for classes.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: There is no image, or a class that the file does not name.
    """
    found = ImageFolder(folder, lazy_init=True).load_data_list()
    paths = [os.path.relpath(info['img_path'], folder) for info in found]
    plan = PackPlan(Path(folder), paths, None, None, settings)
    folders = [path.split(os.sep)[0] if os.sep in path else None for path in paths]
    if not labelled or None in folders:
        if classes_file is not None:
            raise UserError(
                f'--classes {classes_file}: there are images outside of class folders in {folder}.'
            )
        return plan
    plan.classes = sorted(set(folders))
    if classes_file is not None:
        plan.classes = Path(classes_file).read_text().split('\n')
        plan.classes = [name.strip() for name in plan.classes if name.strip()]
        unknown = sorted(set(folders) - set(plan.classes))
        if unknown:
            raise UserError(
                f'--classes {classes_file} does not name '
                f'{", ".join(unknown[:10])}, folders of {folder}.'
            )
    label_of = {name: label for label, name in enumerate(plan.classes)}
    plan.labels = [label_of[name] for name in folders]
    return plan


def open_work(out: Path, record: dict, restart: bool) -> Path:
    """The folder of a pack's state, of this plan and no other.

    Args:
        out: Folder of the pack.
        record: ``PackPlan.record()``.
        restart: Remove the pack that is there.

    Returns:
        The folder. It does not exist where the pack is finished.

    Raises:
        ValueError: It holds something else.
    """
    work = out / WORK
    if restart and (work.is_dir() or (out / INDEX).is_file()):
        _remove_pack(out)
    state = work / PLAN
    if (out / INDEX).is_file():  # written last: the pack is whole
        state = out / INDEX
        shutil.rmtree(work, ignore_errors=True)
    if state.is_file():
        before = json.loads(state.read_text())['plan']
        different = [key for key in record if before.get(key) != record[key]]
        if different:
            raise UserError(
                f'{out} holds a pack of other {" and ".join(different)}: '
                f'{_difference(before, record)}name a new folder, or replace it with '
                '--restart.'
            )
        return work
    others = [path for path in out.iterdir() if path != work] if out.is_dir() else []
    if others:
        raise UserError(f'{out} is not empty and holds no pack: name a new folder.')
    work.mkdir(parents=True, exist_ok=True)
    with atomic_file(work / PLAN) as file:
        file.write(json.dumps(dict(plan=record), indent=1).encode())
    return work


def _remove_pack(out: Path) -> None:
    """Remove a pack, if nothing else has come to lie beside it."""
    others = [path.name for path in out.iterdir() if not any(map(path.match, _WRITTEN))]
    if others:
        raise UserError(
            f'--restart: {out} holds {", ".join(sorted(others)[:5])} '
            'beside the pack: move it away, or name a new folder.'
        )
    (out / INDEX).unlink(missing_ok=True)  # first: where it is, a pack is whole
    shutil.rmtree(out)


def _difference(before: dict, record: dict) -> str:
    changed = [
        f'{key} was {before["settings"].get(key)}, is {value}'
        for key, value in record['settings'].items()
        if before['settings'].get(key) != value
    ]
    return f'{", ".join(changed)}; ' if changed else ''
