"""Export an encoder for another library, and prove it there before the file exists."""
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simclr_mm.checkpoints import CheckpointError, atomic_file
from simclr_mm.version import __version__

from . import export_files as files
from . import export_openmmlab as openmmlab
from . import export_resnets as resnets
from .export_source import Source
from .inference import pooled

_COUNTER = 'num_batches_tracked'  # of batch norm; no number that features depend on


@dataclass(frozen=True)
class Target:
    """One library that takes a backbone.

    Args:
        suffix: Of its files.
        packages: What has to be installed to verify.
        tolerance: Greatest difference of a feature from ours, as a share of the
            largest feature.
        write: Gives the bytes of the file, from the source and the metadata.
        setup: Gives the code that loads it, from the source and the path.
        use: Code after that, from a PIL image ``picture`` or an array ``bgr`` to
            ``features``; '' where the code is a config.
        run: Gives features of pictures, from what that code defined.
        weights: Gives the weights as loaded there, under our names.
    """
    suffix: str
    packages: Tuple[str, ...]
    tolerance: float
    write: Callable[[Source, Dict[str, Any]], bytes]
    setup: Callable[[Source, str], str]
    use: str
    run: Callable[[Source, Dict[str, Any], List[np.ndarray]], Tensor]
    weights: Callable[[Source, Dict[str, Any]], Dict[str, Tensor]]


@dataclass(frozen=True)
class Proof:
    """What a verification found.

    Args:
        difference: Greatest difference of a feature, as a share of the largest one.
        tolerance: What it may be.
        identical: Tensors that are the same bit by bit.
        absent: Tensors that the format has no place for: counters of batches.
    """
    difference: float
    tolerance: float
    identical: int
    absent: int

    def __str__(self) -> str:
        counters = f', {self.absent} counters of batches have no place' * (
            self.absent > 0)
        return (f'features differ by at most {self.difference:.1e} of the largest '
                f'(tolerance {self.tolerance:.0e}), {self.identical} tensors are '
                f'bit-identical{counters}')


def _pth(tensors: Callable[[Source], Dict[str, Tensor]]) -> Callable:

    def write(source: Source, metadata: Dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        torch.save(dict(state_dict=tensors(source), meta=metadata), buffer)
        return buffer.getvalue()

    return write


_ONE = 'features = model(preprocess(picture)[None])  # (1, C)'
_CONFIG = Target('.pth', (), 1e-5, _pth(openmmlab.plain_tensors),
                 openmmlab.config_setup, '', openmmlab.config_run,
                 openmmlab.config_weights)
TARGETS = {
    'torchvision':
    Target('.pth', ('torchvision', ), 1e-5, _pth(resnets.torchvision_tensors),
           resnets.torchvision_setup, _ONE, resnets.run, resnets.torchvision_weights),
    'timm':
    Target('.pth', ('timm', ), 1e-5, _pth(resnets.timm_tensors), resnets.timm_setup,
           _ONE, resnets.run, resnets.timm_weights),
    'mmpretrain':
    Target(
        '.pth', (), 1e-5, _pth(openmmlab.mmpretrain_tensors),
        openmmlab.mmpretrain_setup,
        'features = FeatureExtractor(model)(bgr)[0]  # a path, or a uint8 BGR array',
        openmmlab.mmpretrain_run, openmmlab.mmpretrain_weights),
    'mmdet':
    _CONFIG,
    'mmseg':
    _CONFIG,
    # Other kernels than PyTorch's.
    'onnx':
    Target('.onnx', ('onnx', 'onnxruntime', 'onnxscript'), 1e-4, files.onnx_bytes,
           files.onnx_setup,
           'features, = session.run(None, {"images": crop(picture)[None].numpy()})',
           files.onnx_run, files.onnx_weights),
    'safetensors':
    Target('.safetensors', ('safetensors', ), 1e-5, files.safetensors_bytes,
           files.safetensors_setup,
           'features = backbone(preprocess(picture)[None])[-1]  # of the last stage',
           files.safetensors_run, files.safetensors_weights)
}


def export(source: Source, target: str, path: Path) -> Tuple[str, Proof]:
    """Write an encoder for another library.

    The code that loads it is run on the file before the file gets its name.

    Args:
        source: The encoder.
        target: A key of ``TARGETS``.
        path: Where the file shall stand.

    Returns:
        The code that uses it, and what the verification found.

    Raises:
        CheckpointError: the target cannot hold this backbone, or the verification
            failed; there is no file then.
        ValueError: a package is missing.
    """
    entry = TARGETS[target]
    require(entry.packages, f'--to {target}')
    content = entry.write(source, metadata_of(source, target))
    with atomic_file(path) as file:
        file.write(content)
        file.flush()
        proof = verify(source, target, file.name)
    return f'{entry.setup(source, str(path))}\n{entry.use}'.strip(), proof


def verify(source: Source, target: str, path: str) -> Proof:
    """Load an exported file as its users do, and compare.

    Args:
        source: The encoder.
        target: A key of ``TARGETS``.
        path: The file.

    Returns:
        What was found.

    Raises:
        CheckpointError: it does not load, a weight differs in a bit, or a feature by
            more than the tolerance.
    """
    entry, pictures = TARGETS[target], source.pictures()
    namespace: Dict[str, Any] = dict(path=path)
    try:
        exec(entry.setup(source, path), namespace)  # the code that is printed
        found = entry.run(source, namespace, pictures)
        namespace.update(picture=Image.fromarray(pictures[0]))
        namespace.update(bgr=np.ascontiguousarray(pictures[0][..., ::-1]))
        exec(entry.use, namespace)
        weights = entry.weights(source, namespace)
    except Exception as error:  # whatever another library says
        raise CheckpointError(f'{target} does not take the export of {source.file} '
                              f'({type(error).__name__}: {error})') from error
    absent = [key for key in source.state if key not in weights]
    differing = [
        key for key, value in source.state.items()
        if key in weights and not torch.equal(weights[key], value)
    ] + [key for key in absent if not key.endswith(_COUNTER)]
    if differing:
        raise CheckpointError(f'the export of {source.file} to {target} failed: '
                              f'{len(differing)} weights differ, {differing[0]} first')
    expected = source.features(pictures)
    if entry.use:
        found = torch.cat([found, _row(namespace['features'])])
        expected = torch.cat([expected, expected[:1]])
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= entry.tolerance:
        raise CheckpointError(
            f'the export of {source.file} to {target} failed: features differ by '
            f'{difference:.1e} of the largest, tolerance {entry.tolerance:.0e}')
    return Proof(difference, entry.tolerance,
                 len(source.state) - len(absent), len(absent))


def _row(features: Any) -> Tensor:
    """One picture's features as (1, C), in whatever form a library gives them."""
    if isinstance(features, (list, tuple)):
        features = features[-1]
    return pooled(torch.as_tensor(features).detach()).reshape(1, -1)


def metadata_of(source: Source, target: str) -> Dict[str, Any]:
    """What travels inside the file, plain data only."""
    return dict(
        preprocessing=source.preprocessing.record(),
        backbone=source.backbone,
        target=target,
        config=source.name,
        source=source.file,
        simclr_mm_version=__version__)


def require(packages: Tuple[str, ...], reason: str) -> None:
    """Stop where a package is missing.

    Raises:
        ValueError: with the command that installs it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'{reason} needs {", ".join(missing)}: '
                         f'pip install {" ".join(missing)}')
