"""Export backbones of any architecture as ONNX and safetensors files."""

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simclr_mm.apis.encoder import Encoder
from simclr_mm.errors import UserError
from simclr_mm.models import pooled

from .backbone import cropped, tensors_of
from .target import Names, Target, code

_PREFIX = 'encoder.backbone.'


class PixelEncoder(nn.Module):
    """Features of pixels, with the normalisation inside the model."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.model
        for name in ('mean', 'std'):
            values = torch.tensor(getattr(encoder.preprocessing, name))
            if encoder.preprocessing.loading is None:
                values = values.mul(255)
            self.register_buffer(f'pixel_{name}', values.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB (n, 3, S, S), or float32 (n, bands, S, S) -> (n, C)."""
        images = (images.float() - self.pixel_mean) / self.pixel_std
        return pooled(self.encoder.extract_feat(images), self.encoder)


class Onnx(Target):
    """A model from uint8 RGB (n, 3, S, S), or bands in float32, to features (n, C), for any n.

    Every weight stays an initialiser under its name, with the prefix ``encoder.backbone.``.
    """

    suffix = '.onnx'
    packages = ('onnx', 'onnxruntime', 'onnxscript')
    tolerance = 1e-4  # its kernels differ from PyTorch's
    use = 'features, = session.run(None, {"images": crop(picture)[None].numpy()})'
    use_of_bands = 'features, = session.run(None, {"images": images})  # float32, as in the files'

    def write(self, encoder: Encoder, metadata: dict[str, Any]) -> bytes:
        if torch.__version__ < '2.7':  # 2.6 does not take onnxscript's batch norm
            raise UserError(f'--to onnx needs PyTorch 2.7 or newer, this is {torch.__version__}')
        import onnxscript.optimizer

        size = encoder.preprocessing.size
        dtype = torch.uint8 if encoder.preprocessing.loading is None else torch.float32
        program = torch.onnx.export(
            PixelEncoder(encoder).eval(),
            (torch.zeros(2, encoder.bands, size, size, dtype=dtype),),
            input_names=['images'],
            output_names=['features'],
            dynamic_shapes={'images': {0: torch.export.Dim('n')}},
            dynamo=True,
            # The optimiser would fold batch norm into the convolutions.
            optimize=False,
            verbose=False,
        )
        assert program is not None  # returned, because no file is given
        onnxscript.optimizer.fold_constants(program.model, should_fold=_needs_no_weight)
        onnxscript.optimizer.remove_unused_nodes(program.model)
        program.model.metadata_props.update(_texts(metadata))
        return program.model_proto.SerializeToString()

    def setup(self, encoder: Encoder, path: str) -> str:
        session = f'session = onnxruntime.InferenceSession({path!r})'
        if encoder.preprocessing.loading is not None:
            return code('import onnxruntime', session)
        return code(
            'import onnxruntime',
            'from torchvision.transforms import v2',
            session,
            f'crop = {encoder.preprocessing.torchvision(normalise=False)}',
        )

    def features(self, encoder: Encoder, names: Names, pictures: list[np.ndarray]) -> Tensor:
        """Features of single images, after a check that a batch gives the same."""
        alone = super().features(encoder, names, pictures)
        images = cropped(encoder.preprocessing, pictures).numpy()
        (together,) = names['session'].run(None, {'images': images})
        if not np.allclose(alone, together, rtol=0, atol=1e-4 * np.abs(together).max()):
            raise UserError('a batch of 1 gives other features than a batch of 3')
        return alone

    def weights(self, encoder: Encoder, names: Names) -> dict[str, Tensor]:
        """The initialisers. A graph has no counters of batches."""
        from onnx import load, numpy_helper

        return {
            entry.name.removeprefix(_PREFIX): torch.from_numpy(numpy_helper.to_array(entry).copy())
            for entry in load(names['path']).graph.initializer
            if entry.name.startswith(_PREFIX)
        }


class Safetensors(Target):
    """The backbone's tensors, with the metadata as JSON texts."""

    suffix = '.safetensors'
    packages = ('safetensors',)
    use = 'features = backbone(preprocess(picture)[None])[-1]  # of the last stage'
    use_of_bands = 'features = backbone((torch.as_tensor(images) - mean) / std)[-1]'

    def write(self, encoder: Encoder, metadata: dict[str, Any]) -> bytes:
        from safetensors.torch import save

        return save(tensors_of(encoder), _texts(metadata))

    def setup(self, encoder: Encoder, path: str) -> str:
        how = encoder.preprocessing
        prepare = ['from torchvision.transforms import v2', f'preprocess = {how.torchvision()}']
        if how.loading is not None:
            prepare = [
                f'{name} = torch.tensor({list(getattr(how, name))}).view(-1, 1, 1)'
                for name in ('mean', 'std')
            ]
        return code(
            'import json, safetensors, torch',
            'from mmpretrain.registry import MODELS',
            f'file = safetensors.safe_open({path!r}, "pt")',
            'backbone = MODELS.build(json.loads(file.metadata()["backbone"]))',
            'backbone.load_state_dict({key: file.get_tensor(key) for key in file.keys()})',
            'backbone.eval()',
            *prepare,
        )

    def weights(self, encoder: Encoder, names: Names) -> dict[str, Tensor]:
        return names['backbone'].state_dict()


def _needs_no_weight(node: Any) -> bool | None:
    """False to keep a node, because folding would store its weights transposed."""
    names = (value.name for value in node.inputs if value is not None)
    return False if any(name.startswith(_PREFIX) for name in names) else None


def _texts(metadata: dict[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
    }
