"""Gaussian blur with the kernel of the reference code."""

import math

import cv2
import numpy as np

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform, check_range
from .batched import blur as batched
from .random_streams import RandomStream


def gaussian_blur(img: np.ndarray, kernel: int, sigma: float) -> np.ndarray:
    """Blur (H, W, 3) uint8 with a Gaussian that ends at the kernel's edge.

    The border is reflected. The kernel's side, odd, and sigma > 0 are in pixels.
    """
    # Beyond four sigma the weights are below 1e-4, less than a uint8 level.
    radius = min(kernel // 2, math.ceil(4 * sigma))
    taps = cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(img, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)


@TRANSFORMS.register_module()
class RandomGaussianBlur(DeviceTransform):
    """Blur by a sigma drawn uniformly.

    Source: SimCLR, arXiv:2002.05709, Appendix A, "Gaussian blur": half of the images,
    sigma in [0.1, 2.0], kernel 10 % of the image's side.

    Args:
        prob: Probability.
        sigma: Lowest and highest standard deviation in pixels.
        kernel: Side of the kernel in pixels, odd. None: a tenth of the image's height;
            an even number gets one more (23 at 224 pixels), as in the reference code.
            Below 20 pixels it is 1, no blur.
    """

    any_bands = True
    columns = dict(sigma=float, kernel=int)
    paint_batch = staticmethod(batched.gaussian_blur)
    draw_batch = DeviceTransform.draw_arrays

    def __init__(
        self, prob: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0), kernel: int | None = None
    ) -> None:
        super().__init__(prob)
        check_range(sigma, 'RandomGaussianBlur', 'sigma', (0.1, 2.0))
        if kernel is not None and (kernel < 1 or kernel % 2 == 0):
            raise UserError(
                f'RandomGaussianBlur: kernel must be an odd number of pixels, got '
                f'{kernel}: write None for 10 % of the side, or an odd number.'
            )
        self.sigma = sigma
        self.kernel = kernel

    def draw(self, height: int, width: int, rng: RandomStream) -> dict:
        kernel = self.kernel or (height // 10) | 1
        return dict(sigma=rng.uniform(*self.sigma), kernel=kernel)

    def paint(self, img: np.ndarray, params: dict) -> np.ndarray:
        return gaussian_blur(img, **params)
