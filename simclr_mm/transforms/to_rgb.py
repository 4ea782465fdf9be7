"""The rule that converts any picture to 8-bit RGB, for files, shards and PIL images.

docs/your_own_images.md has the rule as a table.
"""

import functools
import io
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.logging import print_log
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from simclr_mm.errors import UnreadableImage
from simclr_mm.files.walk import printable

# Pillow's other formats are left out. Some start other programs (EPS). Some have no
# signature and match any file (TGA).
FORMATS = 'JPEG MPO PNG WEBP BMP DIB PPM TIFF GIF JPEG2000 AVIF'.split()
READING_RULE = 2  # increase it when decoded values change: caches of images depend on it
MAX_PIXELS = 178_956_970  # above it Pillow refuses to open a file
BACKGROUND = (255, 255, 255, 255)  # behind transparent pixels: white, as paper
_DARK = 64  # of 256: values of 14 bits or fewer, stored in 16 bits, stay below it
_REMEDY = 'Nothing says which values are black and white: save it as grey or RGB with 8 bits.'

# TIFF 6.0, sections 8 and 18 to 23: tags and their values.
_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _KIND = 258, 262, 277, 338, 339
_KINDS = {2: 'signed', 3: 'floating-point', 5: 'complex', 6: 'complex'}
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # bands by photometric interpretation
_ALPHA = {1, 2, 999}  # associated, unassociated, and what Corel Draw writes


def decode(content: bytes, path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The bytes of an image file as (H, W, 3) uint8 RGB.

    Raises:
        UnreadableImage: The file is no image, is damaged, has more than ``max_pixels``, or its
            values have no single meaning as 8-bit colours.
    """
    image = open_picture(content, path)
    check_pixels(*image.size, path, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        several = bool(image.tag_v2.next)
    else:  # a JPEG of several pictures (MPO) has previews and depth maps beside the first
        several = image.format != 'MPO' and getattr(image, 'is_animated', False)
    if several:
        notice(path, 'has several pages or frames, of which the first is read')
    return to_rgb(image, path)


def to_rgb(image: Image.Image, path: str) -> np.ndarray:
    """A PIL image of any mode as (H, W, 3) uint8 RGB, turned upright by its EXIF data.

    Raises:
        UnreadableImage: The image is damaged, or its values have no single meaning as 8-bit
            colours.
    """
    bits = bits_of(image, path)
    try:
        image.load()
    except Exception as error:  # decoders raise errors of many types
        raise unreadable(path, f'a damaged image, or a kind that is not read: {error}') from error
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data do not affect the pixels
        upright = image
    if bits > 8 and upright.mode.startswith('I'):
        # Pillow inverts a TIFF with white = 0 if it has 8 bits, but not if it has more.
        tags = getattr(image, 'tag_v2', {})
        upright = _high_bits(upright, bits, white_is_zero=tags.get(_PHOTOMETRIC) == 0)
    if upright.has_transparency_data:
        upright = _on_background(upright)
    try:
        rgb = np.asarray(upright.convert('RGB'))  # (H, W, 3)
    except ValueError as error:  # LAB
        raise unreadable(path, f'{error}. Save the file as RGB.') from error
    if bits > 8 and rgb.max() < _DARK:
        notice(
            path,
            f'has {bits} bits, but its values fill less than a quarter of that range, so few of '
            '256 levels are left. Stretch the values of all files by one factor, or save them '
            'with 8 bits',
        )
    return rgb


def unreadable(path: str, reason: str) -> UnreadableImage:
    return UnreadableImage(f'{printable(path)}: {reason}', path)


def check_pixels(width: int, height: int, path: str, max_pixels: int) -> None:
    """Refuse an image before its pixels are decoded."""
    if width * height > max_pixels:
        raise unreadable(
            path,
            f'{width} x {height} pixels, more than max_pixels = {max_pixels} of '
            'simclr_mm.LoadImageFromFile. Make the image smaller, or raise max_pixels if you '
            'trust the file.',
        )


_noticed: Counter[str] = Counter()


def notice(path: str, what: str) -> None:
    """Warn of what reading loses: at the 1st, 10th, 100th, ... image of this process."""
    _noticed[what] += 1
    times = str(_noticed[what])
    if times.rstrip('0') == '1':
        message = f'{printable(path)} {what} (such image {times} of this process).'
        print_log(message, logger='current', level=logging.WARNING)


@functools.cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_picture(content: bytes, path: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_formats())
    except Image.DecompressionBombError as error:
        raise unreadable(
            path, f'{error} If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels.'
        ) from error
    except UnidentifiedImageError as error:
        raise unreadable(path, _why_not(content)) from error
    except Exception as error:
        raise unreadable(path, f'a damaged image: {error}') from error


def _why_not(content: bytes) -> str:
    """Why Pillow cannot open an image."""
    if content.startswith((b'\xff\xd8', b'\x89PNG')):
        return 'a damaged image: its header ends early or contradicts itself.'
    if content.startswith(tuple(TiffImagePlugin.PREFIXES)):
        try:
            header = content[: 16 if 43 in content[2:4] else 8]
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file = io.BytesIO(content)
            file.seek(tags.next)
            tags.load(file)
            return _tiff_problem(tags) or (
                f'a TIFF that Pillow does not read: {tags.get(_SAMPLES, 1)} band(s) of '
                f'{tags.get(_BITS, (1,))} bits, photometric interpretation '
                f'{tags.get(_PHOTOMETRIC)}. Save it as grey or RGB.'
            )
        except Exception as error:
            return f'a damaged TIFF: {error}'
    size = f'{len(content)} bytes'
    return f'not an image, or in a format that is not read ({size}). Read are {", ".join(FORMATS)}.'


def bits_of(image: Image.Image, path: str) -> int:
    """Bits of a value, up to 16. The highest 8 of them count.

    Raises:
        UnreadableImage: The values are no unsigned numbers of at most 16 bits.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        problem = _tiff_problem(image.tag_v2)
        if problem:
            raise unreadable(path, problem)
        if _spare_bands(image.tag_v2):
            notice(path, 'has a fourth band of no stated meaning, which is left out')
        return max(image.tag_v2.get(_BITS, (1,)))
    if image.mode == 'F' or (image.mode == 'I' and image.format not in ('PNG', 'PPM')):
        kind = 'floating-point' if image.mode == 'F' else '32-bit'
        raise unreadable(path, f'its values are {kind} numbers. {_REMEDY}')
    # Before decoding, ``tile`` has the mode of the file, such as 'RGB;16B'.
    return 16 if image.mode[0] == 'I' or ';16' in str(getattr(image, 'tile', '')) else 8


def _tiff_problem(tags: Mapping[int, Any]) -> str | None:
    """Why a TIFF's values cannot be read as colours. None if they can."""
    bits, kind = max(tags.get(_BITS, (1,))), _KINDS.get(tags.get(_KIND, (1,))[0])
    if kind or bits > 16:
        return f'its values are {kind or "unsigned"} numbers of {bits} bits. {_REMEDY}'
    spare = _spare_bands(tags)
    if spare and not (spare == 1 and tags[_PHOTOMETRIC] == 2):
        return (
            f'it has {tags[_SAMPLES]} bands, {spare} of them neither colour nor transparency. '
            'Save the bands that are to be seen as grey or RGB.'
        )
    return None


def _spare_bands(tags: Mapping[int, Any]) -> int:
    """Bands of a TIFF that are neither colour nor transparency."""
    samples, extra = tags.get(_SAMPLES, 1), tags.get(_EXTRA, ())
    colours = _COLOURS.get(tags.get(_PHOTOMETRIC, -1), samples)
    alpha = bool(_ALPHA & set(extra)) or (samples == colours + 1 and not extra)
    return max(0, samples - colours - alpha)


def _high_bits(image: Image.Image, bits: int, white_is_zero: bool) -> Image.Image:
    """The highest 8 bits of a grey image, as Pillow and OpenCV take them for colours."""
    values = np.asarray(image)  # (H, W)
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8) ^ (255 * white_is_zero))
    key = image.info.get('transparency')
    if key is None:
        return grey
    grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _on_background(image: Image.Image) -> Image.Image:
    key = image.info.get('transparency')
    if isinstance(key, tuple) and max(key) > 255:  # a colour of 16 bits
        image = image.copy()
        image.info['transparency'] = tuple(value >> 8 for value in key)
    rgba = image.convert('LA' if image.mode == 'La' else 'RGBA').convert('RGBA')
    if rgba.getchannel('A').getextrema() == (255, 255):
        return rgba
    return Image.alpha_composite(Image.new('RGBA', rgba.size, BACKGROUND), rgba)
