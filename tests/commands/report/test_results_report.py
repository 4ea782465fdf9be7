"""Evaluations of several folders in one table and one page."""

import base64
import json
import re

import cv2
import numpy as np
import pytest
from helpers.tools import tool

from simclr_mm.commands.report.pages import collect, markdown, page, rows_of
from simclr_mm.evaluation import PIXELS, PRETRAINED, UNTRAINED, EvaluationRun, Result


def run(checkpoint, value, when):
    result = Result(
        'classification',
        'CIFAR10 | <b>JPEG</b>',
        'test',
        PRETRAINED,
        'linear-swept',
        'top1',
        value,
        dict(penalty=0.0123466, part='1%'),
    )
    return EvaluationRun('a.py', checkpoint, '0123456789abcdef', 0, 60, [result], time=when)


@pytest.fixture
def work_dirs(tmp_path):
    run('late.pth', 62.5, '2026-02-01T00:00:00Z').write(tmp_path / 'a' / 'e' / 'x.json')
    run('early.pth', 9.0, '2026-01-01T00:00:00Z').write(tmp_path / 'b' / 'y.json')
    (tmp_path / 'b' / 'z.json').write_text('{"schema": "simclr_mm.evaluation/1"}')
    logs = tmp_path / 'b' / 'time' / 'vis_data'
    logs.mkdir(parents=True)
    lines = [dict(step=i, loss=5 - i) for i in range(4)] + [
        {'knn/top1': 3, 'step': 4},
        {'knn/top1': 61.234, 'label_free/uniformity': -3.14159, 'time': 1.0, 'step': 8},
        {'step': 9, 'loss': 1},
    ]
    text = '\n'.join(map(json.dumps, lines)) + '\n{"step": 5, "lo'
    (logs / 'scalars.json').write_text(text)
    return [tmp_path / 'a', tmp_path / 'b', tmp_path / 'b' / 'time', tmp_path]


def test_runs_logs_and_broken_files_are_found_once(work_dirs):
    found = collect(work_dirs)
    assert [run.checkpoint for run in found.runs] == ['early.pth', 'late.pth']
    assert len(found.logs) == 1
    assert len(found.broken) == 1 and 'z.json' in found.broken[0]


def test_markdown_table(work_dirs):
    lines = markdown(collect(work_dirs)).splitlines()
    assert len({len(re.findall(r'(?<!\\)\|', line)) for line in lines[:4]}) == 1
    assert '| 9.00 % | penalty 0.01235, part 1% | a | early.pth | 01234567 |' in lines[2]
    assert 'study' not in lines[0]  # nobody made one
    assert lines[4:7] == ['', 'Last validation of each training run', '']
    name = work_dirs[-1] / 'b' / 'time'
    assert lines[9:] == [
        f'| {name} | 8 | knn/top1 | 61.23 % |',
        f'| {name} | 8 | label_free/uniformity | -3.142 |',
        '',
        'End of each training run, without labels',
        '',
        '| training run | step | loss |',
        '| :-- | --: | --: |',
        f'| {name} | 9 | 1 |',
    ]


def test_validations_without_an_evaluation(work_dirs):
    found = collect(work_dirs[2:3])
    assert not found.runs
    for text in (markdown(found), page(found)):
        assert '61.23 %' in text and '3.00' not in text


def test_a_run_without_labels(tmp_path):
    """As train.py --data leaves it; its name is not UTF-8."""
    logs = tmp_path / 'run \udcff<i>' / 'vis_data'
    logs.mkdir(parents=True)
    line = '{"step": %d, "loss": %f, "chance": 3.434, "pos_sim": 0.2873, "lr": 0.1}\n'
    (logs / 'scalars.json').write_text(line % (3, 4) + line % (6, 3.2969) + '{"step": "x"}')
    tool('report.py', tmp_path)
    table = (tmp_path / 'report.md').read_text()
    assert '| training run | step | loss | chance | pos_sim |' in table
    assert '/run \\udcff<i> | 6 | 3.297 | 3.434 | 0.2873 |\n' in table
    html = (tmp_path / 'report.html').read_text()
    assert html.count('data:image/png') == 1 and '<i>' not in html


def test_only_rows_of_the_checkpoint_bear_its_name():
    done = run('far/away/w/a.pth', 50, '2026-01-01T00:00:00Z')
    done.seed = None
    done.results = [
        Result('classification', 'CIFAR10', 'test', features, 'knn', 'top1', 1)
        for features in (PRETRAINED, UNTRAINED, PIXELS, 'resnet50.pth')  # a verdict's --against
    ]
    done.results.append(
        Result(
            'representation',
            'CIFAR10',
            'test',
            'checkpoint',
            'label-free',
            'feature_std',
            0.012346,
            unit='',
        )
    )
    table = rows_of([done])
    assert [row['checkpoint'] for row in table] == ['w/a.pth', '', '', '', 'w/a.pth']
    assert [row['weights'] for row in table] == ['01234567', '', '', '', '01234567']
    assert [row['value'] for row in table] == ['1.00 %'] * 4 + ['0.01235']
    assert {row['seed'] for row in table} == {''}


def test_page_stands_alone(work_dirs):
    text = page(collect(work_dirs))
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert '<b>' not in text and '&lt;b&gt;' in text
    assert text.count('<tr>') == 8 and '<script>' in text
    (png,) = re.findall(r'base64,([^"]+)', text)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), 1)
    assert picture.std() > 10


def test_what_cannot_be_opened_is_named(work_dirs):
    place = work_dirs[0]
    (place / 'folder.json').mkdir()
    (place / 'link.json').symlink_to(place / 'absent')
    found = collect([place])
    assert len(found.runs) == 1 and len(found.broken) == 1 and 'link.json' in found.broken[0]


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        collect([tmp_path / 'nowhere'])


@pytest.mark.parametrize(
    'key, value', [('config', [1]), ('time', 3), ('hardware', {}), ('study', []), ('results', [5])]
)
def test_a_part_of_another_kind_is_left_out_and_named(tmp_path, key, value):
    run('a.pth', 50, '2026').write(tmp_path / 'run.json')
    content = json.loads((tmp_path / 'run.json').read_text())
    (tmp_path / 'run.json').write_text(json.dumps({**content, key: value}))
    found = collect([tmp_path])
    assert not found.runs and len(found.broken) == 1 and 'run.json is no' in found.broken[0]


def test_a_value_that_is_no_number(tmp_path):
    run('a.pth', 50, '2026').write(tmp_path / 'run.json')
    content = json.loads((tmp_path / 'run.json').read_text())
    content['results'][0]['value'] = 'high'
    (tmp_path / 'run.json').write_text(json.dumps(content))
    assert "value is 'high'" in collect([tmp_path]).broken[0]


@pytest.mark.parametrize('content', [b'\xff\xfe', b'[' * 100000])
def test_a_log_that_is_none(tmp_path, content):
    (tmp_path / 'scalars.json').write_bytes(content)
    assert not markdown(collect([tmp_path]))
