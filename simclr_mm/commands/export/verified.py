"""Export an encoder for another library, and verify it there before the file exists."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simclr_mm.apis.encoder import Encoder
from simclr_mm.commands.command_line.errors import require
from simclr_mm.errors import CheckpointError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.version import __version__

from .backbone import features_of, file_of, pictures, settings_of, tensors_of
from .targets import TARGETS

_COUNTER = 'num_batches_tracked'  # of batch norm; features do not depend on it


@dataclass(frozen=True)
class Proof:
    """The result of a verification."""

    difference: float  # largest difference of a feature, as a share of the largest feature
    tolerance: float  # its limit
    identical: int  # number of bit-identical tensors
    absent: int  # number of tensors that the format cannot store: counters of batches

    def __str__(self) -> str:
        counters = f', {self.absent} counters of batches are not stored' * (self.absent > 0)
        return (
            f'features differ by at most {self.difference:.1e} of the largest (tolerance '
            f'{self.tolerance:.0e}), {self.identical} tensors are bit-identical{counters}'
        )


def export(encoder: Encoder, target: str, path: Path) -> tuple[str, Proof]:
    """Write an encoder for another library.

    The loading code runs on the file before the file gets its name.

    Returns:
        The code that uses the file, and the result of the verification.

    Raises:
        CheckpointError: The target cannot hold this backbone, or the verification
            failed. Then there is no file.
    """
    entry = TARGETS[target]
    require(entry.packages, f'--to {target}')
    content = entry.write(encoder, metadata_of(encoder, target))
    with atomic_file(path) as file:
        file.write(content)
        file.flush()
        proof = verify(encoder, target, file.name)
    return f'{entry.setup(encoder, str(path))}\n{entry.use}'.strip(), proof


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
    return Proof(difference, entry.tolerance, len(state) - len(absent), len(absent))


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
