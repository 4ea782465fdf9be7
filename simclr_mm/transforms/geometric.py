"""The other augmentations of the paper's composition study.

Source: SimCLR, arXiv:2002.05709, Sec. 3 and Fig. 4 (rotation, cutout, Gaussian noise,
Sobel filtering). The paper gives only the three rotations. The reason for each other
parameter stands beside it.
"""

import cv2
import numpy as np

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform, check_range
from .batched import geometric as batched
from .random_streams import RandomStream

# Added before fractions are cut off, as in PIL, so that whole numbers stay unchanged.
_ALMOST_ZERO = 1e-3

_QUARTER_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


def rotate(img: np.ndarray, degrees: float) -> np.ndarray:
    """Turn counter-clockwise about the centre, repeating the border outwards.

    (H, W, 3) uint8 BGR in and out. Bilinear and rounded down, as in PIL.
    """
    height, width = img.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    turned = cv2.warpAffine(
        img.astype(np.float32),
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return (turned + np.float32(_ALMOST_ZERO)).astype(np.uint8)


def sobel(img: np.ndarray) -> np.ndarray:
    """A quarter of the length of the 3 x 3 Sobel gradient of every channel, clipped.

    A vertical edge from 0 to 255 gives 255. (H, W, 3) uint8 in and out.
    """
    dx = cv2.Sobel(img, cv2.CV_32F, 1, 0, scale=0.25)
    dy = cv2.Sobel(img, cv2.CV_32F, 0, 1, scale=0.25)
    # Not cv2.magnitude: its last bit, and so the rounding of halves, depends on the
    # memory address of the image.
    return cv2.convertScaleAbs(np.sqrt(dx * dx + dy * dy))


@TRANSFORMS.register_module()
class RandomRotation(DeviceTransform):
    """Rotate by quarter turns, or by an angle up to a limit.

    Args:
        degrees: None: 0, 90, 180 or 270 degrees with equal probability. A number d in
            (0, 180]: uniform in [-d, d], border repeated.
        prob: Probability.
    """

    any_bands = True
    columns = dict(degrees=float)
    paint_batch = staticmethod(batched.rotate)
    draw_batch = DeviceTransform.draw_arrays

    def __init__(self, degrees: float | None = None, prob: float = 1.0) -> None:
        super().__init__(prob)
        if degrees is not None and not 0 < degrees <= 180:
            raise UserError(
                f'RandomRotation: degrees must be in (0, 180], got {degrees}: write '
                f'None for quarter turns, prob=0 for no rotation.'
            )
        self.degrees = degrees

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        if self.degrees is not None:
            return dict(degrees=rng.uniform(-self.degrees, self.degrees))
        return dict(degrees=90 * rng.integers(4))

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        degrees = params['degrees']
        if degrees == 0:
            return img
        if degrees in _QUARTER_TURNS:
            return cv2.rotate(img, _QUARTER_TURNS[degrees])
        return rotate(img, degrees)


@TRANSFORMS.register_module()
class RandomCutout(DeviceTransform):
    """Paint a grey square at a random place.

    The centre is uniform over all pixels, as in cutout's paper (arXiv:1708.04552). So
    a square at the border is cut.

    Args:
        ratio: Side of the square as a share of the image's shorter side, in (0, 1]. The
            default is that paper's 16 of 32 pixels for CIFAR-10.
        prob: Probability.
    """

    instead = 'leave it out, for other values have no middle grey'
    columns = dict(top=int, left=int, side=int)
    paint_batch = staticmethod(batched.cutout)
    draw_batch = DeviceTransform.draw_arrays

    def __init__(self, ratio: float = 0.5, prob: float = 1.0) -> None:
        super().__init__(prob)
        if not 0 < ratio <= 1:
            raise UserError(
                f'RandomCutout: ratio must be in (0, 1], got {ratio}: write the side '
                f'of the square as a share of the image, such as 0.5.'
            )
        self.ratio = ratio

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        side = max(1, round(self.ratio * min(height, width)))
        top = rng.integers(height) - side // 2
        left = rng.integers(width) - side // 2
        return dict(top=top, left=left, side=side)

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        top, left, side = params['top'], params['left'], params['side']
        img = img.copy()
        img[max(0, top) : top + side, max(0, left) : left + side] = batched.MID_GRAY
        return img


@TRANSFORMS.register_module()
class RandomSobel(DeviceTransform):
    """Replace the image by the strength of its edges, see :func:`sobel`.

    Args:
        prob: Probability.
    """

    instead = 'leave it out, for it clips at 255'
    paint_batch = staticmethod(batched.sobel)
    draw_batch = DeviceTransform.draw_arrays

    def __init__(self, prob: float = 1.0) -> None:
        super().__init__(prob)

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        return sobel(img)


@TRANSFORMS.register_module()
class RandomGaussianNoise(DeviceTransform):
    """Add independent normal noise to every value.

    The device uses the same standard deviations, but other noise.

    Args:
        std: Lowest and highest standard deviation in grey levels of [0, 255], drawn
            uniformly for each image. At the default's upper end noise is clearly visible.
        prob: Probability.
    """

    instead = 'write simclr_mm.BandNoise'
    columns = dict(std=float, seed=int)
    paint_batch = staticmethod(batched.gaussian_noise)
    draw_batch = DeviceTransform.draw_arrays

    def __init__(self, std: tuple[float, float] = (0.0, 25.0), prob: float = 1.0) -> None:
        super().__init__(prob)
        check_range(std, 'RandomGaussianNoise', 'std', (0, 25), zero=True)
        self.std = std

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        return dict(std=rng.uniform(*self.std), seed=rng.integers(2**32))

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        rng = np.random.default_rng(params['seed'])
        noise = rng.standard_normal(img.shape, np.float32)  # (H, W, 3)
        noise *= params['std']
        return cv2.add(img, noise, dtype=cv2.CV_8U)
