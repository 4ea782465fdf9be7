"""Read images of any number of bands with the values of their files.

H and W in pixels, C bands.
"""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from simclr_mm.errors import UserError
from simclr_mm.files.installed import optional_package
from simclr_mm.files.walk import BAND_EXTENSIONS
from simclr_mm.registry import TRANSFORMS

from .base import Transform, is_finite
from .loading import LoadImageFromFile
from .to_rgb import MAX_PIXELS, bits_of, check_pixels, notice, open_picture, unreadable

LAYOUTS = ('auto', 'HWC', 'CHW')
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # TIFF 6.0, section 2, and BigTIFF
_PNG, _PNG_END = b'\x89PNG', b'IEND\xaeB`\x82'
_NPY, _ZIP = b'\x93NUMPY', b'PK\x03\x04'
_AS_THEY_ARE = ('L', 'LA', 'RGB', 'RGBA')  # PIL modes whose channels are bands
_TRANSFORMATION = 'PixelValueTransformationSequence'
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
        self._require_same_type(img.dtype, path)
        return img

    def _require_same_type(self, dtype: np.dtype, path: str) -> None:
        """A batch is one array, and files of 8 and of more bits are hardly in one unit."""
        name, expected = self._first_type = self._first_type or (path, dtype)
        if dtype != expected:
            few, many = (path, name) if dtype == np.uint8 else (name, path)
            raise UserError(
                f'{few} has values of 8 bits, and {many} of more: give files of one depth, in one '
                'unit'
            )

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
            array, axes = _tiff(content, path)
        elif content.startswith(_NPY):
            array, axes = np.load(io.BytesIO(content), allow_pickle=False), ''
        elif content.startswith(_ZIP):
            array, axes = _npz(content, path), ''
        elif content[128:132] == b'DICM' or path.lower().endswith('.dcm'):
            array, axes = _dicom(content, path, self.max_pixels)
        else:
            array, axes = _picture(content, path, self.max_pixels), 'YXS'
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


def _tiff(content: bytes, path: str) -> tuple[np.ndarray, str]:
    tifffile = optional_package('tifffile', 'bands', f'LoadBands, for {path}')
    # Planes of an OME-TIFF in other files would be zeros here.
    with tifffile.TiffFile(io.BytesIO(content), _multifile=False) as file:
        first, *others = file.series
        if any(page is None for series in file.series for page in series.pages):
            raise unreadable(
                path, 'lacks pages that it names: they are cut off, or in other files.'
            )
        alike = all(_kind(each) == _kind(first) for each in others)
        if others and alike and first.kind == 'shaped':  # tifffile has written them one by one
            return np.stack([each.asarray() for each in file.series]), f'I{first.axes}'
        if others:
            notice(path, 'has pages of several sizes or kinds, of which only the first are read')
        return first.asarray(), first.axes


def _kind(series: Any) -> tuple:
    return series.shape, series.dtype, series.axes


def _npz(content: bytes, path: str) -> np.ndarray:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise unreadable(
                path, f'has {len(arrays.files)} arrays, not one: {", ".join(arrays.files[:9])}'
            )
        return arrays[arrays.files[0]]


def _dicom(content: bytes, path: str, max_pixels: int) -> tuple[np.ndarray, str]:
    pydicom = optional_package('pydicom', 'bands', f'LoadBands, for {path}')
    pixels = optional_package('pydicom.pixels', 'bands', f'LoadBands, for {path}')
    data = pydicom.dcmread(io.BytesIO(content), force=True)
    check_pixels(data.get('Columns', 0), data.get('Rows', 0), path, max_pixels)
    if data.get('PhotometricInterpretation') == 'MONOCHROME1':
        notice(path, 'is MONOCHROME1, so its low values are white; they are kept')
    array = data.pixel_array
    frames = 'T' * (int(data.get('NumberOfFrames') or 1) > 1)
    if data.get('PhotometricInterpretation') == 'PALETTE COLOR':
        return pixels.apply_color_lut(array, data), f'{frames}YXS'
    axes = f'{frames}YX' + 'S' * (data.get('SamplesPerPixel', 1) > 1)
    return _rescaled(array, data, pixels), axes


def _rescaled(array: np.ndarray, data: Any, pixels: Any) -> np.ndarray:
    """Values in the units of the modality, such as Hounsfield units."""
    shared = (data.get('SharedFunctionalGroupsSequence') or [{}])[0]
    groups = data.get('PerFrameFunctionalGroupsSequence') or [{}]
    steps = [
        (group.get(_TRANSFORMATION) or shared.get(_TRANSFORMATION) or [None])[0] for group in groups
    ]
    if any(step is not None for step in steps):  # of an enhanced object, frame by frame
        images = array if len(steps) > 1 else array[None]
        scaled = np.stack([_scaled(*each) for each in zip(images, steps, strict=True)])
        return scaled if len(steps) > 1 else scaled[0]
    slope, intercept = data.get('RescaleSlope', 1), data.get('RescaleIntercept', 0)
    if (slope, intercept) == (1, 0) and 'ModalityLUTSequence' not in data:
        return array
    return pixels.apply_modality_lut(array, data)


def _scaled(image: np.ndarray, step: Any) -> np.ndarray:
    slope, intercept = (1, 0) if step is None else (step.RescaleSlope, step.RescaleIntercept)
    return image if (slope, intercept) == (1, 0) else image * float(slope) + float(intercept)


def _picture(content: bytes, path: str, max_pixels: int) -> np.ndarray:
    """(H, W, C) of a PNG, JPEG or another format of Pillow. Palettes and CMYK become RGB."""
    image = open_picture(content, path)
    check_pixels(*image.size, path, max_pixels)
    if bits_of(image, path) > 8:  # Pillow keeps 8 bits of colours, and scales those of a PGM
        # OpenCV before 5.0 decodes a truncated PNG in part.
        img = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if img is None or (content.startswith(_PNG) and _PNG_END not in content):
            raise unreadable(path, 'a damaged image, or a kind that is not read beyond 8 bits.')
        order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(img.ndim == 3 and img.shape[2])
        img = img.reshape(*img.shape[:2], -1) if order is None else img[..., order]
        return _turned(img, image.getexif().get(ExifTags.Base.Orientation, 1))
    image.load()
    upright: Image.Image = ImageOps.exif_transpose(image)
    mode = upright.mode if upright.mode in _AS_THEY_ARE else 'L' if upright.mode == '1' else 'RGB'
    array = np.asarray(upright.convert(mode))
    return array.reshape(*array.shape[:2], -1)


def _turned(img: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, C) upright, as Pillow's exif_transpose turns one of 8 bits."""
    if orientation in (5, 6, 7, 8):
        img = img.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        img = img[::-1]
    return img[:, ::-1] if orientation in (2, 3, 6, 7) else img
