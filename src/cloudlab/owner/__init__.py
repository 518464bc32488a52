"""The owner: who holds every process, socket and file of a lab, so that nothing is left when it ends."""

from cloudlab.owner.budget import Budget
from cloudlab.owner.child import Child
from cloudlab.owner.keeper import FIRST_FD
from cloudlab.owner.owner import Owner, labs, remove_dead

__all__ = ["FIRST_FD", "Budget", "Child", "Owner", "labs", "remove_dead"]
