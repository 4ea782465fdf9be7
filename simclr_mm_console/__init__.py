"""The console command ``simclr-mm``.

It stands beside the package, because importing the package imports PyTorch, which takes seconds.
The list of commands, their completion and the doctor do without.
"""

import ast
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from .parser import PROGRAM
from .quick_help import show_help

# One word makes a command of simclr_mm/commands/NAME.py or NAME/command.py, - written for _.
COMMANDS = {
    'Begin': ('pretrain', 'demo', 'configs', 'doctor'),
    'Train': ('train', 'few-labels', 'sweep', 'report'),
    'Measure': ('test', 'evaluate', 'verdict', 'audit', 'transfer'),
    'Use an encoder': ('embed', 'retrieve', 'convert', 'export', 'publish'),
    'Look': ('explore', 'browse-views', 'plot-embedding', 'plot-similarity'),
    'Beside': ('pack', 'band-statistics', 'completion'),
}
_HERE = ('doctor', 'completion')  # they do not import simclr_mm
_INTERRUPTED = 130  # a shell's exit code for Ctrl-C


def main() -> None:
    """Run ``simclr-mm COMMAND ...``."""
    name, *arguments = sys.argv[1:] or ['--help']
    names = [each for group in COMMANDS.values() for each in group]
    try:
        if name in ('-h', '--help'):
            print(_help())
        elif name == '--version':
            print(f'{PROGRAM} {version()}')
        elif name in names:
            if arguments in (['-h'], ['--help']):
                show_help(lambda: _main_of(name)(arguments))
            _main_of(name)(arguments)
        else:
            close = ' or '.join(get_close_matches(name, names))
            advice = f'did you mean {close}?' if close else f'{PROGRAM} --help lists them'
            print(f'{PROGRAM}: error: there is no command {name!r}: {advice}', file=sys.stderr)
            raise SystemExit(2)
        if sys.stdout is not None:  # >&-
            sys.stdout.flush()
    except KeyboardInterrupt as error:  # before the command itself has begun
        raise SystemExit(_INTERRUPTED) from error
    except BrokenPipeError:  # simclr-mm --help | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def package() -> Path:
    """The folder of the package, which is not imported."""
    spec = find_spec('simclr_mm')
    assert spec is not None and spec.origin is not None  # the same wheel carries it
    return Path(spec.origin).parent


def version() -> str:
    """The version of the package."""
    return ast.literal_eval((package() / 'version.py').read_text().partition('=')[2].strip())


def source_of(name: str) -> Path:
    """The file with the ``main`` of a command."""
    if name in _HERE:
        return Path(__file__).parent / f'{name}.py'
    room = package() / 'commands' / name.replace('-', '_')
    return room / 'command.py' if (room / 'command.py').is_file() else room.with_suffix('.py')


def _help() -> str:
    lines = [
        f'usage: {PROGRAM} COMMAND ...      {PROGRAM} COMMAND --help      {PROGRAM} --version',
        '',
        'SimCLR for OpenMMLab: pretraining, evaluation and features.',
    ]
    for group, names in COMMANDS.items():
        lines += ['', f'{group}:']
        for name in names:
            doc = ast.get_docstring(ast.parse(source_of(name).read_text())) or ''
            lines.append(f'  {name:16}{doc.splitlines()[0]}')
    return '\n'.join(lines)


def _main_of(name: str) -> Callable[[list[str]], None]:
    if name in _HERE:
        return import_module(f'{__name__}.{name}').main
    try:
        import_module('simclr_mm')
    except ImportError as error:  # PyTorch or OpenMMLab: the package cannot say it in one line
        reason = ' '.join(str(error).split())
        raise SystemExit(
            f'{PROGRAM}: error: {reason} ({PROGRAM} doctor checks everything.)'
        ) from error
    source = source_of(name).relative_to(package()).with_suffix('')
    return import_module('.'.join(['simclr_mm', *source.parts])).main
