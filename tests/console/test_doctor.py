"""``simclr-mm doctor`` on machines that lack something."""

from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from helpers.tools import tool

from simclr_mm_console import doctor


@pytest.fixture
def installed(monkeypatch):
    """Versions by distribution, which a test changes; others are as here."""
    versions: dict[str, str | None] = {}
    found = metadata.Distribution.from_name

    def distribution(name):
        if name not in versions:
            return found(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return SimpleNamespace(version=versions[name])

    monkeypatch.setattr(metadata, 'distribution', distribution)
    return versions


def lines(findings):
    return {finding.name: finding for finding in findings}


def test_a_machine_with_everything(capsys):
    tool('simclr-mm', 'doctor')
    out = capsys.readouterr().out
    assert out.endswith('Everything that simclr_mm needs is there.\n') and 'MISSING' not in out
    assert f'torch           {metadata.version("torch")}' in out
    assert 'mmpretrain' in out and 'cores' in out and 'bf16' in out


def test_a_version_before_its_release_is_not_too_old(installed, capsys):
    installed |= dict(torch='2.7.0a0+79aa17489c.nv25.4', torchvision='0.22.0.dev20260101')
    tool('simclr-mm', 'doctor')
    assert 'too old' not in capsys.readouterr().out


def test_what_is_missing_or_too_old_has_a_remedy_and_exit_code_1(installed, capsys):
    installed |= dict(rich=None, torch='2.5.0')
    with pytest.raises(SystemExit) as end:
        tool('simclr-mm', 'doctor')
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert 'MISSING rich            is not installed' in out
    assert '-> pip install "rich>=14.1"' in out
    assert 'MISSING torch           2.5.0 is too old' in out
    assert '-> pip install "torch>=2.6"' in out
    assert 'bf16' not in out  # nothing is imported then


def test_both_openmmlabs(installed):
    installed |= {'mmengine': '0.10.7', 'onedl-mmengine': '0.10.12'}
    found = doctor.openmmlab()
    assert (found.state, found.name) == ('MISSING', 'OpenMMLab')
    assert found.text.startswith('onedl-mmengine and mmengine are both installed')
    assert found.remedy.startswith('Keep one: pip uninstall')


def test_an_extra_is_a_note(installed):
    installed['umap-learn'] = None
    found = lines(doctor.packages())['[plots]']
    assert (found.state, found.text) == ('note', 'optional, lacks umap-learn')
    assert found.remedy == "to use it: pip install 'simclr_mm[plots]'"


@pytest.mark.parametrize(
    ('driver', 'cuda', 'remedy'),
    [
        (None, '13.0', ''),
        ('/usr/bin/nvidia-smi', None, 'install a CUDA build'),
        ('/usr/bin/nvidia-smi', '13.0', 'update the NVIDIA driver to one for CUDA 13.0'),
    ],
)
def test_a_gpu_that_is_not_used(driver, cuda, remedy, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    monkeypatch.setattr(doctor.shutil, 'which', lambda name: driver)
    found = lines(doctor.computing())['GPU']
    assert found.state == 'note' and found.remedy.startswith(remedy)
    assert bool(found.remedy) == bool(remedy)


def test_a_full_disk_and_a_container_with_little_shared_memory(monkeypatch):
    usage = SimpleNamespace(free=1 << 20, total=64 << 20)
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda path: usage)
    monkeypatch.setattr(doctor.os.path, 'isdir', lambda path: True)
    found = lines(doctor.machine())
    assert 'another disk' in found['disk'].remedy
    assert '--shm-size' in found['shared memory'].remedy


def test_a_package_that_does_not_import(monkeypatch):
    monkeypatch.setitem(doctor.sys.modules, 'simclr_mm', None)
    (found,) = doctor.computing()
    assert found.state == 'MISSING' and 'ModuleNotFoundError' in found.text


def test_windows_is_the_first_finding(monkeypatch):
    monkeypatch.setattr(doctor.sys, 'platform', 'win32')
    (found,) = doctor.systems()
    assert (found.state, found.text) == ('MISSING', 'simclr_mm does not run in Windows itself')
    assert found.remedy.startswith('Use the Windows Subsystem for Linux')


def test_the_gpu_of_a_mac(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    assert lines(doctor.computing())['GPU'].text == 'MPS of a Mac: trains on it; not tested'
