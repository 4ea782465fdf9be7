"""Time and memory of NT-Xent, forward and backward, compared with other implementations.

    python tools/benchmarks/bench_loss.py --out work_dirs/bench_loss

Other packages take part if they are installed (pip install lightly
pytorch-metric-learning, in a separate environment). All run in turn, round after
round. The table shows the median and, in brackets, the lowest and the highest.
"""

import argparse
import ctypes
import gc
import statistics
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from timing import interleaved, ratio, resident, save, spread, table_of, version, wait
from torch import Tensor, nn

from simclr_mm.commands.command_line import parser_of
from simclr_mm.evaluation import hardware
from simclr_mm.losses import nt_xent, nt_xent_with_stats
from simclr_mm.visualization.style import picture

TEMPERATURE = 0.1
SECONDS = 0.2  # shorter calls are repeated until they have taken this long


def cross_entropy(z: Tensor) -> Tensor:
    """The shortest implementation: all similarities, with a masked diagonal."""
    rows = F.normalize(z.flatten(0, 1), dim=1)  # (2n, d)
    logits = rows @ rows.T / TEMPERATURE  # (2n, 2n)
    logits = logits.masked_fill(
        torch.eye(len(rows), dtype=torch.bool, device=z.device), float('-inf')
    )
    return F.cross_entropy(logits, torch.arange(len(rows), device=z.device) ^ 1)


def solo_learn_formula(z: Tensor) -> Tensor:
    """solo-learn's formula: exponentials, two masks, the log of a quotient."""
    rows = F.normalize(z.transpose(0, 1).flatten(0, 1), dim=1)  # (2n, d), view-major
    exps = torch.exp(torch.einsum('if,jf->ij', rows, rows) / TEMPERATURE)  # (2n, 2n)
    image = torch.arange(len(z), device=z.device).repeat(2)  # (2n)
    positive = image[:, None] == image
    positive.fill_diagonal_(False)
    negative = image[:, None] != image
    pos = (exps * positive).sum(1)  # (2n)
    neg = (exps * negative).sum(1)  # (2n)
    return -torch.log(pos / (pos + neg)).mean()


def mmpretrain_loss():
    from mmpretrain.models import SimCLR

    loss = dict(type='mmpretrain.CrossEntropyLoss')
    head = dict(type='mmpretrain.ContrastiveHead', loss=loss, temperature=TEMPERATURE)
    preprocessor = dict(type='mmpretrain.SelfSupDataPreprocessor')
    neck = nn.Unflatten(0, (1, -1))  # (1, 2n, d), of which the model takes the first
    model = SimCLR(nn.Flatten(), neck, head, data_preprocessor=preprocessor)
    return lambda z: model.loss([z[:, v, :, None, None] for v in (0, 1)], None)['loss']


def lightly_loss():
    from lightly.loss import NTXentLoss

    criterion = NTXentLoss(temperature=TEMPERATURE)
    return lambda z: criterion(z[:, 0], z[:, 1])


def metric_learning_loss():
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    criterion = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))
    return lambda z: criterion(z[:, 0], z[:, 1])


# Name: (factory, distribution whose version is shown, largest number of rows). Memory grows
# with the square of the rows, in pytorch-metric-learning with their cube.
CONTENDERS = {
    'simclr_mm': (lambda: lambda z: nt_xent_with_stats(z, TEMPERATURE)[0], None, 2**20),
    'simclr_mm, no statistics': (lambda: lambda z: nt_xent(z, TEMPERATURE), None, 8192),
    'cross-entropy': (lambda: cross_entropy, None, 8192),
    'mmpretrain': (mmpretrain_loss, 'mmpretrain', 8192),
    'lightly': (lightly_loss, 'lightly', 8192),
    'solo-learn formula': (lambda: solo_learn_formula, None, 8192),
    'pytorch-metric-learning': (metric_learning_loss, 'pytorch-metric-learning', 512),
}


def main() -> None:
    parser = parser_of(__doc__)
    add, sizes = parser.add_argument, [64, 256, 1024, 2048, 4096, 8192, 65536]
    add('--rows', type=int, nargs='+', default=sizes, help='2N, views in the batch')
    add('--width', type=int, default=128, help='d')
    add('--rounds', type=int, default=5)
    add('--device', default='cpu')
    add('--out', type=Path, help='folder for bench_loss.{json,png}')
    args = parser.parse_args()
    console = Console(width=120)
    losses, versions = {}, [f'torch {torch.__version__}']
    for name, (make, distribution, _) in CONTENDERS.items():
        try:
            losses[name] = make()
        except ImportError as error:
            console.print(f'{name} does not take part: {error}')
            continue
        if distribution:
            versions.append(version(distribution))
    setting = f'{hardware(args.device)}; {", ".join(versions)}; default allocator'
    console.print(setting)
    results = measure(losses, args)
    console.print(table(results))
    if args.out:
        save(args.out, 'bench_loss', setting=setting, results=results)
        draw(results, args.out / 'bench_loss.png')
        console.print(f'Written to {args.out}/bench_loss.json and .png')


def measure(losses: dict, args: argparse.Namespace) -> list[dict]:
    """Times in ms of every round and peak memory in MB, for each loss and size."""
    torch.manual_seed(0)
    memory, calls = {}, {}
    for loss in losses.values():  # the first call loads libraries
        run(loss, torch.randn(8, 2, 4, device=args.device, requires_grad=True))
    for rows in args.rows:
        z = torch.randn(rows // 2, 2, args.width, device=args.device, requires_grad=True)
        for name, loss in losses.items():
            if rows <= CONTENDERS[name][2]:
                memory[name, rows] = peak_memory(loss, z)
                repeats = max(1, round(SECONDS / run(loss, z)))
                calls[name, rows] = partial(run, loss, z, repeats)
    seconds = interleaved(calls, args.rounds)
    return [
        dict(name=name, rows=rows, ms=[1000 * s for s in seconds[name, rows]], mb=mb)
        for (name, rows), mb in memory.items()
    ]


def run(loss, z: Tensor, repeats: int = 1) -> float:
    """Mean seconds of one forward and backward pass."""
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        z.grad = None
        loss(z).backward()
        wait()
    return (time.perf_counter() - start) / repeats


def peak_memory(loss, z: Tensor) -> float:
    """MB of one call above the use before.

    On a CPU it is the peak of the process's resident memory, which Linux can reset. The C
    library first returns its free memory.
    """
    z.grad = None
    if z.is_cuda:
        torch.cuda.reset_peak_memory_stats(z.device)
        before = torch.cuda.memory_allocated(z.device)
        run(loss, z)
        return (torch.cuda.max_memory_allocated(z.device) - before) / 1e6
    reset = Path('/proc/self/clear_refs')
    if not reset.exists():  # not Linux
        return float('nan')
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text('5')
    before = resident('VmRSS')
    run(loss, z)
    return (resident('VmHWM') - before) / 1e6


def table(results: list[dict]) -> Table:
    """A row for each size and loss; ours is the first of a size."""
    ours = {result['rows']: result['ms'] for result in results if result['name'] == 'simclr_mm'}
    lines = [
        (
            str(result['rows']),
            result['name'],
            spread(result['ms'], 3),
            f'{result["mb"]:.0f}',
            f'{ratio(result["ms"], ours[result["rows"]]):.2f}x',
        )
        for result in results
    ]
    title = f'NT-Xent, forward and backward, temperature {TEMPERATURE}'
    columns = ('2N', 'loss', 'ms (lowest-highest)', 'MB above the start', 'of our time')
    return table_of(title, columns, lines)


def draw(results: list[dict], path: Path) -> None:
    # Without statistics it is the same curve in this picture.
    names = dict.fromkeys(result['name'] for result in results)
    names.pop('simclr_mm, no statistics', None)
    with picture(path, 11, 4.5, 'NT-Xent, forward and backward') as figure:
        axes = figure.subplots(1, 2)
        for name in names:
            mine = [result for result in results if result['name'] == name]
            rows = [result['rows'] for result in mine]
            style = dict(marker='o', markersize=4, linewidth=2.5 if name == 'simclr_mm' else 1.2)
            axes[0].plot(rows, [statistics.median(r['ms']) for r in mine], label=name, **style)
            axes[1].plot(rows, [max(r['mb'], 0.1) for r in mine], label=name, **style)
        for axis, label in zip(axes, ('time, ms', 'memory above the start, MB')):
            axis.set(xscale='log', yscale='log', xlabel='2N, views in the batch', title=label)
            axis.grid(alpha=0.3)
        axes[0].legend(frameon=False)


if __name__ == '__main__':
    main()
