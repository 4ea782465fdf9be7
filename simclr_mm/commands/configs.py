"""List the configs of simclr_mm, show one, or copy one to edit.

Every command takes a config of the list by its name, or your copy by its path.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from simclr_mm.apis.model_zoo import config_file, read_config_file
from simclr_mm.commands import command_line
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import write_text
from simclr_mm.files.installed import config_files


@command_line.command
def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser_of(__doc__)
    add = parser.add_argument
    does = 'list names (default), show a config, or copy it into a file'
    add('action', nargs='?', choices=('list', 'show', 'copy'), default='list', help=does)
    add('name', nargs='?', help='of a config; for list a part of names, or a pattern with *')
    add('file', nargs='?', help='what copy writes')
    merged = 'show or copy all settings in one file, without _base_ and comments'
    add('--merged', action='store_true', help=merged)
    args = parser.parse_args(argv)

    if args.action == 'list':
        if args.merged:
            parser.error('--merged is for show and copy')
        if args.file is not None:
            parser.error('list takes one pattern')
        print('\n'.join(_matching(args.name or '*')))
        return
    if args.name is None:
        parser.error(f'{args.action}: name a config')
    if (args.file is None) != (args.action == 'show'):
        parser.error('show takes a name, copy a name and a file to write')
    if args.merged:
        text = read_config_file(args.name).pretty_text
    else:
        text = with_absolute_bases(config_file(args.name))
    if args.action == 'show':
        print(text, end='')
        return
    copy = Path(args.file)
    if copy.suffix != '.py':
        raise UserError(f'{copy}: a config is a .py file, name the copy so')
    if copy.exists():
        raise UserError(f'{copy} exists: name another file, or remove it')
    write_text(copy, text)
    print(f'{copy} is yours to edit: simclr-mm train {copy}')


def _matching(pattern: str) -> list[str]:
    wanted = pattern if set('*?[') & set(pattern) else f'*{pattern}*'
    names = [name for name in config_files() if fnmatch(name, wanted)]
    if not names:
        raise UserError(f'no config matches {pattern}: simclr-mm configs lists all')
    return names


def with_absolute_bases(path: Path) -> str:
    """The text of a config that works in every folder."""

    def absolute(quoted: re.Match) -> str:
        base = (path.parent / quoted[1]).resolve()
        return repr(str(base)) if base.is_file() else quoted[0]

    return re.sub(r"'([^'\n]+\.py)'", absolute, path.read_text())
