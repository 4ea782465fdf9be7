"""Results of every evaluation in one format: one JSON file for each run."""

import json
import os
import platform
import re
import shlex
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import mmengine
import mmpretrain
import sklearn
import torch

from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.version import __version__

SCHEMA = 'simclr_mm.evaluation/1'
Value = int | float | str

# Origins of features: the first two are a checkpoint's, the second in simclr-mm test.
PRETRAINED, CHECKPOINT = 'pretrained encoder', 'checkpoint'
UNTRAINED, PIXELS = 'untrained encoder', 'raw pixels'


@dataclass
class Result:
    """One number."""

    task: str  # 'classification', 'transfer', or 'representation' for measures without labels
    dataset: str  # name of the dataset's class, or of the folder used instead
    split: str  # of the scored images, such as 'test'
    features: str  # 'pretrained encoder' ..., or the name of another encoder
    protocol: str  # 'knn', 'linear', 'linear-swept', 'linear-5-labels', 'fine-tuned-1%' ...
    metric: str  # 'top1', 'top5' ...
    value: float  # in ``unit``
    settings: dict[str, Value] = field(default_factory=dict)  # of the protocol, such as k
    unit: str = '%'  # of every accuracy; '' if there is none


@dataclass
class EvaluationRun:
    """Results of one run, and their origin."""

    config: str  # path or name
    checkpoint: str  # path or URL
    checkpoint_sha256: str  # of the model's loaded weights, names and values
    seed: int | None  # of every draw; None if nothing is drawn
    seconds: float  # duration of the run
    results: list[Result]
    # The end of the run, UTC, ISO 8601.
    time: str = field(default_factory=lambda: time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()))
    versions: dict[str, str] = field(
        default_factory=lambda: dict(
            simclr_mm=__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            mmengine=mmengine.__version__,
            mmpretrain=mmpretrain.__version__,
            scikit_learn=sklearn.__version__,
        )
    )
    hardware: str = field(default_factory=lambda: hardware())
    command: str = field(default_factory=lambda: shlex.join(sys.argv))
    # For a run of simclr-mm sweep: the name of the study, and the run's value on each axis.
    study: dict[str, Value] = field(default_factory=dict)
    schema: str = SCHEMA  # name and version of this format

    def write(self, path: str | Path) -> None:
        """Write the run as JSON, the whole of it or nothing."""
        with atomic_file(path) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())


def read_run(path: str | Path) -> EvaluationRun | None:
    """Read a file of :meth:`EvaluationRun.write`. None for any other JSON file.

    Raises:
        UserError: The file names this schema, but a part is missing or of another kind.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get('schema') != SCHEMA:
        return None
    missing = {each.name for each in fields(EvaluationRun)} - set(content)
    if missing:
        raise UserError(f'{path} is no {SCHEMA} file: it lacks {", ".join(sorted(missing))}')
    try:
        results = [Result(**result) for result in content.pop('results')]
        run = EvaluationRun(**content, results=results)
        for part in (run, *results):
            _require_kinds(part)
        return run
    except TypeError as error:
        raise UserError(f'{path} is no {SCHEMA} file: {error}') from error


def _require_kinds(part: object) -> None:
    for name, kind in get_type_hints(type(part)).items():
        allowed = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        kinds = tuple(get_origin(each) or each for each in allowed)
        if float in kinds:
            kinds += (int,)  # JSON writes 1.0 and 1
        value = getattr(part, name)
        if not isinstance(value, kinds):
            raise TypeError(f'{name} is {str(value)[:50]!r}, of another kind')


def hardware(device: str | None = None) -> str:
    """Name of the GPU, or of the processor with its threads, that computes on this device."""
    if torch.cuda.is_available() and device != 'cpu':
        return torch.cuda.get_device_name(device)
    threads = f'{torch.get_num_threads()} of {os.cpu_count()} cores'
    try:
        information = Path('/proc/cpuinfo').read_text()
    except OSError:  # not Linux
        return f'{platform.machine()}, {threads}'
    model = re.search(r'model name\s*: (.+)', information)
    return f'{model[1] if model else platform.machine()}, {threads}'
