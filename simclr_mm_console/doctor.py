"""Check the machine and everything that simclr_mm needs, with a remedy for what is missing.

The exit code is 1 if something that every command needs is missing.
"""

import os
import platform
import re
import runpy
import shutil
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NamedTuple

from . import package, version
from .parser import Parser

_GIB = 1 << 30
# One of two, and what developers install.
_NOT_OPTIONAL = ('onedl', 'openmmlab', 'test', 'lint', 'docs', 'release')
_LITTLE_SHARED = 1 << 28  # Docker gives 64 MB, which a few batches of photographs fill


class Finding(NamedTuple):
    """A line of the report.

    Args:
        name: What was looked at.
        state: 'ok', 'note' (something is slower or optional) or 'MISSING'.
        text: What was found.
        remedy: What to do, or ''.
    """

    name: str
    state: str
    text: str
    remedy: str = ''


def main(argv: list[str]) -> None:
    Parser(__doc__).parse_args(argv)
    failed = 0
    for finding in findings():
        print(f'{finding.state:8}{finding.name:16}{finding.text}', flush=True)
        if finding.remedy:
            print(f'{"":24}-> {finding.remedy}')
        failed += finding.state == 'MISSING'
    if failed:
        raise SystemExit(1)
    print('Everything that simclr_mm needs is there.')


def findings() -> Iterator[Finding]:
    """Every check, cheap ones first."""
    yield Finding('simclr_mm', 'ok', f'{version()} in {package()}')
    yield Finding('Python', 'ok', f'{platform.python_version()} in {sys.prefix}')
    whole = True
    for finding in [*systems(), *packages(), openmmlab()]:
        whole &= finding.state != 'MISSING'
        yield finding
    yield from machine()
    if whole:
        yield from computing()


def systems() -> Iterator[Finding]:
    """The operating system, if nothing runs in it."""
    try:
        _requirements_check()['check_system']()
    except ImportError as error:
        what, _, remedy = str(error).partition('. ')
        yield Finding('system', 'MISSING', what, remedy)


def packages() -> Iterator[Finding]:
    """What the installed wheel asks for, and its extras."""
    from packaging.requirements import Requirement

    extras: dict[str, list[str]] = {}
    for text in metadata.requires('simclr_mm') or ():
        required = Requirement(text)
        extra = re.search(r'extra == ["\'](\w+)', text)
        found = _installed(required.name)
        if extra is not None:
            lacking = extras.setdefault(extra[1], [])
            if found is None or not required.specifier.contains(found, prereleases=True):
                lacking.append(required.name)
        elif found is None:
            yield Finding(required.name, 'MISSING', 'is not installed', f'pip install "{text}"')
        elif not required.specifier.contains(found, prereleases=True):  # nightlies, NVIDIA's
            remedy = f'pip install "{text}"'
            yield Finding(required.name, 'MISSING', f'{found} is too old', remedy)
        elif required.name in ('torch', 'torchvision', 'numpy'):
            yield Finding(required.name, 'ok', found)
    for name in _NOT_OPTIONAL:
        extras.pop(name, None)
    for name, lacking in extras.items():
        if lacking:
            remedy = f"to use it: pip install 'simclr_mm[{name}]'"
            yield Finding(f'[{name}]', 'note', f'optional, lacks {", ".join(lacking)}', remedy)
        else:
            yield Finding(f'[{name}]', 'ok', 'optional, all there')


def openmmlab() -> Finding:
    """Which of the two OpenMMLab distributions is installed, and whether it is whole."""
    check = _requirements_check()
    owners = [name for names in check['_OWNERS'].values() for name in names]
    found = [f'{name} {_installed(name)}' for name in owners if _installed(name)]
    try:
        check['check_openmmlab']()
    except ImportError as error:
        what, _, remedy = str(error).partition('. ')
        return Finding('OpenMMLab', 'MISSING', what, remedy)
    return Finding('OpenMMLab', 'ok', ', '.join(found))


def machine() -> Iterator[Finding]:
    """Cores, memory and disk that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    yield Finding('cores', 'ok', f'{cores}, {platform.machine()}')
    if hasattr(os, 'sysconf'):
        total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        yield Finding('memory', 'ok', f'{total / _GIB:.1f} GiB')
    free = shutil.disk_usage('.').free
    state, remedy = 'ok', ''
    if free < _GIB:
        state, remedy = 'note', 'name another disk with --work-dir: checkpoints take up to 0.3 GiB'
    yield Finding('disk', state, f'{free / _GIB:.1f} GiB free in this folder', remedy)
    if os.path.isdir('/dev/shm'):
        shared = shutil.disk_usage('/dev/shm').total
        state, remedy = 'ok', ''
        if shared < _LITTLE_SHARED:
            state, remedy = 'note', 'start the container with --shm-size=8g, or use num_workers=0'
        yield Finding('shared memory', state, f'{shared / _GIB:.2f} GiB for loader workers', remedy)


def computing() -> Iterator[Finding]:
    """The device, its number formats, and whether the package imports."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            import torch

            import simclr_mm  # noqa: F401
            from simclr_mm.engine.optim_wrapper import native_bf16
        except Exception as error:
            text = ' '.join(f'{type(error).__name__}: {error}'.split())
            remedy = "install it anew: pip install --force-reinstall 'simclr_mm[onedl]'"
            if 'libGL' in text or 'libgthread' in text:
                remedy = (
                    'apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless'
                )
            yield Finding('import', 'MISSING', text, remedy)
            return
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda':
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            yield Finding(f'GPU {index}', 'ok', f'{card.name}, {card.total_memory / _GIB:.0f} GiB')
    elif torch.backends.mps.is_available():
        yield Finding('GPU', 'ok', 'MPS of a Mac: trains on it; not tested')
    elif shutil.which('nvidia-smi') is None:
        yield Finding('GPU', 'note', 'none: everything runs on the CPU, small images in minutes')
    elif torch.version.cuda is None:
        remedy = 'install a CUDA build of torch and torchvision: https://pytorch.org/get-started'
        yield Finding('GPU', 'note', 'there is one, but this PyTorch is built without CUDA', remedy)
    else:
        remedy = f'update the NVIDIA driver to one for CUDA {torch.version.cuda}; see nvidia-smi'
        yield Finding('GPU', 'note', 'there is one, but PyTorch cannot use it', remedy)
    native, reason = native_bf16(device)
    yield Finding(
        'bf16', 'ok' if native else 'note', f'{reason}: trains in {"bf16" if native else "float32"}'
    )


def _requirements_check() -> dict[str, Any]:
    return runpy.run_path(str(package() / 'requirements_check.py'))


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
