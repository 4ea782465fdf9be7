"""Export to a folder that timm and transformers open, also without a network."""

import importlib.util
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simclr_mm.apis.encoder import Encoder
from simclr_mm.errors import CheckpointError, UserError

from .backbone import cropped, file_of
from .target import Names, code
from .torchvision_timm import Timm, timm_model


class HubFolder(Timm):
    """A folder in the layout of timm's models on the Hugging Face hub.

    transformers opens it with its classes for timm's models.
    """

    suffix = ''
    packages = ('timm', 'safetensors')

    def files(self, encoder: Encoder, metadata: dict[str, Any]) -> dict[str, bytes]:
        from safetensors.torch import save

        name, options, stem = timm_model(encoder)
        if stem:
            raise CheckpointError(
                f'{file_of(encoder)}: the stem of its backbone is none that the constructors of '
                'timm build, so no config.json can describe it; export it to timm, which '
                'prints code, or to onnx or safetensors'
            )
        width = encoder.feature_shape()[1]
        config = dict(
            architecture=name,
            num_classes=0,
            num_features=width,
            model_args=options,
            pretrained_cfg=dict(encoder.preprocessing.timm(), num_classes=0, custom_load=False),
            simclr_mm=metadata,
        )
        return {
            'model.safetensors': save(self.tensors(encoder), dict(format='pt')),
            'config.json': (json.dumps(config, indent=2) + '\n').encode(),
        }

    def setup(self, encoder: Encoder, path: str) -> str:
        """Code that builds ``model`` and ``preprocess``."""
        order = _order(encoder)
        return code(
            'import timm, torch',
            f'model = timm.create_model({f"local-dir:{path}"!r}, pretrained=True).eval()',
            # The order that our SimCLR has images in: faster on a CPU, and sums round alike.
            *([f'model = model.to(memory_format={order})'] * (order != torch.contiguous_format)),
            'preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))',
        )

    def features(self, encoder: Encoder, names: Names, pictures: list[np.ndarray]) -> Tensor:
        """Features by timm, after a comparison for equal pixels with timm and transformers."""
        bgr = list(cropped(encoder.preprocessing, pictures).flip(1))
        with torch.no_grad():
            pixels = encoder.model.data_preprocessor(dict(inputs=bgr))['inputs']
            expected = encoder.features(pixels)
            found = dict(timm=names['model'](pixels))
            if importlib.util.find_spec('transformers'):
                from transformers import AutoImageProcessor, AutoModel

                AutoImageProcessor.from_pretrained(names['path'])  # it opens
                model = AutoModel.from_pretrained(names['path'])
                model.to(memory_format=_order(encoder))
                found['transformers'] = model(pixels).pooler_output
        remarks = []
        for library, features in found.items():
            largest = float((features - expected).abs().max() / expected.abs().max())
            if not largest <= self.tolerance:
                raise UserError(f'for equal pixels, features in {library} differ by {largest:.1e}')
            equal = f'differ by {largest:.1e}' if largest else 'are bit-identical'
            remarks.append(f'for equal pixels features in {library} {equal}')
        if 'transformers' not in found:
            remarks.append('transformers is not installed, so it was not tried')
        names['remark'] = '; '.join(remarks)
        return super().features(encoder, names, pictures)


def _order(encoder: Encoder) -> torch.memory_format:
    """The order in memory that the model has images in: in another one, sums round differently."""
    narrow = getattr(encoder.model, '_narrow', True)  # a classifier reorders nothing
    return torch.contiguous_format if narrow else torch.channels_last
