"""Time a LARS step on ResNet-50's 161 tensors, ours and mmpretrain's."""

import argparse
import statistics
from collections.abc import Iterable

import torch
from mmpretrain.engine import LARS as MMPretrainLARS
from rich.console import Console
from timing import interleaved, spread, table_of
from torch import nn
from torchvision.models import resnet50

from simclr_mm.engine import LARS
from simclr_mm.evaluation import hardware

# The paper's recipe, Sec. 2.2, with the rate for batch 4096.
SETTINGS = dict(lr=4.8, momentum=0.9, weight_decay=1e-6)


def parameters(device: str) -> list[nn.Parameter]:
    """ResNet-50's parameters, with random gradients of about 1e-6."""
    torch.manual_seed(0)
    params = list(resnet50().to(device).parameters())
    for p in params:
        p.grad = torch.randn_like(p) * 1e-6
    return params


def theirs(params: Iterable[nn.Parameter]) -> MMPretrainLARS:
    """mmpretrain's LARS. Vectors are excluded, as its SimCLR config does by name."""
    params = list(params)
    matrices = dict(params=[p for p in params if p.ndim > 1])
    vectors = dict(params=[p for p in params if p.ndim == 1], weight_decay=0, lars_exclude=True)
    return MMPretrainLARS([matrices, vectors], **SETTINGS)


MAKERS = {
    "simclr_mm, 'sum'": lambda params: LARS(params, **SETTINGS),
    "simclr_mm, 'parts'": lambda params: LARS(params, trust_denominator='parts', **SETTINGS),
    'mmpretrain': theirs,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--repeats', type=int, default=15, help='timed steps of each')
    parser.add_argument('--warm-up', type=int, default=3, help='untimed steps of each')
    parser.add_argument('--threads', type=int, help="CPU threads, PyTorch's choice by default")
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    steps = {name: make(parameters(args.device)).step for name, make in MAKERS.items()}
    seconds = interleaved(steps, args.warm_up + args.repeats)
    times = {name: [1000 * s for s in each[args.warm_up :]] for name, each in seconds.items()}
    base = statistics.median(times['mmpretrain'])
    title = 'One LARS step on the 161 tensors of ResNet-50, 25.6 M numbers'
    columns = ('', 'median, ms (lowest-highest)', 'of mmpretrain')
    rows = [
        (name, spread(values, 1), f'{statistics.median(values) / base:.2f}')
        for name, values in times.items()
    ]
    console = Console()
    console.print(table_of(title, columns, rows))
    console.print(
        f'{hardware(args.device)}; torch {torch.__version__}; '
        f'{args.repeats} interleaved repeats, default allocator',
        soft_wrap=True,
    )


if __name__ == '__main__':
    main()
