"""Reading an image file, or saying which file cannot be read and why."""

import io

import mmcv
import mmengine.fileio as fileio
import numpy as np
from PIL import Image

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

# First and last bytes of the formats that OpenCV before 5.0 decodes in part, and
# without an error, when the file is cut short.
_ENDINGS = {b'\xff\xd8': b'\xff\xd9', b'\x89PNG': b'IEND\xaeB`\x82'}
# Second bytes of JPEG's SOF markers (ITU-T T.81, table B.1): C0 to CF without the
# tables DHT, JPG and DAC.
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class UnreadableImage(UserError, OSError):
    """A file that is no complete image.

    Args:
        message: What is wrong, naming the file.
        path: The file. Empty where a DataLoader raised the error of its worker again:
            it carries over the message only.
    """

    def __init__(self, message: str, path: str = '') -> None:
        super().__init__(message)
        self.path = path


def check_complete(content: bytes) -> None:
    """Raise if a JPEG or PNG ends too early.

    A file that ends as its format demands is complete. One that does not may still be,
    with something appended, so PIL, which is strict, decodes it.

    Raises:
        OSError: from PIL, the file is truncated.
    """
    for start, end in _ENDINGS.items():
        if content.startswith(start) and not content.endswith(end):
            with Image.open(io.BytesIO(content)) as image:
                image.load()


def is_cmyk(content: bytes) -> bool:
    """Whether this is a JPEG of four colour components."""
    if not content.startswith(b'\xff\xd8'):
        return False
    start = 2  # of a segment: marker (2), length with itself (2), body
    while start + 10 <= len(content) and content[start] == 0xFF:
        if content[start + 1] in _START_OF_FRAME:
            return content[start + 9] == 4  # after precision (1), height and width (4)
        if content[start + 1] == 0xFF:  # a fill byte
            start += 1
        else:
            start += 2 + int.from_bytes(content[start + 2 : start + 4], 'big')
    return False


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's LoadImageFromFile that never hands on half an image.

    Arguments and results are mmcv's; by default ``results['img']`` is (H, W, 3) uint8
    BGR, three equal channels for a grayscale file, turned as its EXIF data says. Where
    the dataset has read the file already, as those on shards do, its bytes are in
    ``results['img_bytes']`` and ``results['img_path']`` only names it.

    Raises:
        UnreadableImage: the file is missing, empty, truncated or not an image.
            With ``ignore_empty=True`` the transform returns None instead.

    Differs: CMYK files go through PIL, whose colours are up to two grey levels from
        OpenCV's.
    """

    def read(self, path: str) -> tuple[bytes, np.ndarray]:
        """A file's bytes and the image that they are.

        Raises:
            UnreadableImage: As above.
        """
        content = self._read(path)
        return content, self._decode(content, path)

    def transform(self, results: dict) -> dict | None:
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

    def _read(self, path: str) -> bytes:
        try:
            if self.file_client_args is not None:
                client = fileio.FileClient.infer_client(self.file_client_args, path)
                return client.get(path)
            return fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise UnreadableImage(
                f'{path}: no such file. Check data_root, data_prefix and ann_file of the dataset.',
                path,
            ) from error
        except OSError as error:
            raise UnreadableImage(f'{path}: cannot be read: {error}', path) from error

    def _decode(self, content: bytes, path: str) -> np.ndarray:
        if content is None:  # LMDB's answer
            raise UnreadableImage(f'{path}: the database has no such key.', path)
        if not content:
            raise UnreadableImage(f'{path}: the file is empty.', path)
        backend = 'pillow' if is_cmyk(content) else self.imdecode_backend
        try:
            check_complete(content)
            img = mmcv.imfrombytes(content, flag=self.color_type, backend=backend)
        except Exception as error:  # decoders raise whatever they like
            raise UnreadableImage(f'{path}: a damaged image: {error}', path) from error
        if img is None:
            raise UnreadableImage(
                f'{path}: not an image, or one in a damaged or unknown format '
                f'({len(content)} bytes).',
                path,
            )
        return img
