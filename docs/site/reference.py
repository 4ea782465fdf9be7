"""Pages of the site that are made from the code: commands, Python, types of configs."""

import argparse
import functools
import importlib
import inspect
import os
import re
import sys
from pathlib import Path
from unittest.mock import patch

from mmengine.registry import Registry

import simclr_mm
from simclr_mm import registry
from simclr_mm_console import COMMANDS, _main_of
from simclr_mm_console.parser import PROGRAM, default_of

_ROOT = Path(__file__).parents[2]
_ROOMS = {
    'apis': 'what you call from Python',
    'losses': 'functions of tensors',
    'models': 'SimCLR, projection heads, backbones, distillation',
    'transforms': 'views of an image',
    'datasets': 'images from folders, lists, arrays and shards',
    'evaluation': 'kNN, linear probes, measures without labels',
    'engine': 'runner, loops, optimizer, hooks',
    'checkpoints': 'files of weights, read safely',
    'visualization': 'pictures of a run',
    'errors': 'what a mistake raises',
}


def nav() -> list:
    """The pages below the tab Reference."""
    commands = [{name: f'commands/{name}.md'} for name in _commands()]
    python = [{f'simclr_mm.{room}': f'python/{room}.md'} for room in _ROOMS]
    return [
        {'Commands': ['commands/index.md', *commands]},
        {'Python': ['python/index.md', *python]},
        'types.md',
    ]


def pages() -> dict[str, str]:
    """Markdown by place in the site."""
    return {
        'commands/index.md': commands_page(),
        **{f'commands/{name}.md': command_page(name) for name in _commands()},
        'python/index.md': rooms_page(),
        **{f'python/{room}.md': room_page(room) for room in _ROOMS},
        'types.md': types_page(),
    }


# --- Commands -------------------------------------------------------------------------

# What a reader types: flags, paths, names with _ or $, what is in <>, a line for the shell.
_CODE = re.compile(
    r'eval "[^"]+"|(?<![\w/.])(?:--\w|<[^>]+>|[^\s(]*[/_*$~=])(?:<[^>]*>|\S)*?(?=[,.;:)]*(?:\s|$))'
)
_MANY = 3  # pages that explain a command


def _commands() -> list[str]:
    return [name for names in COMMANDS.values() for name in names]


def commands_page() -> str:
    lines = ['# Commands', '', f'Each is `{PROGRAM} NAME`, and most are a script of a clone, too.']
    for group, names in COMMANDS.items():
        lines += ['', f'## {group}', '', '| Command | What it does |', '|:--|:--|']
        for name in names:
            first = (parser_of(name).description or '').splitlines()[0]
            lines.append(f'| [{name}]({name}.md) | {_plain(first)} |')
    return '\n'.join(lines)


def command_page(name: str) -> str:
    """Description, usage and every option of a command."""
    parser = parser_of(name)
    with patch.dict(os.environ, COLUMNS='80'):
        usage = re.sub('^(usage: | {7})', '', parser.format_usage(), flags=re.MULTILINE)
    lines = [f'# {PROGRAM} {name}', '', _plain(parser.description or ''), '']
    lines += ['```text', usage.rstrip(), '```', '']
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if '--help' not in each.option_strings]
        if actions:
            title = (group.title or '').capitalize()
            lines += [f'## {title}', '', '| Name | Meaning | Default |', '|:--|:--|:--|']
            lines += [*(_row(parser, action) for action in actions), '']
    script = _script_of(name)
    if script:
        lines += [f'In a clone, `python tools/{script}` is the same.', '']
    explained = _pages_with(name, script)
    if explained:
        lines += [f'Read on: {", ".join(explained)}.', '']
    return '\n'.join(lines)


class _Parser(BaseException):
    """Carries a parser out of its command."""


@functools.cache
def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command, which ends where it would read its arguments."""

    def end(parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        raise _Parser(parser)

    main = _main_of(name)
    methods = dict(parse_args=end, parse_intermixed_args=end)
    with patch.multiple(argparse.ArgumentParser, **methods):
        with patch.object(sys, 'argv', [PROGRAM, name]):
            try:
                main([])
            except _Parser as parser:
                return parser.args[0]
    raise AssertionError(f'{name} reads no arguments')


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """A line of the table of options."""
    form = argparse.HelpFormatter(parser.prog)  # without the defaults
    written = form._format_action_invocation(action)
    text = form._expand_help(action) if action.help else ''
    default = default_of(action)
    cells = [f'`{written}`', _plain(text), f'`{default}`' if default else '']
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def _script_of(name: str) -> str:
    """The script of tools/ that calls the same main; '' if there is none."""
    module = _main_of(name).__module__
    scripts = (_ROOT / 'tools').glob('*.py')
    return next((path.name for path in scripts if f'from {module} import' in path.read_text()), '')


def _pages_with(name: str, script: str) -> list[str]:
    """Links to the pages that use a command most."""
    used = re.compile(rf'{PROGRAM} {name}\b' + (rf'|tools/{script}\b' if script else ''))
    found = []
    for path in (_ROOT / 'docs').glob('*.md'):
        text = path.read_text()
        title = re.search('^# (.+)', text)
        if title and path.name != 'README.md' and used.search(text):
            found.append((-len(used.findall(text)), f'[{title[1]}](../{path.name})'))
    return [link for _, link in sorted(found)[:_MANY]]


def _plain(text: str) -> str:
    """Plain text of a help as Markdown: what a reader types is code."""
    coded = _CODE.sub(lambda match: f'`{match[0]}`', text)
    return ''.join(
        part if part.startswith('`') else re.sub(r'([*_<>\[\]])', r'\\\1', part)
        for part in re.split(r'(`[^`]*`)', coded)
    )


# --- Python ---------------------------------------------------------------------------


def rooms_page() -> str:
    exported = ', '.join(_link(name) for name in simclr_mm.__all__ if name in _public())
    lines = ['# Python', '', f'`simclr_mm` itself has {exported}. The rest is in its rooms.', '']
    lines += ['| Room | What it holds |', '|:--|:--|']
    lines += [f'| [simclr_mm.{room}]({room}.md) | {what} |' for room, what in _ROOMS.items()]
    return '\n'.join(lines)


def room_page(room: str) -> str:
    """Every public name of a room, which mkdocstrings fills from its docstring."""
    parts = [f'# simclr_mm.{room}']
    for name, place in sorted(_names(room).items(), key=lambda pair: pair[0].lower()):
        home = place.split('.')[1]
        elsewhere = home in _ROOMS and home != room  # one anchor for each name
        parts.append(f'Also {_link(name)}.' if elsewhere else f'::: {place}')
    return '\n\n'.join(parts)


def types_page() -> str:
    """A table of what a config can name, for each registry."""
    lines = ['# Types of configs', '', 'A config names them as `simclr_mm.NAME`.']
    for kind, types in vars(registry).items():
        if isinstance(types, Registry):
            types.import_from_location()
            title = kind.capitalize().replace('_', ' ')
            lines += ['', f'## {title}', '', '| Name | What it is |', '|:--|:--|']
            for name, value in sorted(types.module_dict.items()):
                first = (inspect.getdoc(value) or '').splitlines()[0]
                place = f'{value.__module__}.{value.__qualname__}'
                lines.append(f'| [`{name}`][{place}] | {with_links(first)} |')
    return '\n'.join(lines)


def _names(room: str) -> dict[str, str]:
    """The public classes and functions of a room, and where each is defined."""
    module = importlib.import_module(f'simclr_mm.{room}')
    exported = getattr(module, '__all__', None)
    inside = f'{module.__name__ if exported is None else "simclr_mm"}.'
    places = {}
    for name in exported or vars(module):
        value = getattr(module, name)
        place = f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", "")}'
        if place.startswith(inside):  # no constants, no aliases of types
            places[name] = place
    return places


@functools.cache
def _public() -> dict[str, str]:
    return {name: place for room in _ROOMS for name, place in _names(room).items()}


def _link(name: str) -> str:
    """A name, with a link to its docstring or to that of its class if there is one."""
    last = name.split('.')[-2:]
    if last[-1] in _public():
        return f'[`{last[-1]}`][{_public()[last[-1]]}]'
    if last[0] in _public():
        return f'[`{".".join(last)}`][{_public()[last[0]]}]'
    return f'`{last[-1]}`'


def with_links(docstring: str) -> str:
    """A docstring with links for Sphinx's roles, and its own headings in bold."""
    linked = re.sub(r':(?:class|func|meth):`~?([\w.]+)`', lambda role: _link(role[1]), docstring)
    return re.sub(r'^(Source|Differs):', r'**\1:**', linked, flags=re.MULTILINE)
