"""Networks of guests: frames, switches, spanning tree, links, captures, and the fabric that carries it all; no root, no tap."""

from cloudlab.networks.capture import Capture, Captured, Row
from cloudlab.networks.fabric import Fabric
from cloudlab.networks.link import Link
from cloudlab.networks.switch import Port, Switch
from cloudlab.networks.topology import Topology, leaf_spine, ring, star, tree
from cloudlab.networks.uplink import Uplink

__all__ = [
    "Capture",
    "Captured",
    "Fabric",
    "Link",
    "Port",
    "Row",
    "Switch",
    "Topology",
    "Uplink",
    "leaf_spine",
    "ring",
    "star",
    "tree",
]
