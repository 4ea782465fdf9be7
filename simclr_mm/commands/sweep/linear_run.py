"""The linear probe of one run, in its own process.

``python -m simclr_mm.commands.sweep.linear_run CONFIG CHECKPOINT FILE`` writes the accuracy
in percent to FILE, as JSON.
"""

import json
import sys

from mmengine.config import Config
from mmengine.device import get_device

from simclr_mm.apis import load_encoder
from simclr_mm.commands.evaluate.image_features import gallery_and_queries
from simclr_mm.evaluation import linear_probe
from simclr_mm.files.atomic import write_text

PENALTY = 1.0  # of the weights, 1 / C of scikit-learn


def linear_accuracy(cfg: Config, checkpoint: str) -> float:
    """Top-1 in percent on the queries, of a probe fitted on the gallery of the val dataset.

    Source: SimCLR, arXiv:2002.05709, Sec. 2.3, linear evaluation.
    """
    encoder = load_encoder(checkpoint, cfg, get_device())
    gallery, queries = gallery_and_queries(encoder, cfg.val_dataloader)
    return 100 * linear_probe(gallery, queries, 1 / PENALTY)


def main(config: str, checkpoint: str, out: str) -> None:
    accuracy = linear_accuracy(Config.fromfile(config), checkpoint)
    write_text(out, json.dumps(accuracy))


if __name__ == '__main__':
    main(*sys.argv[1:])
