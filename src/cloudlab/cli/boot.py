"""`cloudlab boot`: a guest's shell in this terminal."""

from __future__ import annotations

import argparse
import os
import sys

from cloudlab.cli.table import Commands, command
from cloudlab.errors import UsageError


def add(commands: Commands) -> None:
    """Add the command `boot`."""
    parser = command(commands, "boot", run, "start a guest and join this terminal to its console")
    parser.add_argument("--image", default="node", help="which image (default: node)")
    parser.add_argument("--memory", default="384M", metavar="SIZE", help="its memory (default: 384M)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="how many CPUs it has (default: 1)")
    parser.add_argument("--cold", action="store_true", help="boot it, instead of restoring a saved state")


def run(arguments: argparse.Namespace) -> int:
    """Start a guest, hand it the terminal, and end it when the terminal comes back."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "`cloudlab boot` needs a terminal, and this is none.",
            allowed="a terminal; or Python, where no terminal is needed",
            example='python -c \'from cloudlab import Lab; print(Lab().machine("n1").succeed("uname -a"))\'',
        )
    from cloudlab.lab import Lab

    with Lab() as lab:
        machine = lab.machine(
            "n1",
            image=arguments.image,
            memory=arguments.memory,
            cpus=arguments.cpus,
            cold=arguments.cold,
        )
        print(f"{machine.name} runs, {machine.accelerator}.")
        print("You are root in it. Ctrl-] leaves, and ends it.", flush=True)
        columns, lines = os.get_terminal_size()
        machine.succeed(f"stty -F /dev/ttyS0 rows {lines} cols {columns}")
        machine.console.login()
        print(machine.console.after, end="", flush=True)  # the prompt that login() has read
        machine.console.interact()
    print(f"\r\n{machine.name} is gone, and with it all that was in it.")
    return 0
