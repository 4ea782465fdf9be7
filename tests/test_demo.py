"""The README's first command, and what it promises."""
import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

DEMO = Path(__file__).parents[1] / 'tools' / 'demo.py'


@pytest.mark.slow
def test_demo_beats_the_untrained_encoder_and_raw_pixels(tmp_path):
    done = subprocess.run([sys.executable, str(DEMO)],
                          cwd=tmp_path,
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / 'work_dirs' / 'demo'
    trained, untrained, pixels = json.loads((folder / 'features.json').read_text())
    assert trained['few_labels'] >= 0.92 > pixels['few_labels']
    assert trained['linear'] >= 0.986 > pixels['linear']
    assert trained['linear'] > untrained['linear']
    assert trained['knn'] > max(untrained['knn'], pixels['knn'])
    assert 'pretrained encoder' in done.stdout
    assert cv2.imread(str(folder / 'report.png')).std() > 20
