"""How a capture ended, and the exit code that says so.

The rule, in this order:

1. The capture was interrupted: 128 + the signal's number (130 for Ctrl-C). A window that the user was to end by Ctrl-C
   (``--no-load``) is not interrupted by it.
2. The program ended with a code other than 0, by itself: that code; 128 + the signal's number when a signal ended it.
   A server that the capture ended counts as 0 when it ended by the SIGTERM or SIGKILL that it was sent; its code does
   not count when the capture had failed before and ended it for that.
3. The capture failed: the code of its error (2 usage, 3 trace, 5 nsys, 6 output, 7 capture).
4. 0.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nsyskit.errors import NsyskitError

State = Literal["complete", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a capture.

    Attributes:
        state: ``complete``, ``interrupted`` or ``failed``; the folder holds what was won in any case.
        folder: the run folder.
        exit_code: by the rule of this module.
        program_exit: how the program ended, None when it never began or its code was lost.
        message: what went wrong, in one line; empty when nothing did.
        notes: what is missing or odd, without being an error.
        summary: the numbers of the run, for whoever looks at once.
    """

    state: State
    folder: Path
    exit_code: int
    program_exit: int | None = None
    message: str = ""
    notes: tuple[str, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)


def program_code(returncode: int, *, ended_by_us: bool) -> int:
    """The program's exit code as a shell would tell it; 0 when it died of the signal that the capture sent."""
    code = 128 - returncode if returncode < 0 else returncode
    ours = {0, 128 + signal.SIGTERM, 128 + signal.SIGKILL}
    return 0 if ended_by_us and code in ours else code


def exit_code(*, interrupted: int | None, program: int | None, error: NsyskitError | None) -> int:
    """The exit code by the rule of this module."""
    if interrupted is not None:
        return 128 + interrupted
    if program:
        return program
    return error.exit_code if error is not None else 0
