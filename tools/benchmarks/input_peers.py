"""Two views of a photograph, as other packages make them.

Each package has its SimCLR default: 224 pixels, colour strength 1, blur. It is imported
when its function is called. Each function returns one that takes a file's path.
"""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

SIDE = 224
_JITTER, _GRAY, _BLUR = 0.8, 0.2, 0.5  # probabilities


def imagenet_simclr() -> Config:
    """mmpretrain's own config of SimCLR's data.

    Its hue needs onedl-mmcv or NumPy 1: in mmcv 2.1, negative factors overflow under NumPy 2.
    """
    import mmpretrain

    base = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / '_base_'
    return Config.fromfile(base / 'datasets' / 'imagenet_bs32_simclr.py')


def mmpretrain() -> Callable:
    from mmengine.dataset import Compose

    pipeline = Compose(imagenet_simclr().train_pipeline)
    return lambda path: pipeline(dict(img_path=path))


def lightly() -> Callable:
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=SIDE)
    return lambda path: transform(Image.open(io.BytesIO(Path(path).read_bytes())).convert('RGB'))


def _rgb(path: str) -> np.ndarray:
    img = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(img, cv2.COLOR_BGR2RGB)


def _two(decode: Callable, view: Callable) -> Callable:
    """Decode a file once and draw two views of it."""

    def views(path: str) -> list:
        img = decode(path)
        return [view(img) for _ in range(2)]

    return views


def albumentations() -> Callable:
    """With OpenCV's decoder, and one image as a NumPy array, its fastest form."""
    import albumentations as A

    wide, hue = (0.2, 1.8), (-0.2, 0.2)
    view = A.Compose(
        [
            A.RandomResizedCrop((SIDE, SIDE), scale=(0.08, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=wide, contrast=wide, saturation=wide, hue=hue, p=_JITTER),
            A.ToGray(p=_GRAY),
            A.GaussianBlur(blur_limit=(23, 23), sigma_limit=(0.1, 2.0), p=_BLUR),
            A.ToTensorV2(),
        ]
    )
    return _two(_rgb, lambda img: view(image=img)['image'])


def torchvision() -> Callable:
    """With tensors and torchvision.transforms.v2 from the decoder on."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    view = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=_JITTER),
            v2.RandomGrayscale(p=_GRAY),
            v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=_BLUR),
        ]
    )

    def decode(path: str) -> torch.Tensor:
        data = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
        return decode_image(data, ImageReadMode.RGB)

    return _two(decode, view)


def kornia() -> Callable:
    """With float32 tensors, one image at a time as in a loader's worker."""
    import kornia.augmentation as K

    view = K.AugmentationSequential(
        K.RandomResizedCrop((SIDE, SIDE), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=_JITTER),
        K.RandomGrayscale(p=_GRAY),
        K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=_BLUR),
    )

    def decode(path: str) -> torch.Tensor:
        return torch.from_numpy(_rgb(path)).permute(2, 0, 1)[None].float().div_(255)

    return _two(decode, lambda img: view(img)[0])  # (3, S, S) of (1, 3, H, W)


# Name in the table: (factory, distributions whose versions are shown).
PEERS = {
    'mmpretrain': (mmpretrain, ('mmpretrain', 'mmcv')),
    'lightly': (lightly, ('lightly', 'torchvision')),
    'albumentations': (albumentations, ('albumentations', 'albucore')),
    'torchvision v2': (torchvision, ('torchvision',)),
    'kornia': (kornia, ('kornia',)),
}
