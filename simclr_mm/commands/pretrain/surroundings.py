"""What a folder of images and a machine are like."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.device import get_device
from PIL import Image

from simclr_mm.cores import core_count
from simclr_mm.datasets.decoded_files import free_memory
from simclr_mm.datasets.image_folder import class_folders, class_names_of
from simclr_mm.engine.optim_wrapper import native_bf16
from simclr_mm.errors import UserError
from simclr_mm.files.walk import image_paths, walk_images

_LOOKED_AT = 200  # images that are opened
_GREY = 4  # of 256: JPEG makes small differences between the channels of a grey image
_FEW = 5  # images of a class, below which folders are no classes
_PARTS = (('train', 'val'), ('train', 'test'))


class Pictures(NamedTuple):
    """Images below a folder.

    Args:
        root: The folder, or that folder in it which holds all images.
        held_out: A folder with other images of the same classes, or None.
        number: Images in ``root``.
        sides: (shortest, median, longest) short side in pixels, of the images looked at.
        grey: Share of them without colours.
        classes: Images in each folder, if folders look like classes; else empty.
    """

    root: Path
    held_out: Path | None
    number: int
    sides: tuple[int, int, int]
    grey: float
    classes: dict[str, int]


class Machine(NamedTuple):
    """Where a training runs. Memory is in bytes: of the GPU, and free beside it, if known."""

    device: str  # 'cpu' or 'cuda'
    name: str
    gpu_memory: int
    free_memory: int | None
    cores: int
    numbers: str  # 'bf16, this CPU has AMX'


def look_at(folder: str | Path) -> Pictures:
    """Look at the images below a folder.

    Raises:
        UserError: There is no such folder, it has no image, or none of those looked at is one.
    """
    paths = image_paths(folder)
    root = Path(folder)
    held_out = None
    for part, other in _PARTS:
        if (root / part).is_dir() and (root / other).is_dir():
            if walk_images(root / part).paths and walk_images(root / other).paths:
                root, held_out = root / part, root / other
                break
    while held_out is None and len(class_names_of(str(root))) == 1:
        inside = root / class_names_of(str(root))[0]
        if len(walk_images(inside).paths) < len(paths):
            break
        root = inside
    files = class_folders([str(root)])
    sizes, grey = [], []
    rng = np.random.default_rng(0)
    for row in rng.permutation(len(files.paths))[:_LOOKED_AT]:
        try:
            with Image.open(files.paths[row]) as image:
                sizes.append(min(image.size))
                grey.append(_is_grey(image))
        except Exception:  # Pillow's errors are of every kind; training counts and names them
            continue
    if not sizes:
        raise UserError(f'{folder}: none of {min(len(paths), _LOOKED_AT)} images can be read')
    sides = int(min(sizes)), int(np.median(sizes)), int(max(sizes))
    classes = _classes(files.labels, files.classes)
    if held_out is not None and class_names_of(str(held_out)) != files.classes:
        classes = {}
    return Pictures(root, held_out, len(files.paths), sides, float(np.mean(grey)), classes)


def machine() -> Machine:
    """The device that PyTorch uses here, cores and memory."""
    found = get_device()
    device = 'cuda' if found == 'cuda' else 'cpu'
    native, reason = native_bf16(found)
    cores = core_count()
    gpu_memory, name = 0, f'{cores} cores, {"no GPU" if found == "cpu" else found.upper()}'
    if device == 'cuda':
        card = torch.cuda.get_device_properties(0)
        gpu_memory, name = card.total_memory, card.name
    numbers = f'{"bf16" if native else "float32"}, {reason}'
    return Machine(device, name, gpu_memory, free_memory(), cores, numbers)


def _classes(labels: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Images in each folder if every image is in one, and most folders have several."""
    counts = Counter(labels)
    if -1 in counts or len(counts) < 2 or min(counts.values()) < _FEW:
        return {}
    return {names[label]: number for label, number in sorted(counts.items())}


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ('L', '1', 'LA', 'I', 'I;16', 'F'):
        return True
    image.draft('RGB', (64, 64))  # a JPEG is decoded at an eighth of its size
    small = np.asarray(image.convert('RGB').resize((32, 32)), np.int16)
    return int(np.ptp(small, axis=2).max()) <= _GREY
