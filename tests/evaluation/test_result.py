import json
import shlex
import sys

import pytest

from simclr_mm.evaluation import EvaluationRun, Result, read_run

RESULT = Result(
    'classification',
    'Digits',
    'test',
    'raw pixels',
    'knn',
    'top1',
    96.8,
    dict(k=20, temperature=0.07),
)


def test_written_and_read_back(tmp_path):
    run = EvaluationRun('a.py', 'b.pth', 'c0ffee', 0, 1.5, [RESULT])
    run.write(tmp_path / 'runs' / 'a.json')
    assert read_run(tmp_path / 'runs' / 'a.json') == run
    content = json.loads((tmp_path / 'runs' / 'a.json').read_text())
    assert content['schema'] == 'simclr_mm.evaluation/1'
    assert content['results'][0]['settings'] == dict(k=20, temperature=0.07)
    assert {'simclr_mm', 'torch', 'mmengine'} <= set(content['versions'])
    assert content['hardware'] and content['time'].endswith('Z')
    assert content['command'] == shlex.join(sys.argv)
    del content['versions']  # what is missing is not made up
    (tmp_path / 'b.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='b.json is no .* file: it lacks versions'):
        read_run(tmp_path / 'b.json')


@pytest.mark.parametrize('text', ['[1, 2]', '{"a": 1}', '{"loss": 1}\n{"loss": 2}', ''])
def test_other_json_files_are_no_runs(tmp_path, text):
    (tmp_path / 'x.json').write_text(text)
    assert read_run(tmp_path / 'x.json') is None


def test_a_run_that_lacks_something_says_so(tmp_path):
    (tmp_path / 'x.json').write_text('{"schema": "simclr_mm.evaluation/1"}')
    with pytest.raises(ValueError, match='x.json is no .* file: it lacks checkpoint, .*results'):
        read_run(tmp_path / 'x.json')
