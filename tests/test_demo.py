"""The README's first command, and what it promises."""
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from simclr_mm.evaluation import PIXELS, PRETRAINED, UNTRAINED, read_run

DEMO = Path(__file__).parents[1] / 'tools' / 'demo.py'


@pytest.mark.slow
def test_demo_beats_the_untrained_encoder_and_raw_pixels(tmp_path):
    done = subprocess.run([sys.executable, str(DEMO)],
                          cwd=tmp_path,
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / 'work_dirs' / 'demo'
    found = {
        (result.features, result.protocol): result.value
        for result in read_run(folder / 'evaluation' / 'demo.json').results
    }
    trained, untrained, pixels = ({
        protocol: value
        for (features, protocol), value in found.items() if features == name
    } for name in (PRETRAINED, UNTRAINED, PIXELS))
    assert trained['linear-5-labels'] >= 92 > pixels['linear-5-labels']
    assert trained['linear'] >= 98.6 > pixels['linear']
    assert trained['linear'] > untrained['linear']
    assert trained['knn'] > max(untrained['knn'], pixels['knn'])
    assert 'pretrained encoder' in done.stdout
    assert cv2.imread(str(folder / 'report.png')).std() > 20
