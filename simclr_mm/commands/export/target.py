"""What an export has to know about a library."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.models import pooled


class Target:
    """One library that takes a backbone.

    Attributes:
        suffix: Of its files.
        packages: What has to be installed to verify.
        tolerance: Greatest difference of a feature from ours, as a share of the largest
            feature.
        use: Code after that of :meth:`setup`, from a PIL image ``picture`` or an array
            ``bgr`` to ``features``; '' where the code is a config.
    """

    suffix = '.pth'
    packages: tuple[str, ...] = ()
    tolerance = 1e-5
    use = ''

    def tensors(self, encoder: Encoder) -> dict[str, Tensor]:
        """The tensors under the library's names."""
        raise NotImplementedError

    def write(self, encoder: Encoder, metadata: dict[str, Any]) -> bytes:
        """The bytes of the file."""
        buffer = io.BytesIO()
        torch.save(dict(state_dict=self.tensors(encoder), meta=metadata), buffer)
        return buffer.getvalue()

    def setup(self, encoder: Encoder, path: str) -> str:
        """Code that loads the file."""
        raise NotImplementedError

    def features(
        self, encoder: Encoder, names: dict[str, Any], pictures: list[np.ndarray]
    ) -> Tensor:
        """Features (n, C) of uint8 RGB pictures, by what the code of :meth:`setup` defined."""
        rows = []
        for rgb in pictures:
            names.update(picture=Image.fromarray(rgb), bgr=np.ascontiguousarray(rgb[..., ::-1]))
            exec(self.use, names)
            found = names['features']
            found = found[-1] if isinstance(found, (list, tuple)) else found
            rows.append(pooled(torch.as_tensor(found).detach()).reshape(1, -1))
        return torch.cat(rows)

    def weights(self, encoder: Encoder, names: dict[str, Any]) -> dict[str, Tensor]:
        """The weights as they were loaded there, under our names."""
        return names['model'].state_dict()


def code(*lines: str) -> str:
    """Lines of code as one text."""
    return '\n'.join(lines)


def literal(value: Any) -> str:
    """A setting as code: ``dict(type='ResNet', depth=50)``.

    Only plain values become code, others are a TypeError. Their text is Python's own, so a
    value out of a file cannot bring code along.
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
