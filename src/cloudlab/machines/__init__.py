"""Machines: guests as QEMU processes, their console, control, agent and saved states."""

from cloudlab.machines.machine import Machine, State
from cloudlab.machines.result import Result
from cloudlab.machines.spec import Spec

__all__ = ["Machine", "Result", "Spec", "State"]
