"""Decode files of bands: TIFF, NumPy's archives, DICOM, and pictures at their depth."""

import io
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from simclr_mm.files.installed import optional_package

from .to_rgb import bits_of, check_pixels, notice, open_picture, unreadable

_PNG, _PNG_END = b'\x89PNG', b'IEND\xaeB`\x82'
_AS_THEY_ARE = ('L', 'LA', 'RGB', 'RGBA')  # PIL modes whose channels are bands
_TRANSFORMATION = 'PixelValueTransformationSequence'


def read_tiff(content: bytes, path: str) -> tuple[np.ndarray, str]:
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


def read_npz(content: bytes, path: str) -> np.ndarray:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise unreadable(
                path, f'has {len(arrays.files)} arrays, not one: {", ".join(arrays.files[:9])}'
            )
        return arrays[arrays.files[0]]


def read_dicom(content: bytes, path: str, max_pixels: int) -> tuple[np.ndarray, str]:
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


def read_picture(content: bytes, path: str, max_pixels: int) -> np.ndarray:
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
