"""The interface to a library that takes exports."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.models import pooled

from .backbone import cropped, tensors_of

Names = dict[str, Any]  # what code has defined, by name


class Target:
    """One library that takes a backbone."""

    suffix = '.pth'  # of its file; '' for a folder
    packages: tuple[str, ...] = ()  # packages needed to verify
    tolerance = 1e-5  # greatest difference of a feature, as a share of the largest feature
    # Code after that of :meth:`setup`, from a PIL image ``picture`` or an array ``bgr`` to
    # ``features``; '' where the code is a config.
    use = ''
    # The same for an encoder of bands, from ``images``, (n, bands, S, S) float32, or ``values``,
    # one image (height, width, bands), both as in the files. None: the library takes RGB only.
    use_of_bands: str | None = None

    def tensors(self, encoder: Encoder) -> dict[str, Tensor]:
        """The tensors under the library's names, here ours."""
        return tensors_of(encoder)

    def files(self, encoder: Encoder, metadata: dict[str, Any]) -> dict[str, bytes]:
        """The files of a folder, by name. None of them: the export is one file."""
        return {}

    def write(self, encoder: Encoder, metadata: dict[str, Any]) -> bytes:
        """The bytes of the file."""
        buffer = io.BytesIO()
        torch.save(dict(state_dict=self.tensors(encoder), meta=metadata), buffer)
        return buffer.getvalue()

    def use_of(self, encoder: Encoder) -> str:
        """The code after that of :meth:`setup`."""
        bands = encoder.preprocessing.loading is not None
        return (self.use_of_bands or '') if bands else self.use

    def setup(self, encoder: Encoder, path: str) -> str:
        """Code that loads the file."""
        raise NotImplementedError

    def features(self, encoder: Encoder, names: Names, pictures: list[np.ndarray]) -> Tensor:
        """Features (n, C) of images, with the names that :meth:`setup`'s code defines."""
        rows = []
        for image in pictures:
            if encoder.preprocessing.loading is None:
                names['picture'] = Image.fromarray(image)
                names['bgr'] = np.ascontiguousarray(image[..., ::-1])
            else:
                names.update(values=image, images=cropped(encoder.preprocessing, [image]).numpy())
            exec(self.use_of(encoder), names)
            found = names['features']
            found = found[-1] if isinstance(found, (list, tuple)) else found
            rows.append(pooled(torch.as_tensor(found).detach()).reshape(1, -1))
        return torch.cat(rows)

    def weights(self, encoder: Encoder, names: Names) -> dict[str, Tensor]:
        """The weights that the library loaded, under our names."""
        return names['model'].state_dict()


def code(*lines: str) -> str:
    """Lines of code as one text."""
    return '\n'.join(lines)


def literal(value: Any) -> str:
    """A setting as code: ``dict(type='ResNet', depth=50)``.

    Only plain values become code, with Python's own ``repr``, so a value from a file cannot
    inject code. Other values are a TypeError.
    """
    if isinstance(value, dict) and all(str(key).isidentifier() for key in value):
        ordered = sorted(value.items(), key=lambda item: item[0] != 'type')
        return f'dict({", ".join(f"{key}={literal(entry)}" for key, entry in ordered)})'
    if isinstance(value, dict):
        return f'{{{", ".join(f"{key!r}: {literal(entry)}" for key, entry in value.items())}}}'
    if isinstance(value, (list, tuple)):
        entries = ', '.join(map(literal, value))
        closing = ',)' if len(value) == 1 else ')'
        return f'[{entries}]' if isinstance(value, list) else f'({entries}{closing}'
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise TypeError(f'{value!r} is no plain setting')
