"""The code blocks of README.md and docs/, and what they need to run.

A comment before a block says how it is treated: ``<!-- not run: needs a GPU -->`` leaves it
out, ``<!-- run -->`` runs the tools of a shell block, whose flags are else only parsed.
"""

import argparse
import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mmengine.registry
import mmpretrain.registry
import pytest
from mmengine.config import Config
from mmengine.registry import Registry

from helpers import CONFIGS, DIGITS, ROOT
from helpers.tools import tool
from simclr_mm.apis.model_zoo import config_file
from simclr_mm.engine.options import merge_cfg_options

PAGES = ['README.md', *sorted(f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md'))]
REGISTRIES = [
    each
    for module in (mmpretrain.registry, mmengine.registry)
    for each in vars(module).values()
    if isinstance(each, Registry)
]
_BLOCK = re.compile(r'(?:<!-- ([^>]*) -->\n+)?^```(\w*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
# Arguments of the launchers that come before those of the tool: how many, and which stay.
_LAUNCHERS = {
    'dist_train.sh': ('train.py', lambda args: args[:1] + args[2:]),
    'dist_test.sh': ('test.py', lambda args: args[:2] + args[3:]),
    'slurm_train.sh': ('train.py', lambda args: [args[2], '--work-dir', *args[3:]]),
    'slurm_test.sh': ('test.py', lambda args: args[2:]),
}
# Where no config is named, one of these takes the options.
_CONFIGS = (
    CONFIGS / 'simclr_r18_1xb256-adam-100e_in1k-128px.py',
    DIGITS,
    CONFIGS / 'benchmarks' / 'r18_1xb64-finetune-coslr-60e_cifar10-1pct.py',
)
# Commands that are no tools of this package.
_OTHERS = {
    *('cd', 'cp', 'curl', 'do', 'done', 'for', 'mkdir', 'pip', 'source', 'tensorboard', 'unzip'),
    *('[', 'embedding-atlas', 'export', 'mv'),
}


class Block(NamedTuple):
    """A code block.

    Args:
        note: The comment before it, or ''.
        language: Behind its first three backquotes.
        text: Its lines.
        line: Where it begins in the page.
    """

    note: str
    language: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(match[1] or '', match[2], match[3], text[: match.start(2)].count('\n') + 1)
        for match in _BLOCK.finditer(text)
    ]


# --- Python ---------------------------------------------------------------------------


def run_python(block: Block, namespace: dict) -> None:
    """Run a script, load a config, or write a module, in the current folder."""
    code = compile('\n' * block.line + block.text, 'block', 'exec')
    header = re.match(r'# (\S+\.py)\n', block.text)
    if '_base_ =' in block.text:
        path = Path(header[1] if header else f'configs/of_line_{block.line}.py')
        path.write_text(block.text)
        check_config(Config.fromfile(path).to_dict())
    elif header:
        Path(header[1]).write_text(block.text)
    elif any(isinstance(each, ast.Import | ast.ImportFrom) for each in ast.parse(block.text).body):
        exec(code, namespace)
    else:
        before = set(namespace)
        exec(code, namespace)
        check_config({name: namespace[name] for name in set(namespace) - before})


def check_config(part: object) -> None:
    """Every type that a config names is registered."""
    if isinstance(part, dict):
        name = part.get('type')
        if isinstance(name, str):
            assert any(registry.get(name) for registry in REGISTRIES), f'no type is named {name}'
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for each in part:
            check_config(each)


# --- Shell ----------------------------------------------------------------------------


class Call(NamedTuple):
    """A tool and its arguments."""

    tool: str
    args: list[str]


def calls_of(block: Block) -> list[Call]:
    """The tools that a shell block calls; an unknown command is an error."""
    calls, variables = [], {}
    for line in block.text.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        words = [re.sub(r'^\$(\w+)$', lambda m: variables.get(m[1], m[0]), word) for word in words]
        while words and re.match(r'\w+=', words[0]):
            name, _, value = words.pop(0).partition('=')
            variables[name] = value
        if words[:1] == ['python'] and '-c' not in words or words[:1] == ['bash']:
            words.pop(0)
        if not words:
            continue
        command, args = words[0], words[1:]
        if command.startswith('tools/'):
            calls.append(Call(command.removeprefix('tools/'), args))
        elif command == 'torchrun':
            tool = next(place for place, word in enumerate(args) if word.startswith('tools/'))
            calls.append(Call(args[tool].removeprefix('tools/'), args[tool + 1 :]))
        elif command == 'simclr-mm':
            calls.append(Call(command, args))
        elif command == '--cfg-options':
            calls.append(Call('train.py', ['CONFIG', *words]))
        elif command == 'make':
            targets = [word for word in args if '=' not in word]
            makefile = (ROOT / 'Makefile').read_text()
            for target in targets:
                assert re.search(rf'^{target}:', makefile, re.MULTILINE), f'make {target}?'
        elif command == 'python':
            compile(args[args.index('-c') + 1], 'python -c', 'exec')
        else:
            assert command in _OTHERS or command == 'python3', f'who runs {command}?'
    return calls


class _Parsed(BaseException):
    """Ends a tool when its flags were parsed."""


def _ending(parse: Callable) -> Callable:
    def parse_and_end(*args, **kwargs):
        raise _Parsed(parse(*args, **kwargs))

    return parse_and_end


def check_call(call: Call) -> None:
    """The tool takes these flags, and its configs and their options exist."""
    name, args = call
    if name in _LAUNCHERS:
        name, change = _LAUNCHERS[name]
        args = change(args)
    path = ROOT / 'tools' / name
    assert path.is_file() or name == 'simclr-mm', f'there is no tools/{name}'
    with pytest.MonkeyPatch.context() as patch:
        for method in ('parse_args', 'parse_intermixed_args'):
            parse = getattr(argparse.ArgumentParser, method)
            patch.setattr(argparse.ArgumentParser, method, _ending(parse))
        patch.syspath_prepend(str(path.parent))
        with pytest.raises(_Parsed) as end:
            tool(name, *args)
    (parsed,) = end.value.args
    configs = [Path(word) for word in args if word.startswith('configs/')]
    for word in args:
        if re.match(r'(simclr|avgsimclr|r18|r50)[\w-]*_[\w-]+$', word):
            configs.append(config_file(word))
    for config in configs:
        assert config.is_file(), f'there is no {config}'
    options = getattr(parsed, 'cfg_options', None)
    if options:
        _check_options(configs, options)


def _check_options(configs: list[Path], options: dict) -> None:
    """The config takes the options."""
    errors = []
    for path in configs or _CONFIGS:
        try:
            merge_cfg_options(Config.fromfile(path), options)
            return
        except ValueError as error:
            errors.append(str(error))
    raise AssertionError(errors)
