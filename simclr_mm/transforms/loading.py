"""Reading an image file, or saying which file cannot be read and why."""
import io
from typing import Optional

import mmcv
import mmengine.fileio as fileio
import numpy as np
from PIL import Image

from simclr_mm.registry import TRANSFORMS

# First and last bytes of the formats that OpenCV before 5.0 decodes in part, and
# without an error, when the file is cut short.
_ENDINGS = {b'\xff\xd8': b'\xff\xd9', b'\x89PNG': b'IEND\xaeB`\x82'}


class UnreadableImage(OSError):
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


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's LoadImageFromFile that never hands on half an image.

    Arguments and results are mmcv's; by default ``results['img']`` is (H, W, 3) uint8
    BGR, three equal channels for a grayscale file, turned as its EXIF data says.

    Raises:
        UnreadableImage: the file is missing, empty, truncated or not an image.
            With ``ignore_empty=True`` the transform returns None instead.
    """

    def transform(self, results: dict) -> Optional[dict]:
        path = str(results['img_path'])
        try:
            img = self._decode(self._read(path), path)
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
                f'{path}: no such file. Check data_root, data_prefix and ann_file of '
                f'the dataset.', path) from error
        except OSError as error:
            raise UnreadableImage(f'{path}: cannot be read: {error}', path) from error

    def _decode(self, content: bytes, path: str) -> np.ndarray:
        if not content:
            raise UnreadableImage(f'{path}: the file is empty.', path)
        try:
            check_complete(content)
            img = mmcv.imfrombytes(
                content, flag=self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # decoders raise whatever they like
            raise UnreadableImage(f'{path}: a damaged image: {error}', path) from error
        if img is None:
            raise UnreadableImage(
                f'{path}: not an image, or one in a damaged or unknown format '
                f'({len(content)} bytes).', path)
        return img
