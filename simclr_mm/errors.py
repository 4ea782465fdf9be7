"""Errors that a user can fix. Every command prints them as one line."""

from collections.abc import Iterable


def listed(names: Iterable[object], most: int = 5) -> str:
    """Names for a message: ``a, b, c, d, e and 3 more``."""
    texts = [str(name) for name in names]
    more = f' and {len(texts) - most} more' if len(texts) > most else ''
    return ', '.join(texts[:most]) + more


def escaped(text: str) -> str:
    """A text in which control characters and bytes that are not UTF-8 are escapes."""
    return ''.join(
        letter if letter.isprintable() else letter.encode('unicode_escape').decode()
        for letter in text
    )


class UserError(ValueError):
    """An error in a value, file or combination that the user gave and can change.

    The message names the key or file, says what is wrong and what to do.
    """


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be fetched or read, is not safe, or does not fit."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""


class MissingPackageError(UserError, ImportError):
    """An optional package that the user asked for is not installed."""


class NotFiniteError(UserError, FloatingPointError):
    """A training whose loss or gradients are not finite: settings or images have to change."""


class UnreadableImage(UserError, OSError):
    """A file is no image, or cannot be read as 8-bit colours.

    Args:
        message: What is wrong, with the name of the file.
        path: The file. Empty where a DataLoader re-raises its worker's error with the
            traceback as message.
    """

    def __init__(self, message: str, path: str = '') -> None:
        if message.startswith('Caught '):  # the worker's traceback, which ends in the message
            message = message.rpartition(f'{type(self).__name__}: ')[2].strip()
        super().__init__(message)
        self.path = path
