"""Processes that torchrun has started for one command, and that share its work."""

import functools
import os
import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
from mmengine.logging import MMLogger
from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore
from torch.distributed.rendezvous import rendezvous

from simclr_mm.errors import UserError

T = TypeVar('T')
_LONGEST = timedelta(days=30)  # that one rank works while others wait; torchrun ends them all


def processes_of_torchrun() -> int:
    """How many processes torchrun has started for this command. 1: it has not."""
    # Other programs set WORLD_SIZE too.
    return int(os.environ['WORLD_SIZE']) if 'TORCHELASTIC_RUN_ID' in os.environ else 1


def refuse_ranks(alone: str) -> None:
    """Refuse to run in several processes. ``alone`` says what one process does."""
    if processes_of_torchrun() > 1:
        raise UserError(
            f'torchrun has started {processes_of_torchrun()} processes, but {alone}: start it '
            'without torchrun.'
        )


@functools.cache
def ranks() -> 'Ranks':
    """The ranks of this command. The first call connects them."""
    return ALONE if processes_of_torchrun() == 1 else _joined()


def first_to_fail() -> bool:
    """Whether this rank speaks for all: no other rank has failed before."""
    if processes_of_torchrun() == 1:
        return True
    address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    try:
        store = TCPStore(*address, timeout=timedelta(seconds=5), wait_for_workers=False)
        return PrefixStore(_name(), store).add('failed', 1) == 1
    except RuntimeError:  # nobody answers: better two lines than none
        return True


def _name() -> str:
    """Of this start of the ranks: torchrun may start them again, beside the same store."""
    return f'simclr_mm/command/{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}'


def _joined() -> 'Ranks':
    store, rank, size = next(rendezvous('env://'))
    group = ProcessGroupGloo(PrefixStore(_name(), store), rank, size, _LONGEST)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    if rank > 0:  # rank 0 alone prints, and the others only what went wrong
        sys.stdout = open(os.devnull, 'w')
        logger = MMLogger.get_current_instance()
        logger.setLevel('WARNING')
        for handler in logger.handlers:
            if hasattr(handler, 'setStream'):
                handler.setStream(sys.stderr)
    return Ranks(rank, size, group)


class Ranks:
    """This process among those that share a command's work. By default it is alone.

    They are not PyTorch's default group, for which samplers would deal images to ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None) -> None:
        self.rank, self.size, self._group = rank, size, group
        self._sending: list[Any] = []  # with the tensors, which must live until they are sent

    def mine(self, items: Sequence[T], at_once: int = 1) -> list[T]:
        """The items of this rank. Pieces of ``at_once`` are dealt to the ranks in turn."""
        pieces = range(at_once * self.rank, len(items), at_once * self.size)
        return [each for start in pieces for each in items[start : start + at_once]]

    def in_order(self, results: Iterable[T]) -> Iterator[T]:
        """On rank 0, the results of all ranks, one for each piece and in the order of the pieces.

        The other ranks compute theirs, and get none. One result of each may wait for rank 0.
        """
        if self.rank > 0:
            for result in results:
                self._send((result,), 0)
            self._send((), 0)  # the end
            self._wait()
            return
        mine, working = iter(results), list(range(self.size))
        while working:
            for rank in list(working):
                found = self._receive(rank) if rank else tuple(islice(mine, 1))
                if found:
                    yield found[0]
                else:
                    working.remove(rank)

    def share(self, value: T) -> T:
        """The value of rank 0, on every rank."""
        if self.rank > 0:
            (value,) = self._receive(0)
        else:
            for rank in range(1, self.size):
                self._send((value,), rank)
            self._wait()
        return value

    def require_same(self, mine: Mapping[str, Any]) -> None:
        """Compare values with those of rank 0, by name. A difference is a UserError."""
        first = self.share(mine)
        for name, value in mine.items():
            if value != first[name]:
                raise UserError(
                    f'other {name} than rank 0: all ranks need the same files at the same paths.'
                )

    def only_first_goes_on(self) -> None:
        """End the other ranks, which have done their part."""
        if self.rank > 0:
            raise SystemExit(0)

    def _send(self, found: tuple, rank: int) -> None:
        self._wait()
        content = torch.frombuffer(bytearray(pickle.dumps(found, protocol=5)), dtype=torch.uint8)
        for part in (torch.tensor([len(content)]), content):
            self._sending.append((self._group.send([part], rank, 0), part))

    def _wait(self) -> None:
        for work, _ in self._sending:
            work.wait()
        self._sending.clear()

    def _receive(self, rank: int) -> tuple[Any, ...]:
        """A value, or nothing at the end."""
        length = torch.empty(1, dtype=torch.int64)
        self._group.recv([length], rank, 0).wait()
        content = torch.empty(int(length), dtype=torch.uint8)
        self._group.recv([content], rank, 0).wait()
        return pickle.loads(content.numpy().data)


ALONE = Ranks()
