"""Errors that a user can mend. Every command prints them as one line."""


class UserError(ValueError):
    """A value, file or combination that the user gave and can change.

    The message names the key or file, says what is wrong and what to do.
    """


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be fetched or read, is not safe, or does not fit."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named is not there."""


class MissingPackageError(UserError, ImportError):
    """An optional package that the user asked for is not installed."""


class NotFiniteError(UserError, FloatingPointError):
    """A training whose loss or gradients are not finite: settings or images have to change."""


class UnreadableImage(UserError, OSError):
    """A file that is no image, or none that can be read as 8-bit colours.

    Args:
        message: What is wrong, naming the file.
        path: The file. Empty where a DataLoader raised the error of its worker again:
            it carries over the message only, at the end of a traceback.
    """

    def __init__(self, message: str, path: str = '') -> None:
        if message.startswith('Caught '):  # the worker's traceback, which ends in the message
            message = message.rpartition(f'{type(self).__name__}: ')[2].strip()
        super().__init__(message)
        self.path = path
