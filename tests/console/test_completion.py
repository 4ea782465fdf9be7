"""Completion in a real shell, and that it knows every flag."""

import re
import subprocess

import pytest
from helpers.tools import tool

import simclr_mm_console
from simclr_mm_console.completion import words_of

NAMES = [name for group in simclr_mm_console.COMMANDS.values() for name in group]


@pytest.mark.parametrize('name', NAMES)
def test_every_flag_of_the_parser_is_completed(name, capsys):
    with pytest.raises(SystemExit):
        tool('simclr-mm', name, '--help')
    helped = capsys.readouterr().out
    flags = set(re.findall(r'(?:^  (?:-\w(?: \w+)?, )?|, )(--[a-z][\w-]*)', helped, re.M))
    assert {word for word in words_of(name) if word.startswith('--')} == flags


@pytest.mark.parametrize(
    ('typed', 'completed'),
    [
        (['ret'], {'retrieve'}),
        (['plot-'], {'plot-embedding', 'plot-similarity'}),
        (['train', '--no-v'], {'--no-validate'}),
        (['configs', 'sh'], {'show'}),
        (['train', 'simclr_r18-w16_1xb64-c'], {'simclr_r18-w16_1xb64-coslr-30e_digits'}),
        (['train', 'photographs/'], set()),  # bash then completes files
    ],
)
def test_bash_completes(typed, completed, capsys):
    tool('simclr-mm', 'completion', 'bash')
    words = ' '.join(['simclr-mm', *typed])
    script = (
        f'{capsys.readouterr().out}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed)}\n'
        '_simclr_mm\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(['bash', '-c', script], capture_output=True, text=True, timeout=20)
    assert not ended.stderr and set(ended.stdout.split()) == completed


def test_zsh_reads_the_same(capsys):
    tool('simclr-mm', 'completion', 'bash')
    script = capsys.readouterr().out
    tool('simclr-mm', 'completion', 'zsh')
    first, _, rest = capsys.readouterr().out.partition('\n')
    assert first == 'autoload -U +X bashcompinit && bashcompinit' and rest == script
