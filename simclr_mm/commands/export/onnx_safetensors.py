"""Backbones as ONNX and safetensors files, whatever their architecture."""

import json
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from simclr_mm.apis.inference import pooled
from simclr_mm.errors import UserError

from .source import Source

_PREFIX = 'encoder.backbone.'


class PixelEncoder(nn.Module):
    """Features of pixels: normalises inside, so that no caller can do it wrong.

    Args:
        source: The encoder.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.encoder = source.model
        for name in ('mean', 'std'):
            values = torch.tensor(getattr(source.preprocessing, name)).mul(255)
            self.register_buffer(f'pixel_{name}', values.view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB (n, 3, S, S) -> (n, C)."""
        images = (images.float() - self.pixel_mean) / self.pixel_std
        return self.encoder.extract_feat(images)


def onnx_bytes(source: Source, metadata: dict[str, Any]) -> bytes:
    """An ONNX model from uint8 RGB (n, 3, S, S) to features (n, C), any n.

    Every weight stays an initialiser under its name behind ``encoder.backbone.``.
    """
    import onnxscript.optimizer

    size = source.preprocessing.size
    program = torch.onnx.export(
        PixelEncoder(source).eval(),
        (torch.zeros(2, 3, size, size, dtype=torch.uint8),),
        input_names=['images'],
        output_names=['features'],
        dynamic_shapes={'images': {0: torch.export.Dim('n')}},
        dynamo=True,
        # Optimised, batch norm would be multiplied into the convolutions.
        optimize=False,
        verbose=False,
    )
    onnxscript.optimizer.fold_constants(program.model, should_fold=_needs_no_weight)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    program.model.metadata_props.update(_texts(metadata))
    return program.model_proto.SerializeToString()


def _needs_no_weight(node: Any) -> bool | None:
    """False to keep a node: folded, its weights would be stored transposed."""
    names = (value.name for value in node.inputs if value is not None)
    return False if any(name.startswith(_PREFIX) for name in names) else None


def onnx_setup(source: Source, path: str) -> str:
    """Code that makes ``session`` and ``crop``."""
    pixels = source.preprocessing.torchvision(normalise=False)
    return '\n'.join(
        [
            'import onnxruntime',
            'from torchvision.transforms import v2',
            f'session = onnxruntime.InferenceSession({path!r})',
            f'crop = {pixels}',
        ]
    )


def onnx_run(source: Source, namespace: dict[str, Any], pictures: list[np.ndarray]) -> Tensor:
    """(n, C), all pictures at once, after the first one alone gave the same."""
    session, images = namespace['session'], source.cropped(pictures).numpy()
    (features,) = session.run(None, {'images': images})
    (first,) = session.run(None, {'images': images[:1]})
    if not np.allclose(first, features[:1], rtol=0, atol=1e-4 * np.abs(features).max()):
        raise UserError('a batch of 1 gives other features than a batch of 3')
    return torch.from_numpy(features)


def onnx_weights(source: Source, namespace: dict[str, Any]) -> dict[str, Tensor]:
    """The initialisers; a counter of batches has no place in a graph."""
    from onnx import load, numpy_helper

    initialisers = load(namespace['path']).graph.initializer
    return {
        entry.name.removeprefix(_PREFIX): torch.from_numpy(numpy_helper.to_array(entry).copy())
        for entry in initialisers
        if entry.name.startswith(_PREFIX)
    }


def safetensors_bytes(source: Source, metadata: dict[str, Any]) -> bytes:
    """The backbone's tensors with the metadata as JSON texts."""
    from safetensors.torch import save

    return save(dict(source.state), _texts(metadata))


def safetensors_setup(source: Source, path: str) -> str:
    """Code that makes ``backbone`` and ``preprocess``."""
    return '\n'.join(
        [
            'import json, safetensors, torch',
            'from mmpretrain.registry import MODELS',
            'from torchvision.transforms import v2',
            f'file = safetensors.safe_open({path!r}, "pt")',
            'backbone = MODELS.build(json.loads(file.metadata()["backbone"]))',
            'backbone.load_state_dict({key: file.get_tensor(key) for key in file.keys()})',
            'backbone.eval()',
            f'preprocess = {source.preprocessing.torchvision()}',
        ]
    )


def safetensors_run(
    source: Source, namespace: dict[str, Any], pictures: list[np.ndarray]
) -> Tensor:
    """(n, C) of the backbone."""
    images = [namespace['preprocess'](Image.fromarray(rgb)) for rgb in pictures]
    with torch.no_grad():
        return pooled(namespace['backbone'](torch.stack(images)))


def safetensors_weights(source: Source, namespace: dict[str, Any]) -> dict[str, Tensor]:
    """What the backbone holds."""
    return namespace['backbone'].state_dict()


def _texts(metadata: dict[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
    }
