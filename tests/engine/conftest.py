import pytest


@pytest.fixture(autouse=True)
def no_environment_report(monkeypatch):
    """MMEngine calls compilers for their versions at the start of every run."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
