"""Printing for both command lines: words for people, one JSON value for machines, errors with remedy and exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

    from lattice.core.errors import LatticeError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_READY = 3
EXIT_UNREACHABLE = 4
EXIT_CREDENTIAL = 5
EXIT_SECURITY = 6
EXIT_INTERRUPTED = 130

_EXIT_CODES = {
    "config_invalid": EXIT_USAGE,
    "invalid_request": EXIT_USAGE,
    "not_found": EXIT_USAGE,
    "daemon_not_running": EXIT_NOT_READY,
    "daemon_already_running": EXIT_NOT_READY,
    "not_paired": EXIT_NOT_READY,
    "engine_unavailable": EXIT_NOT_READY,
    "gateway_unreachable": EXIT_UNREACHABLE,
    "store_unavailable": EXIT_UNREACHABLE,
    "pairing_invalid": EXIT_SECURITY,
    "pairing_secret_leaked": EXIT_SECURITY,
    "bootstrap_token_used": EXIT_SECURITY,
    "model_digest_mismatch": EXIT_SECURITY,
    "artefact_untrusted": EXIT_SECURITY,
    "runtime_identity_changed": EXIT_SECURITY,
    "runtime_unverified": EXIT_SECURITY,
    "sealing_mode_unavailable": EXIT_SECURITY,
    "receipt_invalid": EXIT_SECURITY,
    "reply_invalid": EXIT_SECURITY,
}


def exit_code(error: LatticeError) -> int:
    """What a script sees: 2 usage, 3 not ready, 4 unreachable, 5 credential, 6 do not trust this, 1 anything else."""
    fallback = EXIT_CREDENTIAL if error.status in (401, 403) else EXIT_FAILED
    return _EXIT_CODES.get(error.code, fallback)


def console(stderr: bool = False) -> Console:
    """A rich console on stdout or stderr."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def plain(value: Any) -> Any:
    """Anything with fields as JSON's own types."""
    import msgspec

    return msgspec.to_builtins(value, enc_hook=str)


def show(value: Any, as_json: bool, people: Callable[[Console], None]) -> None:
    """Print `value` as one JSON document, or let `people` print it in words."""
    if as_json:
        sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
        sys.stdout.flush()
    else:
        people(console())


def table(out: Console, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Aligned columns without borders. Cells are never cut: keys and paths are there to be copied."""
    from rich.text import Text

    lines = [columns, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for index, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        out.print(Text(text, style="" if index else "bold"))


def show_error(error: LatticeError, as_json: bool) -> None:
    """The error with its remedy: JSON on stdout, or words on stderr."""
    if as_json:
        sys.stdout.write(json.dumps(error.body(), ensure_ascii=False) + "\n")
        return
    from rich.text import Text

    out = console(stderr=True)
    out.print(Text.assemble((error.code, "bold red"), f": {error.message}"))
    out.print(Text(f"  {error.spec.remedy}", style="dim"))


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn catalogued errors and Ctrl-C into a message and an exit code; everything else stays a traceback."""
    from lattice.core.errors import LatticeError

    try:
        yield
    except LatticeError as error:
        show_error(error, as_json)
        raise SystemExit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        _quiet_pipe()


def _quiet_pipe() -> NoReturn:
    # The reader (`| head`) went away: keep the interpreter from complaining when it flushes stdout at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(EXIT_FAILED)
