"""Read images of any number of bands with the values of their files.

H and W in pixels, C bands.
"""

import io
from collections.abc import Sequence

import numpy as np

from simclr_mm.errors import UserError
from simclr_mm.files.walk import BAND_EXTENSIONS
from simclr_mm.registry import TRANSFORMS

from .band_files import read_dicom, read_npz, read_picture, read_tiff
from .base import Transform, is_finite
from .loading import LoadImageFromFile
from .to_rgb import MAX_PIXELS, check_pixels, unreadable

LAYOUTS = ('auto', 'HWC', 'CHW')
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # TIFF 6.0, section 2, and BigTIFF
_NPY, _ZIP = b'\x93NUMPY', b'PK\x03\x04'
_WHOLE = 2**24  # float32 has every whole number up to it


@TRANSFORMS.register_module()
class LoadBands(LoadImageFromFile):
    """Read an image of 1 to n bands at its own depth.

    ``results['img']`` is (H, W, C): uint8 from values of 8 bits or fewer, and float32 with the
    same numbers, in the units of the file, from all others. Nothing is scaled, but Pillow spreads
    a PNG or PGM of fewer than 8 bits over [0, 255]. Colours are in the order of the file, RGB, so
    the preprocessor has ``to_rgb=False``.

    The content of a file decides how it is read: TIFF by tifffile, NumPy's ``.npy`` and ``.npz``
    (of one array), DICOM by pydicom with its modality rescale, others by Pillow and, beyond 8
    bits, by OpenCV. ``results['img_bytes']`` is read as in LoadImageFromFile.

    Args:
        bands: Numbers of the bands to take, from 0, in this order. None: all.
        layout: Where an array of three axes has its bands. 'HWC': in the last axis, 'CHW': in
            the first. 'auto': TIFF and DICOM say it, and several pages or frames are bands, page
            by page. For NumPy the shorter of the first and the last axis has the bands.
        window: (centre, width) of DICOM's window, in the units of the file: values are cut to
            [centre - width / 2, centre + width / 2 - 1]. None: nothing is cut.
        nan: The number that takes the place of NaN, such as a file's empty border. None: an image
            with NaN is unreadable. One with infinite values always is.
        max_pixels: An image with more pixels H x W is refused.
        **kwargs: ``ignore_empty``, ``backend_args`` as in mmcv.

    Raises:
        UserError: A setting is wrong, or a file has fewer bands than ``bands`` asks for, or
            another number of bands than the first file that this process has read.
        UnreadableImage: The file is missing, damaged, too large, no picture, has no numbers that
            float32 holds, or has NaN or infinite values.
        MissingPackageError: The file needs tifffile or pydicom, which is not installed.

    Source: of the window, DICOM PS3.3, C.11.2.1.2.1.
    """

    FIXED = ('to_float32', 'color_type', 'imdecode_backend', 'file_client_args')
    extensions = BAND_EXTENSIONS
    __repr__ = Transform.__repr__

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        layout: str = 'auto',
        window: tuple[float, float] | None = None,
        nan: float | None = None,
        max_pixels: int = MAX_PIXELS,
        **kwargs,
    ) -> None:
        super().__init__(max_pixels=max_pixels, **kwargs)
        if bands is not None and not (
            isinstance(bands, (list, tuple))
            and bands
            and all(type(band) is int and band >= 0 for band in bands)
        ):
            raise UserError(f'LoadBands.bands is {bands}: give numbers of bands, from 0, or None.')
        if layout not in LAYOUTS:
            raise UserError(f'LoadBands.layout is {layout!r}: write one of {", ".join(LAYOUTS)}.')
        if window is not None and not (
            isinstance(window, (list, tuple))
            and len(window) == 2
            and all(map(is_finite, window))
            and window[1] >= 1
        ):
            raise UserError(f'LoadBands.window is {window}: write (centre, width), width >= 1.')
        if nan is not None and not is_finite(nan):
            raise UserError(f'LoadBands.nan is {nan!r}: give a finite number, or None.')
        self.bands = None if bands is None else list(bands)
        self.layout = layout
        self.window = None if window is None else tuple(window)
        self.nan = nan
        self._first: tuple[str, int] | None = None  # name and bands of the first file
        self._first_type: tuple[str, np.dtype] | None = None

    def transform(self, results: dict) -> dict | None:
        results['bands_as_in_file'] = True  # so 3 of uint8 are no BGR
        return super().transform(results)

    def _decode(self, content: bytes, path: str) -> np.ndarray:
        if not content:
            raise unreadable(path, 'the file is empty, or the database has no such key.')
        try:
            img = self._read_bands(content, path)
        except UserError:
            raise
        except Exception as error:  # decoders raise errors of many types
            raise unreadable(
                path, f'cannot be read: {str(error) or type(error).__name__}'
            ) from error
        img = self.finished(self._chosen(img, path), path)
        self._first_type = self._first_type or (path, img.dtype)
        require_one_depth(self._first_type, (path, img.dtype))
        return img

    def finished(self, img: np.ndarray, path: str) -> np.ndarray:
        """An image (H, W, C) of the bands that are taken, at its depth and within the window."""
        img = at_depth(img, path)
        if img.dtype == np.float32:
            if self.nan is not None:
                img[np.isnan(img)] = self.nan
            if not np.isfinite(img).all():
                raise unreadable(
                    path,
                    'has NaN or infinite values. Mend the file, or give a number for NaN as nan of '
                    'simclr_mm.LoadBands.',
                )
        if self.window is not None:
            centre, width = self.window
            ends = np.array([centre - width / 2, centre + width / 2 - 1])
            if img.dtype == np.uint8:
                ends = ends.clip(0, 255)  # others would wrap around
            img = img.clip(*ends).astype(img.dtype)
        return np.ascontiguousarray(img)

    def _read_bands(self, content: bytes, path: str) -> np.ndarray:
        """(H, W, C) with the file's dtype."""
        if content.startswith(_TIFF):
            array, axes = read_tiff(content, path)
        elif content.startswith(_NPY):
            array, axes = np.load(io.BytesIO(content), allow_pickle=False), ''
        elif content.startswith(_ZIP):
            array, axes = read_npz(content, path), ''
        elif content[128:132] == b'DICM' or path.lower().endswith('.dcm'):
            array, axes = read_dicom(content, path, self.max_pixels)
        else:
            array, axes = read_picture(content, path, self.max_pixels), 'YXS'
        img = self._arranged(array, axes, path)
        check_pixels(img.shape[1], img.shape[0], path, self.max_pixels)
        if not img.size:
            raise unreadable(path, f'has no pixels: its shape is {array.shape}.')
        return img

    def _arranged(self, array: np.ndarray, axes: str, path: str) -> np.ndarray:
        """An array as (H, W, C). ``axes`` names them if the file does: Y, X and those of bands."""
        if array.ndim == 2:
            return array[..., None]
        if array.ndim == 3 and self.layout != 'auto':
            return array if self.layout == 'HWC' else array.transpose(1, 2, 0)
        if 'Y' in axes and 'X' in axes:
            array = np.moveaxis(array, (axes.index('Y'), axes.index('X')), (0, 1))
            return array.reshape(*array.shape[:2], -1)
        if axes or array.ndim != 3:
            raise unreadable(path, f'is no picture: an array of shape {array.shape} {axes}'.strip())
        if array.shape[0] == array.shape[2]:
            raise UserError(
                f'{path}: its shape is {array.shape}, so either axis may have the bands: write '
                "layout='CHW' or 'HWC' in simclr_mm.LoadBands."
            )
        return array if array.shape[2] < array.shape[0] else array.transpose(1, 2, 0)

    def _chosen(self, img: np.ndarray, path: str) -> np.ndarray:
        count = img.shape[2]
        name, expected = self._first = self._first or (path, count)
        if count != expected:
            raise UserError(
                f'{path} has {count} band(s), but {name} has {expected}: give files with the same '
                'bands. If an array is turned, set layout of simclr_mm.LoadBands.'
            )
        if self.bands is None:
            return img
        if max(self.bands) >= count:
            raise UserError(
                f'{path} has {count} band(s), 0 to {count - 1}: LoadBands.bands asks for '
                f'{max(self.bands)}.'
            )
        return img[..., self.bands]


def at_depth(img: np.ndarray, path: str) -> np.ndarray:
    """uint8 as it is, and other numbers as float32 of the same value."""
    if img.dtype == np.uint8:
        return img
    if img.dtype == bool:
        return img.astype(np.uint8)
    if img.dtype.kind not in 'iuf':
        raise unreadable(path, f'its values are of the kind {img.dtype}, no real numbers.')
    if img.dtype.kind != 'f' and img.dtype.itemsize > 2:
        if img.max() > _WHOLE or img.min() < -_WHOLE:
            raise unreadable(
                path,
                'has whole numbers beyond 2^24, of which float32 cannot hold each: scale them, or '
                'save the file as float32.',
            )
    return img.astype(np.float32)


def require_one_depth(first: tuple[str, np.dtype], other: tuple[str, np.dtype]) -> None:
    """Files, by path and dtype: a batch is one array, and 8 and more bits are hardly in one unit.

    Raises:
        UserError: One has 8 bits, the other has more.
    """
    if first[1] != other[1]:
        (few, _), (many, _) = (other, first) if other[1] == np.uint8 else (first, other)
        raise UserError(
            f'{few} has values of 8 bits, and {many} of more: give files of one depth, in one unit'
        )
