"""Print the completion of commands, flags and config names for bash or zsh.

Add one line to ~/.bashrc:   eval "$(simclr-mm completion bash)"
or, after compinit, to ~/.zshrc:   eval "$(simclr-mm completion zsh)"
"""

import re

from . import COMMANDS, package, source_of
from .parser import PROGRAM, Parser

_CONFIGS = ('train', 'test', 'evaluate', 'browse-views', 'configs')  # commands that take a name
_SCRIPT = """
_simclr_mm() {{
  local words
  if [ "$COMP_CWORD" = 1 ]; then
    words='{commands}'
  else
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o bashdefault -o default -F _simclr_mm {program}
"""


def main(argv: list[str]) -> None:
    parser = Parser(__doc__)
    parser.add_argument('shell', choices=('bash', 'zsh'), help='whose completion to print')
    args = parser.parse_args(argv)
    if args.shell == 'zsh':  # it reads bash's completions
        print('autoload -U +X bashcompinit && bashcompinit')
    names = [name for group in COMMANDS.values() for name in group]
    cases = [f"      {name}) words='{' '.join(words_of(name))}' ;;" for name in names]
    commands = ' '.join([*names, '--help', '--version'])
    print(_SCRIPT.format(commands=commands, cases='\n'.join(cases), program=PROGRAM).strip())


def words_of(name: str) -> list[str]:
    """Flags of a command, read from its source, because importing it takes seconds."""
    if name == 'completion':
        return ['bash', 'zsh', '--help']
    text = source_of(name).read_text()
    shared = package() / 'commands' / 'command_line'
    if 'ENCODER_FLAGS' in text:
        text += (shared / 'encoder_flags.py').read_text()
    if 'add_common_flags' in text:
        text += (shared / 'flags.py').read_text().partition('def add_common_flags')[2]
    words = [*dict.fromkeys(re.findall(r"'(--[a-z][\w-]*)'", text)), '--help']
    if name == 'configs':
        words += ['list', 'show', 'copy']
    if name in _CONFIGS:
        configs = package() / '.mim' / 'configs'
        words += sorted(path.stem for path in configs.rglob('*_*.py') if '_base_' not in path.parts)
    return words
