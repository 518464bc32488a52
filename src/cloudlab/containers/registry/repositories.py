"""What the repositories of a registry hold: what manifests name, and what was uploaded; the bytes are in the store once."""

from __future__ import annotations

from collections import defaultdict

from cloudlab.containers.registry.image import Descriptor, parts_of
from cloudlab.containers.registry.names import Reference, parse_reference
from cloudlab.containers.registry.store import Store
from cloudlab.errors import UsageError


class Repositories:
    """The repositories of one registry, over a store that may have images of other registries, too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploaded: dict[str, set[str]] = defaultdict(set)
        self._parts: dict[str, frozenset[str]] = {}

    def references(self, name: str | None = None) -> list[tuple[Reference, Descriptor]]:
        """Return the names in the store that are no other registry's, of one repository or of all."""
        found = []
        for text, descriptor in self._store.names().items():
            try:
                reference = parse_reference(text)
            except UsageError:  # another tool's, who is free to call things what they like
                continue
            if not reference.host and name in (None, reference.repository):
                found.append((reference, descriptor))
        return found

    def add(self, name: str, digest: str) -> None:
        """Note that a blob was uploaded to a repository."""
        self._uploaded[name].add(digest)

    def holds(self, name: str, digest: str) -> bool:
        """Is a blob in a repository, and in the store?"""
        named = digest in self._uploaded[name] or any(
            digest in self._parts_of(each) for _, each in self.references(name)
        )
        return named and self._store.has(digest)

    def _parts_of(self, descriptor: Descriptor) -> frozenset[str]:
        if descriptor.digest not in self._parts:
            blobs, manifests = parts_of(self._store.read_document(descriptor.digest), descriptor.digest)
            self._parts[descriptor.digest] = frozenset(each.digest for each in [*blobs, *manifests])
        return self._parts[descriptor.digest]

    def keep_by_digest(self, name: str, tag: str, new: str = "") -> None:
        """Who knows a manifest's digest finds it when its tag is another's, or gone."""
        for reference, descriptor in self.references(name):
            if reference.tag == tag and descriptor.digest != new:
                self._store.tag(descriptor, f"{name}@{descriptor.digest}")
