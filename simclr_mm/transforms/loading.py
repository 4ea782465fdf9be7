"""Read image files, with an error that names an unreadable file and the reason."""

import os
import re
import struct
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import cv2
import mmcv
import mmengine.fileio as fileio
import numpy as np

from simclr_mm.errors import UnreadableImage, UserError
from simclr_mm.files.walk import EXTENSIONS
from simclr_mm.registry import TRANSFORMS

from .to_rgb import MAX_PIXELS, check_pixels, decode, unreadable

LOADING_STEPS = ('LoadImageFromFile', 'LoadBands')  # types that read a file in a pipeline
# First and last bytes of formats. OpenCV before 5.0 decodes a truncated file of them in
# part, without an error.
_ENDINGS = {b'\xff\xd8': b'\xff\xd9', b'\x89PNG': b'IEND\xaeB`\x82'}
# Second bytes of JPEG's SOF markers (ITU-T T.81, table B.1): C0 to CF without the
# tables DHT, JPG and DAC.
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# OpenCV reads the orientation from EXIF alone. 1 is upright, and the most frequent one.
_TURNED_BY_XMP = re.compile(rb'tiff:Orientation(="|>)[02-9]')  # as Pillow looks for it
_PNG_GREY_COLOUR_PALETTE = (0, 2, 3)  # colour types without transparency
_PNG_CHUNKS_FOR_PILLOW = {b'tRNS', b'eXIf', b'acTL'}  # transparency, orientation, animation
_PNG_TEXTS = {b'tEXt', b'zTXt', b'iTXt'}
_PNG_TEXTS_FOR_PILLOW = (b'Raw profile type exif', b'XML:com.adobe.xmp')  # orientation


class Header(NamedTuple):
    """Width and height in pixels, bits of a value, and whether OpenCV may decode it.

    ``plain``: OpenCV gives the same values as :func:`~.to_rgb.decode`.
    """

    width: int
    height: int
    bits: int
    plain: bool


def read_header(content: bytes) -> Header | None:
    """The header of a JPEG or PNG. None for other or damaged files."""
    if content.startswith(b'\xff\xd8'):
        return _jpeg_header(content)
    if content.startswith(b'\x89PNG') and content[12:16] == b'IHDR' and len(content) > 33:
        return _png_header(content)
    return None


def _jpeg_header(content: bytes) -> Header | None:
    start = 2  # of a segment: marker (2), length with itself (2), body
    while start + 10 <= len(content) and content[start] == 0xFF:
        if content[start + 1] in _START_OF_FRAME:
            bits, height, width, components = struct.unpack_from('>BHHB', content, start + 4)
            turned = _TURNED_BY_XMP.search(content, 0, start)
            plain = bits == 8 and components in (1, 3) and not turned
            return Header(width, height, bits, plain)
        if content[start + 1] == 0xFF:  # a fill byte
            start += 1
        else:
            start += 2 + int.from_bytes(content[start + 2 : start + 4], 'big')
    return None


def _png_header(content: bytes) -> Header:
    width, height, bits, color_type = struct.unpack_from('>IIBB', content, 16)
    plain = bits <= 8 and color_type in _PNG_GREY_COLOUR_PALETTE
    start = 33  # of a chunk: length of its body (4), name (4), body, checksum (4)
    while plain and start + 8 <= len(content):
        name = content[start + 4 : start + 8]
        if name == b'IDAT':  # pixels, mostly in many chunks: on to the last of them
            start = max(start, content.rfind(b'IDAT') - 4)
        elif name in _PNG_TEXTS:
            plain = not content.startswith(_PNG_TEXTS_FOR_PILLOW, start + 8)
        else:
            plain = name not in _PNG_CHUNKS_FOR_PILLOW
        start += 12 + int.from_bytes(content[start : start + 4], 'big')
    return Header(width, height, bits, plain)


def is_complete(content: bytes) -> bool:
    """Whether a JPEG or PNG ends with its end marker. True for other files."""
    ends = [end for start, end in _ENDINGS.items() if content.startswith(start)]
    return not ends or content.endswith(ends[0])


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's LoadImageFromFile with one rule for all files, which refuses truncated images.

    By default ``results['img']`` is (H, W, 3) uint8 BGR, with the values of
    :func:`~.to_rgb.decode`. OpenCV decodes ordinary JPEG and PNG files to the same values.
    If a dataset has already read the file, as tar shards do, the bytes are in
    ``results['img_bytes']`` and ``results['img_path']`` only names it. A sample with
    an image and without a path, as from mmpretrain's inferencers, stays unchanged.

    Args:
        *args: As in mmcv.
        max_pixels: An image with more pixels is refused before it is decoded.
        **kwargs: As in mmcv. mmcv decodes alone with a ``color_type`` other than 'color' and
            with ``imdecode_backend`` 'turbojpeg' or 'tifffile'.

    Raises:
        UnreadableImage: The file is missing, empty, truncated, no image, too large, or has no 8-bit
            colours. With ``ignore_empty=True`` the transform returns None instead.
    """

    extensions: ClassVar[tuple[str, ...]] = EXTENSIONS  # of the files that a folder lists for it

    def __init__(self, *args, max_pixels: int = MAX_PIXELS, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.max_pixels = max_pixels

    def read(self, path: str) -> tuple[bytes, np.ndarray]:
        """A file's bytes and its decoded image.

        Raises:
            UnreadableImage: As above.
        """
        content = self._read(path)
        return content, self._decode(content, path)

    def transform(self, results: dict) -> dict | None:
        if 'img' in results and 'img_path' not in results:
            return results
        path = str(results['img_path'])
        try:
            content = results.pop('img_bytes', None)
            if content is None:
                content = self._read(path)
            img = self._decode(content, path)
        except UnreadableImage:
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            img = img.astype(np.float32)
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        results['ori_shape'] = img.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, max_pixels={self.max_pixels})'

    def _read(self, path: str) -> bytes:
        try:
            if self.file_client_args is not None:
                client = fileio.FileClient.infer_client(self.file_client_args, path)
                return client.get(path)
            return fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            reason = 'no such file. Check data_root, data_prefix and ann_file of the dataset.'
            if os.path.islink(path):
                reason = f'a broken link: there is no {os.readlink(path)}. Mend or remove it.'
            raise unreadable(path, reason) from error
        except KeyError as error:  # of a scheme
            raise UserError(
                f'{path}: MMEngine reads no images from there: copy them to this machine'
            ) from error
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise unreadable(path, f'cannot be read: {error}') from error

    def _decode(self, content: bytes, path: str) -> np.ndarray:
        if content is None:  # LMDB's answer
            raise unreadable(path, 'the database has no such key.')
        if not content:
            raise unreadable(path, 'the file is empty.')
        header = read_header(content)
        if header:
            check_pixels(header.width, header.height, path, self.max_pixels)
        ours = self.color_type == 'color' and self.imdecode_backend in ('cv2', 'pillow')
        plain = header is not None and header.plain and self.imdecode_backend == 'cv2'
        if not is_complete(content) or (ours and not plain):
            if header and header.bits > 8 and content.startswith(b'\xff\xd8'):
                raise unreadable(path, f'a JPEG of {header.bits} bits. Save it with 8 bits.')
            # Pillow accepts appended bytes and refuses a truncated file.
            rgb = decode(content, path, self.max_pixels)
            if ours:
                return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        try:
            img = mmcv.imfrombytes(content, self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # decoders raise errors of many types
            raise unreadable(path, f'a damaged image: {error}') from error
        if img is None:
            raise unreadable(path, f'a damaged image ({len(content)} bytes).')
        return img


def reads_with_mmcv(transforms: Iterable[object]) -> bool:
    """Whether a pipeline has mmcv's LoadImageFromFile, which may load a truncated image."""
    return any(
        isinstance(step, mmcv.transforms.LoadImageFromFile)
        and not isinstance(step, LoadImageFromFile)
        for step in transforms
    )


def extensions_of(transforms: Iterable[object]) -> tuple[str, ...]:
    """Endings of the files that a pipeline reads, by its loading step."""
    steps = (step for step in transforms if isinstance(step, LoadImageFromFile))
    return next((step.extensions for step in steps), EXTENSIONS)
