"""The command line: `cloudlab lab | doctor | boot | ps | clean | images | lessons`, a thin face of the package.

Each command has a module of its own with `add` (its options) and `run` (what it does). What is heavy is imported
by `run`, so that `cloudlab --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cloudlab import __version__
from cloudlab.cli import boot, clean, doctor, images, lab, ps
from cloudlab.errors import CloudlabError, UsageError

__all__ = ["main"]

_INTERRUPTED, _PIPE_CLOSED = 128 + 2, 128 + 13  # what a shell says of SIGINT and SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 when all is well, 1 for a failure, 2 for a wrong call, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["lessons"]:
            return _lessons(words[1:])
        arguments = _parser().parse_args(words)
        return int(arguments.run(arguments))
    except CloudlabError as error:
        print(f"cloudlab: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # `cloudlab ps | head`; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cloudlab", description="Cloud computing made to happen, on emulated hardware, in a notebook."
    )
    parser.add_argument("--version", action="version", version=f"cloudlab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (lab, doctor, boot, ps, clean, images):
        module.add(commands)
    commands.add_parser("lessons", help="build, check and hand out lessons", add_help=False)
    return parser


def _lessons(words: list[str]) -> int:
    from cloudlab.teaching.__main__ import main as teaching

    return teaching(words, prog="cloudlab lessons")
