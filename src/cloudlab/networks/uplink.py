"""An uplink: a way from the lab's network to the network of this computer, without root (QEMU's user network, "slirp")."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from cloudlab.errors import MachineError
from cloudlab.owner import Owner
from cloudlab.owner.waiting import wait_showing

_START_DEADLINE_S = 20.0


class Uplink:
    """A box on a switch that passes guests' packets on as if this computer had sent them, and brings the answers back (NAT).

    It is a QEMU without a machine in it: its user-mode network stack, joined to a socket by a hub. `gateway` is its address on the
    switch, where this computer itself is reached too; `dns` answers names as this computer would. Nothing can come in unasked.
    """

    def __init__(self, owner: Owner, qemu: str, name: str, subnet: ipaddress.IPv4Network) -> None:
        self.name, self.subnet = name, subnet
        self.gateway, self.dns = subnet.broadcast_address - 6, subnet.broadcast_address - 7
        self.socket, log = owner.path(f"{name}.net0"), owner.path(f"{name}.qemu.log")
        self._child = owner.spawn(name, [qemu, *self.arguments(self.socket)], log=log)
        if not wait_showing(f"{name} starts", self._listens, _START_DEADLINE_S):
            self._child.kill()
            raise MachineError(name, "the uplink did not start", output=self._child.printed(), log=log)

    def arguments(self, socket: Path) -> list[str]:
        """QEMU's arguments: the user network and the socket, on one hub."""
        user = f"user,id=out,ipv6=off,net={self.subnet},host={self.gateway},dns={self.dns}"
        wire = f"stream,id=in,server=on,addr.type=unix,addr.path={str(socket).replace(',', ',,')}"
        words = ["-nodefaults", "-display", "none", "-machine", "none", "-netdev", user, "-netdev", wire]
        return [*words, "-netdev", "hubport,id=h0,hubid=0,netdev=out", "-netdev", "hubport,id=h1,hubid=0,netdev=in"]

    def _listens(self, seconds: float) -> bool:
        for _ in range(max(1, int(seconds / 0.01))):
            if self.socket.exists() or self._child.wait(0.01):
                break
        return self.socket.exists()

    @property
    def alive(self) -> bool:
        """Is its process there?"""
        return self._child.alive

    def close(self) -> None:
        """End it."""
        self._child.kill()
