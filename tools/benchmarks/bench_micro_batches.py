"""Peak memory of one training step in micro-batches, compared with a step in one pass.

Needs Linux, which records the peak memory of a process.
"""

import multiprocessing
import time

import torch
from mmengine.optim import OptimWrapper
from rich.console import Console
from timing import resident, table_of

from simclr_mm.commands.command_line import parser_of
from simclr_mm.engine import LARS
from simclr_mm.models import SimCLR


def step(
    batch: int, micro_batch: int | None, side: int, threads: int
) -> tuple[float, float, float]:
    """One step of ResNet-18 with a CIFAR stem: forward, backward and LARS.

    Returns:
        Peak memory above the memory before the step in GB, seconds, and the loss.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    backbone = dict(type='ResNet_CIFAR', depth=18, norm_cfg=dict(type='BN'))
    model = SimCLR(backbone, micro_batch_size=micro_batch)
    wrapper = OptimWrapper(LARS(model.parameters(), lr=1.0, weight_decay=1e-6))
    # A first step loads libraries and creates the optimizer's state.
    model.train_step(dict(inputs=views(2, side)), wrapper)
    inputs = views(batch, side)
    before = resident('VmRSS')
    start = time.perf_counter()
    logged = model.train_step(dict(inputs=inputs), wrapper)
    seconds = time.perf_counter() - start
    return (resident('VmHWM') - before) / 1e9, seconds, logged['loss'].item()


def views(n: int, side: int) -> torch.Tensor:
    """(n, 2, 3, S, S) uint8, as from the loader."""
    return torch.randint(256, (n, 2, 3, side, side), dtype=torch.uint8)


def main() -> None:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add('--batch', type=int, default=4096, help='images of two views')
    add('--micro-batch', type=int, default=128, help='images')
    fit = 'two batches that fit, from which the step in one pass is computed'
    add('--plain', type=int, nargs=2, default=(128, 256), metavar='IMAGES', help=fit)
    add('--side', type=int, default=32, help='of a view, in pixels')
    add('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    rows, peaks = [], []
    for batch, micro in (*((n, None) for n in args.plain), (args.batch, args.micro_batch)):
        # Each in its own process, so that no other step raises the peak.
        with multiprocessing.get_context('spawn').Pool(1) as pool:
            result = pool.apply(step, (batch, micro, args.side, args.threads))
        peaks.append(result[0])
        rows.append((str(batch), str(micro or batch), *(f'{value:.2f}' for value in result)))
    (first, second), (low, high) = args.plain, peaks[:2]
    plain = low + (high - low) / (second - first) * (args.batch - first)
    rows.append((str(args.batch), str(args.batch), f'{plain:.1f} (computed)'))
    columns = ('images', 'images at a time', 'peak, GB', 'seconds', 'loss')
    console = Console()
    console.print(table_of(f'One step of ResNet-18 at {args.side} px, two views', columns, rows))
    console.print(
        f'Peak: VmHWM in the step above VmRSS before it, float32, {args.threads} threads, torch '
        f'{torch.__version__}, default allocator. Computed: the line through the first two.',
        soft_wrap=True,
    )


if __name__ == '__main__':
    main()
