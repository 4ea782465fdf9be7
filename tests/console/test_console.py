"""``simclr-mm``: every command, its mistakes, and what it starts without."""

import importlib
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from helpers.tools import tool

import simclr_mm_console
from simclr_mm import commands
from simclr_mm.version import __version__
from simclr_mm_console.quick_help import show_help

NAMES = [name for group in simclr_mm_console.COMMANDS.values() for name in group]
SHARED = {'command_line', 'model_card', 'runs', 'shown_run'}  # rooms without a command
START = 'import sys; sys.argv[0] = "simclr-mm"; import simclr_mm_console as c; c.main()'
TORCH = """import atexit, sys
atexit.register(lambda: print(hasattr(sys.modules.get("torch"), "__file__")))"""


def started(*args, code=START, **variables):
    return subprocess.run(
        [sys.executable, '-c', code, *args],
        env={**os.environ, 'PYTHONPATH': str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=200,
    )


def ending(*args):
    with pytest.raises(SystemExit) as end:
        tool('simclr-mm', *args)
    return end.value.code


def test_every_room_of_commands_is_a_command():
    rooms = {module.name for module in pkgutil.iter_modules(commands.__path__)} - SHARED
    assert {name.replace('-', '_') for name in NAMES} - {'doctor', 'completion'} == rooms


def test_help_lists_every_command_with_its_first_line_and_loads_no_torch():
    code = f'{START}\nprint(*sys.modules)'
    ended = started(code=code)
    text, _, modules = ended.stdout.strip().rpartition('\n')
    assert ended.returncode == 0 and not ended.stderr
    assert not {'torch', 'numpy', 'mmengine', 'simclr_mm'} & set(modules.split())
    assert re.findall(r'^  ([\w-]+) +\S', text, re.M) == NAMES
    assert 'train           Train a config: pretraining' in text


def test_version(capsys):
    tool('simclr-mm', '--version')
    assert capsys.readouterr().out == f'simclr-mm {__version__}\n'


def test_no_command_is_help(capsys):
    tool('simclr-mm')
    assert 'usage: simclr-mm COMMAND' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('word', 'advice'),
    [
        ('trian', 'did you mean train'),
        ('plot_embedding', 'did you mean plot-embedding'),
        ('zzz', 'simclr-mm --help lists them'),
        ('--bogus', 'simclr-mm --help lists them'),
    ],
)
def test_an_unknown_command(word, advice, capsys):
    assert ending(word) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"simclr-mm: error: there is no command '{word}': {advice}")


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'demo'])
def test_help_and_an_unknown_option_of_each_command(name, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    assert ending(name, '--help') == 0
    text = capsys.readouterr().out
    assert text.startswith(f'usage: simclr-mm {name} [-h]')
    assert 'default: None' not in text and 'default: False' not in text
    quick = started(name, '--help', code=f'{TORCH}\n{START}')  # with stand-ins for all libraries
    assert not quick.stderr and quick.stdout == f'{text}False\n'
    assert ending(name, '--bogus', 'x') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'simclr-mm {name}: error: ')


def test_where_stand_ins_do_not_do_the_libraries_are_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, 'simclr_mm')
    done = []

    def run():
        done.append(importlib.import_module('no_such_library.part').anything(1)[2])
        raise TypeError('as if a stand-in were no number')

    show_help(run)
    assert done and not any(name.startswith('no_such') for name in sys.modules)
    with pytest.raises(ImportError):
        importlib.import_module('no_such_library')


MISTAKES = {
    'demo': [('--work-dir', '')],
    'train': [('absent.py',), ('simclr_r18_1xb512-coslr-100e_cifar',), ('absent.py', '--amp')],
    'test': [('absent.py', 'a.pth'), ('a.py', 'absent.pth', '--out', 'a.txt'), ('', 'a.pth')],
    'evaluate': [('absent.py', 'a.pth'), ('', 'a.pth')],
    'transfer': [('absent.pth', '.'), ('absent.pth', 'absent')],
    'few-labels': [('absent.pth',)],
    'sweep': [('augmentations', '--config', 'absent.py')],
    'embed': [('absent.pth', '.'), ('no_such_model', '.')],
    'retrieve': [('absent.jpg', '--index', 'absent')],
    'export': [('absent.pth', '--to', 'timm')],
    'publish': [('absent.pth', 'out'), ('absent.pth', 'out', '--weights-url', 'ftp')],
    'convert': [('absent.pth', 'out.pth')],
    'report': [('absent',), ('.',)],
    'browse-views': [('absent.py',), ('absent.py', '--count', '101')],
    'plot-embedding': [('absent',)],
    'plot-similarity': [('absent.py', 'a.pth'), ('absent.py', 'a.pth', '--count', '1')],
    'pack': [('absent', 'out')],
    'band-statistics': [('absent',), ('.', '--out', 'a.txt'), ('.', '--base', 'absent')],
    'configs': [('show', 'absent'), ('list', 'no*such'), ('copy', 'absent', 'a.py')],
}


@pytest.mark.parametrize(
    ('name', 'args'), [(name, args) for name, rows in MISTAKES.items() for args in rows]
)
def test_a_mistake_is_one_line_with_exit_code_1(name, args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = ending(name, *args)  # printed to stderr; a string is exit code 1
    assert isinstance(said, str) and said.startswith(f'simclr-mm {name}: error: ')


@pytest.mark.parametrize(
    'args',
    [
        ('evaluate', 'a.py', 'a.pth', '--draws', '0'),
        ('embed', 'a.pth', '.', '--batch-size', 'x'),
        ('sweep', 'augmentation', '--config', 'a.py'),
        ('export', 'a.pth', '--to', 'no_library'),
        ('completion', 'fish'),
        ('configs', 'remove'),
        ('retrieve', 'a.jpg'),
    ],
)
def test_a_wrong_value_is_one_line_with_exit_code_2(args, capsys):
    assert ending(*args) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f'simclr-mm {args[0]}: error: ')


def test_a_config_by_its_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'simclr_r18-w16_1xb64-coslr-30e_digits'
    assert 'the config has no key' in ending('train', name, '--cfg-options', 'no=1')
    said = ending('train', '--data', 'absent', name)  # after --data, too
    assert 'there is no folder' in said and said.count('absent') == 1
    assert f': this package has {name}' in ending('train', f'{name}s')


def test_a_missing_openmmlab_is_one_line():
    code = f"""
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *args: None if name == 'mmcv' else find(name, *args)
{START}"""
    ended = started('train', 'a.py', code=code)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith('simclr-mm: error: simclr_mm needs mmcv. Install')
    assert line.endswith('(simclr-mm doctor checks everything.)')


def test_ctrl_c_while_pytorch_is_imported(tmp_path):
    begun = tmp_path / 'begun'
    (tmp_path / 'torch.py').write_text(
        f'import time\nopen({str(begun)!r}, "w").close()\ntime.sleep(60)'
    )
    # A job in the background of a shell begins with SIGINT ignored.
    heard = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler); '
    process = subprocess.Popen(
        [sys.executable, '-c', heard + START, 'train', 'a.py'],
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}'},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not begun.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and not said


def test_a_closed_pipe_is_no_error():
    code = f'import os; os.close(1); os.dup2(os.pipe()[1], 1); {START}'
    read_end_closed = f'import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); {START}'
    assert started(code=code).returncode == 0
    ended = started(code=read_end_closed)
    assert ended.returncode == 0 and not ended.stderr


def test_a_closed_output_is_no_fault():
    ended = started('--version', code=f'import sys; sys.stdout = None\n{START}')
    assert ended.returncode == 0 and not ended.stderr
