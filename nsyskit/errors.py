"""One family of errors. The CLI group catches it once: one line on stderr, the exit code of the class.

Every message ends in what to do next. Anything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations


class NsyskitError(Exception):
    """Base of all errors that are the input's or the environment's, not nsyskit's own.

    Attributes:
        exit_code: what the CLI exits with; 1 is kept for "the check you asked for failed" (doctor, gates).
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class UsageError(NsyskitError):
    """Options that do not fit together or do not fit this trace."""


class TraceFormatError(NsyskitError):
    """The input is not a trace that nsyskit can read: another file, damaged, truncated, unfinished."""

    exit_code = 3


class MissingTableError(NsyskitError):
    """An analysis asks for something that this capture did not collect."""

    exit_code = 4

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(f"this trace holds no {what}", hint=hint)
        self.what = what


class NsysError(NsyskitError):
    """nsys was not found, is too old for the job, or failed."""

    exit_code = 5


class OutputError(NsyskitError):
    """An output cannot be written: it exists, its folder is missing, the disk is full."""

    exit_code = 6


class CaptureError(NsyskitError):
    """A capture could not be made or finished."""

    exit_code = 7
