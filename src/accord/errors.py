"""Every error a user can cause, with the exit code and the three lines it prints.

``error[E301]: what came``, then ``--> path:row:key``, then ``help: what to do``.
"""

from __future__ import annotations

from typing import ClassVar


class AccordError(Exception):
    """Root of the tree. `message` says what happened, `where` names the file, row or key, `help` the remedy.

    `code` identifies the kind of message ("E301"): its first digit is the exit code of the class.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "E100"

    def __init__(self, message: str, *, where: str | None = None, help: str | None = None, code: str | None = None):
        self.message = message
        self.where = where
        self.help = help
        self.code = code or self.default_code
        digit = self.exit_code if self.exit_code < 10 else 9
        assert self.code.startswith(f"E{digit}"), self.code
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The message as printed: one to three lines, control characters escaped."""
        lines = [f"error[{self.code}]: {printable(self.message)}"]
        if self.where is not None:
            lines.append(f"  --> {printable(self.where)}")
        if self.help is not None:
            lines.append(f"  help: {printable(self.help)}")
        return lines

    def as_dict(self) -> dict[str, str | int | None]:
        """The same fields for ``--json``."""
        return {
            "error": self.code,
            "message": printable(self.message),
            "where": None if self.where is None else printable(self.where),
            "help": None if self.help is None else printable(self.help),
            "exit_code": self.exit_code,
        }


class UsageError(AccordError, ValueError):
    """Usage or configuration (exit 2): an unknown key, a value out of bounds, a path that is not there."""

    exit_code = 2
    default_code = "E200"


class DataError(AccordError, ValueError):
    """Data that cannot be used (exit 3)."""

    exit_code = 3
    default_code = "E300"


class ArtifactError(AccordError):
    """A checkpoint, calibration or model file that is damaged, foreign or does not fit (exit 4)."""

    exit_code = 4
    default_code = "E400"


class EnvironmentFault(AccordError):
    """Disk, rights, memory, device or a missing optional package (exit 5)."""

    exit_code = 5
    default_code = "E500"


class TrainingError(AccordError):
    """Training failed (exit 6)."""

    exit_code = 6
    default_code = "E600"


class Diverged(TrainingError):
    """A loss or gradient that is not finite; the update was not applied."""

    default_code = "E601"


class Collapsed(TrainingError):
    """The representation or the energy collapsed; `kind` is constant, dimensional or flat energy."""

    default_code = "E602"

    def __init__(self, kind: str, message: str, *, where: str | None = None, help: str | None = None):
        self.kind = kind
        super().__init__(message, where=where, help=help)


class Locked(AccordError):
    """The run directory is in use by another process (exit 7)."""

    exit_code = 7
    default_code = "E700"


class Interrupted(AccordError):
    """Stopped by a signal after a verified checkpoint (exit 128 + signal number)."""

    default_code = "E900"

    def __init__(self, signal_number: int, message: str, *, where: str | None = None, help: str | None = None):
        self.exit_code = 128 + signal_number  # type: ignore[misc]
        super().__init__(message, where=where, help=help)


def printable(text: str) -> str:
    """`text` with control characters, bidirectional overrides and undecodable bytes escaped, so that no name can steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
