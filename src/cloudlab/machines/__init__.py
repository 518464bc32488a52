"""Machines: guests as QEMU processes, their console, control, agent and saved states."""

from cloudlab.machines.life import State
from cloudlab.machines.machine import Machine
from cloudlab.machines.result import Result
from cloudlab.machines.spec import Spec

__all__ = ["Machine", "Result", "Spec", "State"]
