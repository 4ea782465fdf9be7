"""Export an encoder for another library, and verify it there before the file exists."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from simclr_mm.apis.encoder import Encoder
from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.installed import optional_package
from simclr_mm.version import __version__

from .backbone import features_of, file_of, pictures, settings_of, tensors_of
from .hub_folder import HubFolder
from .onnx_safetensors import Onnx, Safetensors
from .openmmlab import Detection, MMPretrain
from .target import Target
from .torchvision_timm import Timm, Torchvision

TARGETS: dict[str, Target] = dict(
    torchvision=Torchvision(),
    timm=Timm(),
    mmpretrain=MMPretrain(),
    mmdet=Detection(),
    mmseg=Detection(),
    onnx=Onnx(),
    safetensors=Safetensors(),
    hf=HubFolder(),
)
CARD = 'README.md'  # of a folder
_COUNTER = 'num_batches_tracked'  # of batch norm; features do not depend on it


@dataclass(frozen=True)
class Proof:
    """The result of a verification."""

    difference: float  # largest difference of a feature, as a share of the largest feature
    tolerance: float  # its limit
    identical: int  # number of bit-identical tensors
    absent: int  # number of tensors that the format cannot store: counters of batches
    remark: str = ''  # of the target

    def __str__(self) -> str:
        counters = f', {self.absent} counters of batches are not stored' * (self.absent > 0)
        return (
            f'features differ by at most {self.difference:.1e} of the largest (tolerance '
            f'{self.tolerance:.0e}), {self.identical} tensors are bit-identical{counters}'
            + f'; {self.remark}'
            * bool(self.remark)
        )


def export(encoder: Encoder, target: str, path: Path) -> tuple[str, Proof]:
    """Write an encoder for another library, as a file or as a folder.

    The loading code runs on the file before the file gets its name.

    Returns:
        The code that uses the file, and the result of the verification.

    Raises:
        CheckpointError: The target cannot hold this backbone, or the verification
            failed. Then there is no file.
        UserError: The folder holds other files.
    """
    entry = TARGETS[target]
    if entry.use_of_bands is None:
        encoder.require_rgb(f'--to {target}')
    for name in entry.packages:
        optional_package(name, 'export', f'--to {target}')
    metadata = metadata_of(encoder, target)
    files = entry.files(encoder, metadata)
    if files:
        proof = _folder(encoder, target, path, files)
    else:
        content = entry.write(encoder, metadata)
        with atomic_file(path) as file:
            file.write(content)
            file.flush()
            proof = verify(encoder, target, file.name)
    return f'{entry.setup(encoder, str(path))}\n{entry.use_of(encoder)}'.strip(), proof


def _folder(encoder: Encoder, target: str, path: Path, files: dict[str, bytes]) -> Proof:
    """Write a folder, verified beside its place. It replaces the files of an earlier export."""
    others = [] if not path.is_dir() else {each.name for each in path.iterdir()} - {*files, CARD}
    if others or path.is_file():
        raise UserError(f'{path} is a file or holds other files: name a new folder')
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f'.{path.name[:50]}.') as partial:
        for name, content in files.items():
            Path(partial, name).write_bytes(content)
        proof = verify(encoder, target, partial)
        path.mkdir(exist_ok=True)
        for name in files:
            os.replace(Path(partial, name), path / name)
    return proof


def verify(encoder: Encoder, target: str, path: str) -> Proof:
    """Load an exported file as its users do, and compare every weight and some features."""
    entry, shown = TARGETS[target], pictures(encoder.preprocessing)
    namespace: dict[str, Any] = dict(path=path)
    try:
        exec(entry.setup(encoder, path), namespace)  # the printed code
        found = entry.features(encoder, namespace, shown)
        weights = entry.weights(encoder, namespace)
    except Exception as error:  # libraries raise errors of many types
        raise CheckpointError(
            f'{target} does not load the export of {file_of(encoder)} '
            f'({type(error).__name__}: {error})'
        ) from error
    state = tensors_of(encoder)
    absent = [key for key in state if key not in weights]
    differing = [
        key
        for key, value in state.items()
        if key in weights and not torch.equal(weights[key], value)
    ] + [key for key in absent if not key.endswith(_COUNTER)]
    if differing:
        raise CheckpointError(
            f'the export of {file_of(encoder)} to {target} failed: '
            f'{len(differing)} weights differ, {differing[0]} first'
        )
    expected = features_of(encoder, shown)
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= entry.tolerance:
        raise CheckpointError(
            f'the export of {file_of(encoder)} to {target} failed: features differ by '
            f'{difference:.1e} of the largest, tolerance {entry.tolerance:.0e}'
        )
    identical, remark = len(state) - len(absent), namespace.get('remark', '')
    return Proof(difference, entry.tolerance, identical, len(absent), remark)


def metadata_of(encoder: Encoder, target: str) -> dict[str, Any]:
    """The metadata inside the file, plain data only."""
    return dict(
        preprocessing=encoder.preprocessing.record(),
        backbone=settings_of(encoder),
        target=target,
        config=encoder.name,
        source=file_of(encoder),
        simclr_mm_version=__version__,
    )
