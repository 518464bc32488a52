"""The lab: the front door. It hands out machines, and ends all that it made."""

from cloudlab.lab.lab import Lab

__all__ = ["Lab"]
