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

# Origins of features. The last two need no checkpoint.
PRETRAINED, UNTRAINED, PIXELS = 'pretrained encoder', 'untrained encoder', 'raw pixels'


@dataclass
class Result:
    """One number.

    Args:
        task: 'classification', 'transfer', or 'representation' for measures without labels.
        dataset: Name of the dataset's class, or of the folder used instead.
        split: The scored images, such as 'test'.
        features: Origin of the features: 'pretrained encoder', 'raw pixels' ...;
            'checkpoint' for the metrics of tools/test.py.
        protocol: 'knn', 'linear', 'linear-swept', 'linear-5-labels',
            'linear-published', 'fine-tuned', 'fine-tuned-1%' ...
        metric: 'top1', 'top5' ...
        value: The number, in ``unit``.
        settings: Settings of the protocol, such as k.
        unit: '%' for every accuracy; '' if there is none.
    """

    task: str
    dataset: str
    split: str
    features: str
    protocol: str
    metric: str
    value: float
    settings: dict[str, Value] = field(default_factory=dict)
    unit: str = '%'


@dataclass
class EvaluationRun:
    """Results of one run, and their origin.

    Args:
        config: Path or name of the config.
        checkpoint: Path or URL.
        checkpoint_sha256: Of the model's loaded weights, names and values.
        seed: Of every draw. None if nothing is drawn.
        seconds: Duration of the run.
        results: Its numbers.
        time: Its end, UTC, ISO 8601.
        versions: Of this package and the packages that it computes with.
        hardware: GPU, or processor and threads.
        command: The command line.
        study: For a run of tools/sweep.py the name of the study, as ``study``, and the
            run's value on each axis.
        schema: Name and version of this format.
    """

    config: str
    checkpoint: str
    checkpoint_sha256: str
    seed: int | None
    seconds: float
    results: list[Result]
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
    study: dict[str, Value] = field(default_factory=dict)
    schema: str = SCHEMA

    def write(self, path: str | Path) -> None:
        """Write the run as JSON. The file is complete or absent."""
        with atomic_file(path) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())


def read_run(path: str | Path) -> EvaluationRun | None:
    """Read a file of :meth:`EvaluationRun.write`. None for any other JSON file.

    Raises:
        UserError: The file names this schema and lacks a part of it, or a part is of
            another kind.
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
    """The GPU, or the processor and the number of threads.

    Args:
        device: Where to compute, such as 'cpu'. None: a GPU if there is one.
    """
    if torch.cuda.is_available() and device != 'cpu':
        return torch.cuda.get_device_name(device)
    threads = f'{torch.get_num_threads()} of {os.cpu_count()} cores'
    try:
        information = Path('/proc/cpuinfo').read_text()
    except OSError:  # not Linux
        return f'{platform.machine()}, {threads}'
    model = re.search(r'model name\s*: (.+)', information)
    return f'{model[1] if model else platform.machine()}, {threads}'
