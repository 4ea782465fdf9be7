"""Flipped, cut and repeated bytes end in a CheckpointError or in a right read, soon and in
little memory."""

import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DIGITS
from helpers.processes import start
from mmengine.config import Config

from simclr_mm.checkpoints import read_checkpoint
from simclr_mm.checkpoints.foreign.weights import foreign_weights, read_weights, weights_for
from simclr_mm.checkpoints.stored_config import stored_config
from simclr_mm.errors import CheckpointError

HERE = Path(__file__).parent
GOOGLE = HERE / 'foreign' / 'google'
TRIES = 150
SECONDS, MEBIBYTES = 60, 300  # for all tries of one kind


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """A file with up to four faults."""
    out = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(out)))
        end = at + int(random.integers(1, 40))
        match random.integers(5):
            case 0:
                out[at] ^= 1 << int(random.integers(8))
            case 1:
                out[at] = int(random.choice([0, 1, 127, 128, 255]))
            case 2:
                out[at:end] = random.bytes(end - at)
            case 3:
                out[at:at] = out[at:end] * int(random.integers(1, 20))
            case 4:
                del out[at : at + int(random.integers(1, len(out)))]
        out = out or bytearray(1)
    return bytes(out)


def read_pytorch(file: Path) -> None:
    loaded = read_checkpoint(str(file))
    assert weights_for({'fc.weight'}, loaded, str(file)).state


def read_tensorflow(file: Path) -> None:
    """Checksums say which bytes are wrong: what is read is what was written."""
    whole = read_weights(str(GOOGLE / 'types'))
    found = read_weights(str(file))
    for key, value in found.items():
        np.testing.assert_array_equal(value, whole[key])
    with pytest.raises(CheckpointError, match='no SimCLR'):
        foreign_weights(found, str(file))


def read_config(file: Path) -> None:
    text = file.read_bytes().decode(errors='surrogateescape')
    assert stored_config(text, str(file)).model


def legacy() -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        state = dict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(2, dtype=torch.half))
        torch.save(dict(state_dict=state), file.name, _use_new_zipfile_serialization=False)
        return Path(file.name).read_bytes()


KINDS = {
    'zip': (lambda: next(HERE.glob('training_checkpoints/*2.ckpt')).read_bytes(), read_pytorch),
    'legacy': (legacy, read_pytorch),
    'index': ((GOOGLE / 'types.index').read_bytes, read_tensorflow),
    'config': (lambda: Config.fromfile(DIGITS).pretty_text.encode(), read_config),
}


def fuzz(kind: str) -> None:
    make, read = KINDS[kind]
    data, random = make(), np.random.default_rng(0)
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'a.index' if kind == 'index' else Path(folder) / 'a.pth'
        for part in GOOGLE.glob('types.data*'):
            os.symlink(part, Path(folder) / part.name.replace('types', 'a'))
        file.write_bytes(data)
        read(file)  # the file itself is in order
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(TRIES):
            file.write_bytes(mutated(data, random))
            try:
                read(file)
            except CheckpointError as error:
                assert '\n' not in str(error) and len(str(error)) < 3000, error
                refused += 1
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < MEBIBYTES << 10
    assert after.ru_utime - before.ru_utime < SECONDS
    assert refused > TRIES // 3


def fuzz_all() -> None:
    seconds = len(KINDS) * SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for kind in KINDS:
        fuzz(kind)


@pytest.mark.slow
def test_wrong_bytes():
    """In a process of its own, which a limit or a crash would end."""
    process = start(fuzz_all)
    process.join()
    assert process.exitcode == 0
