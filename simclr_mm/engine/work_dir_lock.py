"""One training run at a time in a work dir."""

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from mmengine.logging import MMLogger

from simclr_mm.errors import UserError

from .ranks import on_first_rank


class WorkDirLock:
    """A context that locks an existing work dir for rank 0's job, until its process ends.

    If files cannot be locked, the run continues with a warning.

    Raises:
        UserError: On entering, on all ranks: another process trains in this work dir.
    """

    def __init__(self, work_dir: str, logger: MMLogger) -> None:
        self._path = Path(work_dir, '.lock')
        self._logger = logger
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        on_first_rank(self._take)

    def __exit__(self, *error) -> None:
        if self._file is not None:
            self._file.close()

    def _take(self) -> None:
        try:
            self._file = open(self._path, 'a+')
            # lockf, not flock, so that loader workers that outlive this process do not keep it.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if self._file is None or not isinstance(error, (BlockingIOError, PermissionError)):
                self._logger.warning(
                    f'{self._path} cannot be locked ({error}): nothing keeps a second run from '
                    'writing to this work dir.'
                )
                return
            self._file.seek(0)
            holder = self._file.read().strip() or 'another process'
            self._file.close()
            raise UserError(
                f'{self._path.parent} is in use by {holder}: wait for it, end it, or '
                'choose another --work-dir.'
            ) from error
        self._file.truncate(0)
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        self._file.write(f'process {os.getpid()} on {socket.gethostname()} since {since}\n')
        self._file.flush()
