"""Kill a run of two ranks again and again, and compare every loss with an unbroken run's.

No test of the suite, because it takes minutes. ``tests`` and the checkout belong on PYTHONPATH:

    PYTHONPATH=.:tests python tests/survival.py --terms 20 --kills 30 --nodes 5

A term is SIGTERM to all ranks and loader workers at a random step. Each rank has to end within 30
seconds with exit code 75. A kill is SIGKILL to one rank or one loader worker while rank 0 reads
data, computes, saves or validates; the other rank has to end by itself, with one line. A node is
SIGKILL to everything on one of two machines: tools/dist_train.sh, its rank and the rank's worker.
After each the run goes on with --resume. Prints a line for each attempt, a summary, and every
failure.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from digits_run import EVERY_EPOCH, runner
from helpers.processes import free_port, launched, start
from mmengine.hooks import Hook

from simclr_mm.commands.command_line import command
from simclr_mm.engine.hooks.checkpoint_storage import AtomicLocalBackend

OPTIONS = {
    **EVERY_EPOCH,
    'launcher': 'pytorch',
    'default_hooks.checkpoint.max_keep_ckpts': 2,
    'default_hooks.checkpoint.save_best': 'knn/top1',
    'train_cfg.max_epochs': 30,
    'train_cfg.val_interval': 1,
    'train_dataloader.dataset.indices': 200,  # 6 steps of 2 x 16 images an epoch
    'train_dataloader.num_workers': 1,
    'train_dataloader.persistent_workers': True,
    'val_dataloader.dataset.gallery.indices': 60,
    'val_dataloader.dataset.query.indices': 40,
    'val_dataloader.batch_size': 20,
}
PHASES = ('data', 'step', 'save', 'validation')
LIMIT = 30  # seconds for a rank to end
LAUNCHER = Path(__file__).parents[1] / 'tools' / 'dist_train.sh'


class Phase(Hook):
    """Says in a file what rank 0 is about, and stays with it long enough to be hit."""

    priority = 'LOWEST'

    def __init__(self, file):
        self.file = os.open(file, os.O_CREAT | os.O_WRONLY)
        put = AtomicLocalBackend.put

        def slow_put(backend, obj, filepath):
            self.tell('save')
            put(backend, obj, filepath)
            self.tell('data')

        AtomicLocalBackend.put = slow_put
        self.iter = 0

    def tell(self, phase):
        os.pwrite(self.file, f'{phase} {self.iter}'.ljust(40).encode(), 0)
        time.sleep(0.01)

    def before_train_epoch(self, runner):
        self.iter = runner.iter
        self.tell('data')

    def before_train_iter(self, runner, *args, **kwargs):
        self.iter = runner.iter
        self.tell('step')

    def after_train_iter(self, runner, *args, **kwargs):
        self.tell('data')

    def before_val_iter(self, runner, *args, **kwargs):
        self.tell('validation')


@command
def train(argv):
    torch.set_num_threads(1)
    run = runner(Path(argv[0]), True, **OPTIONS, resume=True)
    if run.rank == 0:
        run.register_hook(Phase(f'{argv[0]}.phase'))
    run.train()


def rank_of(rank, port, folder, said):
    os.environ.update(launched(rank, 2, port))
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY), 2)
    sys.argv = ['train']
    train([str(folder)])


def node_of(node, port, folder, said):
    os.environ.update(NNODES='2', NODE_RANK=str(node), PORT=str(port), PYTHON=sys.executable)
    os.environ.update(CUDA_VISIBLE_DEVICES='', TOOL='../tests/survival.py')
    os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY), 2)
    os.execv(LAUNCHER, [str(LAUNCHER), str(folder), '1'])


def losses_of(folder):
    """All logged losses of all attempts: a list for each step."""
    found = collections.defaultdict(list)
    for file in sorted(Path(folder).glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # cut by a kill
                continue
            if 'loss' in entry:
                found[entry['step']].append(entry['loss'])
    return found


def phase_of(folder):
    try:
        phase, step = Path(f'{folder}.phase').read_text().split()
        return phase, int(step)
    except (OSError, ValueError):
        return '', -1


def children_of(pid):
    """Also those that other threads have started, as torchrun does."""
    found = []
    for file in Path(f'/proc/{pid}/task').glob('*/children'):
        with contextlib.suppress(OSError):  # it has ended
            found += map(int, file.read_text().split())
    return found


def all_of(pid):
    return [pid, *(each for child in children_of(pid) for each in all_of(child))]


def wait_for(processes, folder, wanted, times):
    """Until rank 0 has begun the wanted phase, or a step, so often. False: the run has ended."""
    seen, last = 0, None
    while all(process.is_alive() for process in processes):
        now = phase_of(folder)
        seen += now != last and wanted in ('', now[0]) and last is not None
        last = now
        if seen >= times:
            return True
        time.sleep(0.002)
    return False


def attempt(folder, number, kind, dice, phases):
    """Start the run, end it in a random moment, and say what happened."""
    Path(f'{folder}.phase').unlink(missing_ok=True)
    said = [Path(f'{folder}-{number}-{rank}.txt') for rank in range(2)]
    port = free_port()
    begin = node_of if kind == 'node' else rank_of
    processes = [start(begin, rank, port, folder, said[rank]) for rank in range(2)]
    wanted = 'step' if kind == 'term' else dice.choice(phases)
    struck = wait_for(processes, folder, wanted, dice.randint(1, 9 if wanted == 'step' else 2))
    time.sleep(dice.random() * 0.02)
    since, victim, where = time.monotonic(), 'nobody', phase_of(folder)
    problems = []
    pids = [process.pid for process in processes]
    if struck and kind == 'term':
        victim = 'all'
        for each in [*pids, *(worker for pid in pids for worker in children_of(pid))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGTERM)
    elif struck and kind == 'node':
        rank = dice.randrange(2)
        victim, struck_processes = f'node {rank}', all_of(pids[rank])
        for each in struck_processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        where = phase_of(folder)
        if len(struck_processes) < 3:
            problems.append(f'{victim} had only {len(struck_processes)} processes')
    elif struck:
        rank = dice.randrange(2)
        pid, victim = pids[rank], f'rank {rank}'
        workers = children_of(pid)
        if workers and dice.random() < 0.5:
            pid, victim = dice.choice(workers), f'worker of rank {rank}'
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        where = phase_of(folder)
    for process in processes:
        process.join(LIMIT if struck else None)
        if process.is_alive():
            problems.append(f'process {pids.index(process.pid)} still ran after {LIMIT} s')
            process.kill()
            process.join()
    took = time.monotonic() - since
    codes = [process.exitcode for process in processes]
    if struck and kind == 'term' and codes != [75, 75] and codes != [0, 0]:
        problems.append(f'exit codes {codes}')
    if struck and kind != 'term' and 0 in codes and codes != [0, 0]:
        problems.append(f'exit codes {codes}')
    if not struck and codes != [0, 0]:
        problems.append(f'ended by itself with {codes}')
    for rank, file in enumerate(said):
        if victim not in (f'rank {rank}', f'node {rank}') and 'Traceback' in file.read_text():
            problems.append(f'rank {rank} printed a traceback: {file}')
    print(
        f'{number:3} {kind} {victim:17} in {where[0]:10} of step {where[1] + 1:3}: exit codes '
        f'{codes}, {took:.1f} s {problems or ""}',
        flush=True,
    )
    return codes == [0, 0], where[0], took, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--terms', type=int, default=20)
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--nodes', type=int, default=5)
    parser.add_argument('--phases', nargs='+', choices=PHASES, default=PHASES, help='of kills')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='folder that is kept, by default a temporary one')
    args = parser.parse_args()
    dice = random.Random(args.seed)
    out = Path(args.out or tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    port = free_port()
    ranks = [start(rank_of, rank, port, out / 'whole', out / f'{rank}.txt') for rank in range(2)]
    for process in ranks:
        process.join()
    whole = {step: values[0] for step, values in losses_of(out / 'whole').items()}
    print(f'unbroken: {len(whole)} steps in {out}', flush=True)
    kinds = ['term'] * args.terms + ['kill'] * args.kills + ['node'] * args.nodes
    dice.shuffle(kinds)
    failures, phases, longest, chain, number = [], collections.Counter(), 0.0, 0, 0
    while kinds:
        folder = out / f'chain{chain}'
        done, phase, took, problems = attempt(folder, number, kinds[-1], dice, args.phases)
        number += 1
        failures += [f'attempt {number - 1}: {problem}' for problem in problems]
        if done:  # too late to be struck
            chain += 1
            continue
        phases[f'{kinds.pop()} in {phase}'] += 1
        longest = max(longest, took)
    compared = 0
    for folder in sorted(out.glob('chain*/')):
        for step, values in losses_of(folder).items():
            compared += len(values)
            if set(values) != {whole[step]}:
                failures.append(f'{folder.name} step {step}: {values}, unbroken {whole[step]}')
    print(f'{dict(phases)}; the longest end took {longest:.1f} s; {compared} losses compared')
    print('\n'.join(failures) or 'no failure')
    raise SystemExit(bool(failures))


if __name__ == '__main__':
    train(sys.argv[1:2]) if 'TORCHELASTIC_RUN_ID' in os.environ else main()
