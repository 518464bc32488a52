"""Images on this computer: layers, a store by content (an OCI image layout), builds, a registry, push and pull.

The modules, from the ground up: `names`, `entries` and `unpacking` (a layer, not believed), `layers` (its two forms), `image`,
`blobs`, `store`, `stack`, `containerfile`, `ignore`, `context`, `build`, `answers`, `api`, `server`, `client`.
"""

from cloudlab.containers.registry.build import Runner, Step, build
from cloudlab.containers.registry.client import Pushed, pull, push
from cloudlab.containers.registry.containerfile import Instruction, parse_containerfile
from cloudlab.containers.registry.image import Config, Descriptor, Image, Manifest
from cloudlab.containers.registry.layers import Contents, check, oci_form, overlay_form
from cloudlab.containers.registry.server import Registry
from cloudlab.containers.registry.store import Store

__all__ = [
    "Config",
    "Contents",
    "Descriptor",
    "Image",
    "Instruction",
    "Manifest",
    "Pushed",
    "Registry",
    "Runner",
    "Step",
    "Store",
    "build",
    "check",
    "oci_form",
    "overlay_form",
    "parse_containerfile",
    "pull",
    "push",
]
