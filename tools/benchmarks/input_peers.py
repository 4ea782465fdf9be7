"""Two views of a photograph as other packages make them, whole and stage by stage.

Each as its SimCLR default has it: 224 pixels, colour strength 1, blur. The packages are
imported when their function is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

SIDE = 224
FACTORS = dict(brightness=1.3, contrast=0.7, saturation=1.4, hue=0.1)
_JITTER, _GRAY, _BLUR = 0.8, 0.2, 0.5  # probabilities
_SIGMA = 1.0  # of the timed blur, near the mean of [0.1, 2]


@dataclass
class Pipeline:
    """How one package makes views.

    Args:
        whole: A file's path to all that the loader would hand on.
        decode: Bytes to an image.
        crop: Image to a cropped and flipped view.
        operations: By stage: a view to a view, and how often it is applied.
        finish: A view to what is collated.
        crops: How often ``crop`` is called for two views.
    """

    whole: Callable[[Path], Any]
    decode: Callable[[bytes], Any]
    crop: Callable[[Any], Any]
    operations: dict[str, tuple[Callable[[Any], Any], float]]
    finish: Callable[[Any], torch.Tensor]
    crops: int = 2


def _operations(adjust: dict[str, Callable], gray: Callable, blur: Callable) -> dict:
    stages = {
        name: (lambda view, f=function, name=name: f(view, FACTORS[name]), _JITTER)
        for name, function in adjust.items()
    }
    return {**stages, 'grayscale': (gray, _GRAY), 'blur': (blur, _BLUR)}


def mmpretrain() -> Pipeline:
    """mmpretrain's own config and transforms.

    mmcv's hue overflows for negative factors under NumPy 2 (mmcv 2.1; repaired in
    onedl-mmcv): there it is replaced by the same steps with the factor modulo 256.
    """
    import mmcv
    import mmpretrain
    from mmengine.config import Config
    from mmengine.dataset import Compose
    from mmpretrain.registry import TRANSFORMS

    repair_hue()
    base = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / '_base_'
    cfg = Config.fromfile(base / 'datasets' / 'imagenet_bs32_simclr.py')
    pipeline = Compose(cfg.train_pipeline)
    crop, flip = (TRANSFORMS.build(step) for step in cfg.view_pipeline[:2])
    gray, blur = (TRANSFORMS.build(dict(step, prob=1.0)) for step in cfg.view_pipeline[3:])

    def on_image(*transforms):

        def apply(img):
            results = dict(img=img, img_shape=img.shape[:2])
            for transform in transforms:
                results = transform(results)
            return results['img']

        return apply

    adjust = {
        name: lambda img, f, function=getattr(mmcv, f'adjust_{key}'): function(
            img, f, backend='pillow'
        )
        for name, key in dict(
            brightness='brightness', contrast='contrast', saturation='color', hue='hue'
        ).items()
    }
    return Pipeline(
        lambda path: pipeline(dict(img_path=str(path))),
        mmcv.imfrombytes,
        on_image(crop, flip),
        _operations(adjust, on_image(gray), on_image(blur)),
        lambda img: torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1))),
    )


def repair_hue() -> None:
    """Make mmcv's hue run under NumPy 2, where it does not."""
    import mmcv

    try:
        mmcv.adjust_hue(np.zeros((1, 1, 3), np.uint8), -0.1, backend='pillow')
    except OverflowError:
        mmcv.adjust_hue = _hue


def _hue(img: np.ndarray, hue_factor: float, backend: str = 'pillow') -> np.ndarray:
    hsv = np.array(Image.fromarray(img[..., ::-1]).convert('HSV'))
    hsv[..., 0] += np.uint8(int(hue_factor * 255) % 256)
    return np.array(Image.fromarray(hsv, 'HSV').convert('RGB'))[..., ::-1]


def _pil(content: bytes) -> Image.Image:
    import io

    return Image.open(io.BytesIO(content)).convert('RGB')


def lightly() -> Pipeline:
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms import functional as F
    from torchvision.transforms import v2

    transform = SimCLRTransform(input_size=SIDE)
    crop, flip, *_, blur, tensor, norm = transform.transforms[0].transform.transforms
    blur.prob = 1.0
    operations = _operations(
        {name: getattr(F, f'adjust_{name}') for name in FACTORS}, v2.RandomGrayscale(p=1.0), blur
    )
    fresh = SimCLRTransform(input_size=SIDE)
    return Pipeline(
        lambda path: fresh(_pil(path.read_bytes())),
        _pil,
        lambda img: flip(crop(img)),
        operations,
        lambda view: norm(tensor(view)),
    )


def albumentations() -> Pipeline:
    """With OpenCV's decoder, and one image as NumPy has it: its fastest form."""
    import albumentations as A
    import albumentations.augmentations.pixel.functional as F

    crop = A.RandomResizedCrop((SIDE, SIDE), scale=(0.08, 1.0))
    flip = A.HorizontalFlip(p=0.5)
    view = A.Compose(
        [
            crop,
            flip,
            A.ColorJitter(
                brightness=(0.2, 1.8),
                contrast=(0.2, 1.8),
                saturation=(0.2, 1.8),
                hue=(-0.2, 0.2),
                p=_JITTER,
            ),
            A.ToGray(p=_GRAY),
            A.GaussianBlur(blur_limit=(23, 23), sigma_limit=(0.1, 2.0), p=_BLUR),
            A.ToTensorV2(),
        ]
    )
    blur = A.GaussianBlur(blur_limit=(23, 23), sigma_limit=(_SIGMA, _SIGMA), p=1.0)
    cropped = A.Compose([crop, flip])
    adjust = {name: getattr(F, f'adjust_{name}_torchvision') for name in FACTORS}
    blurred, gray = A.Compose([blur]), A.Compose([A.ToGray(p=1.0)])

    def decode(content: bytes) -> np.ndarray:
        img = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(img, cv2.COLOR_BGR2RGB)

    def whole(path: Path) -> list[torch.Tensor]:
        img = decode(path.read_bytes())
        return [view(image=img)['image'] for _ in range(2)]

    to_tensor = A.Compose([A.ToTensorV2()])
    return Pipeline(
        whole,
        decode,
        lambda img: cropped(image=img)['image'],
        _operations(
            adjust, lambda img: gray(image=img)['image'], lambda img: blurred(image=img)['image']
        ),
        lambda img: to_tensor(image=img)['image'],
    )


def torchvision() -> Pipeline:
    """Tensors and torchvision.transforms.v2 from the decoder on."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F

    crop = v2.Compose(
        [v2.RandomResizedCrop(SIDE, scale=(0.08, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    )
    blur = v2.GaussianBlur(23, (0.1, 2.0))
    view = v2.Compose(
        [
            crop,
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=_JITTER),
            v2.RandomGrayscale(p=_GRAY),
            v2.RandomApply([blur], p=_BLUR),
        ]
    )

    def decode(content: bytes) -> torch.Tensor:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return decode_image(data, ImageReadMode.RGB)

    def whole(path: Path) -> list[torch.Tensor]:
        img = decode(path.read_bytes())
        return [view(img) for _ in range(2)]

    adjust = {name: getattr(F, f'adjust_{name}') for name in FACTORS}
    return Pipeline(
        whole, decode, crop, _operations(adjust, v2.RandomGrayscale(p=1.0), blur), lambda v: v
    )


def kornia() -> Pipeline:
    """float32 tensors, one image at a time as a loader's worker has them."""
    import kornia.augmentation as K
    import kornia.enhance as E

    crop = K.AugmentationSequential(
        K.RandomResizedCrop((SIDE, SIDE), scale=(0.08, 1.0)), K.RandomHorizontalFlip()
    )
    gray = K.RandomGrayscale(p=1.0)
    blur = K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=1.0)
    view = K.AugmentationSequential(
        K.RandomResizedCrop((SIDE, SIDE), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=_JITTER),
        K.RandomGrayscale(p=_GRAY),
        K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=_BLUR),
    )

    def decode(content: bytes) -> torch.Tensor:
        img = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        img = torch.from_numpy(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))
        return img.permute(2, 0, 1)[None].float().div_(255)  # (1, 3, H, W)

    def whole(path: Path) -> list[torch.Tensor]:
        img = decode(path.read_bytes())
        return [view(img)[0] for _ in range(2)]

    adjust = {name: getattr(E, f'adjust_{name}') for name in FACTORS}
    return Pipeline(whole, decode, crop, _operations(adjust, gray, blur), lambda view: view[0])


# By name in the table: how to make it, and the distributions it is made of.
PEERS = {
    'mmpretrain': (mmpretrain, ('mmpretrain', 'mmcv')),
    'lightly': (lightly, ('lightly', 'torchvision')),
    'albumentations': (albumentations, ('albumentations', 'albucore')),
    'torchvision v2': (torchvision, ('torchvision',)),
    'kornia': (kornia, ('kornia',)),
}
