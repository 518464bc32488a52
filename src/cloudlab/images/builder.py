"""From recipe to image: choose files, add our programs and the boot files; what is left is a file tree, and a kernel for guests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloudlab.errors import CloudlabError
from cloudlab.images.apt import Package
from cloudlab.images.compiler import compile_static
from cloudlab.images.debs import read_package
from cloudlab.images.kernel import Modules, extract_vmlinux
from cloudlab.images.recipe import Recipe, is_program
from cloudlab.images.select import closure, match
from cloudlab.images.tree import Tree
from cloudlab.progress import progress

FORMAT = "3"  # of what this module writes: another number makes every image anew
_STEPS = ("unpack packages", "choose files", "kernel and modules", "programs of ours")
_OF_GUESTS, _OF_CONTAINERS = ("home/student",), ("home", "usr/lib")
_DIRECTORIES = (
    *("dev", "etc", "mnt", "opt", "proc", "root", "run", "srv", "sys"),
    *("usr/bin", "usr/lib64", "var/lib", "var/log"),
)
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/sbin": "bin",
    "var/run": "/run",
    "var/tmp": "/tmp",
    "etc/mtab": "/proc/self/mounts",
}


@dataclass
class Built:
    """What a build made: the kernel (ELF), the root file system, and which packages gave something to them.

    `release` is what `uname -r` will say (it and the kernel are empty in a root for containers); `absent` has a line
    for each thing the recipe names and the packages don't have, which is a mistake in the recipe unless the packages
    are others than those it was tested with.
    """

    vmlinux: bytes
    root: Tree
    release: str
    used: list[Package]
    absent: list[str]


def build(recipe: Recipe, packages: Mapping[Package, Path], tools: Path) -> Built:
    """Make the image in memory from package files; equal packages give equal bytes."""
    with progress(len(_STEPS), f"image {recipe.name}", unit="step") as bar:

        @contextmanager
        def step(name: str) -> Iterator[None]:
            bar.set_postfix_str(name)
            yield
            bar.update()

        with step("unpack packages"):
            trees = _unpack(packages)
        with step("choose files"):
            root, absent = _choose(recipe, {package.name: tree for package, tree in trees.items()})
            used = [
                package
                for package, tree in trees.items()
                if _gave(tree, root) or (recipe.bootable and _is_kernel(tree))
            ]
        vmlinux, release = b"", ""
        with step("kernel and modules"):
            if recipe.bootable:
                kernel_files = _kernel_files(trees.values())
                vmlinux = extract_vmlinux(_vmlinuz(kernel_files))
                modules = Modules(kernel_files)
                release = modules.release
                absent += _add_modules(recipe, modules, root)
        with step("programs of ours"):
            for source in recipe.sources:
                root.add_file(f"usr/libexec/cloudlab-{source.stem}", compile_static(source, tools), 0o755)
    absent += _join(recipe, root)
    _finish(recipe, root)
    return Built(vmlinux, root, release, used, absent)


def _unpack(packages: Mapping[Package, Path]) -> dict[Package, Tree]:
    """In the order of their names: where two packages bring the same path, it is always the same one that counts."""
    ordered = sorted(packages)
    with ThreadPoolExecutor(2) as pool:  # decompression runs outside Python's lock
        return dict(zip(ordered, pool.map(read_package, [packages[package] for package in ordered]), strict=True))


def _choose(recipe: Recipe, trees: Mapping[str, Tree]) -> tuple[Tree, list[str]]:
    everything = Tree()
    for tree in trees.values():
        everything.update(tree)
    wanted, absent = list[str](), list[str]()
    for package, patterns in recipe.take.items():
        found, missing = match(trees.get(package, Tree()), patterns)
        wanted += found
        absent += [f"{package} has no file {pattern!r}" for pattern in missing]
    root, unmet = closure(everything, wanted)
    return root, absent + unmet


def _gave(tree: Tree, root: Tree) -> bool:
    return any(root.get(path) is entry for path, entry in tree.items())


def _is_kernel(tree: Tree) -> bool:
    return any(path.startswith(("boot/vmlinuz-", "usr/lib/modules/")) for path in tree)


def _kernel_files(trees: Iterable[Tree]) -> Tree:
    """The kernel and its modules: one package in Debian, two in Ubuntu."""
    files = Tree()
    for tree in trees:
        if _is_kernel(tree):
            files.update(tree)
    return files


def _vmlinuz(files: Tree) -> bytes:
    for path in sorted(files):
        if path.startswith("boot/vmlinuz-"):
            return files[path].data
    raise CloudlabError("no package brought a kernel (boot/vmlinuz-…)")


def _add_modules(recipe: Recipe, modules: Modules, root: Tree) -> list[str]:
    """Add the recipe's modules and the list of those that init loads; returns a line for each that is absent."""
    there, absent = list(recipe.boot_modules), list[str]()
    for name in recipe.modules:
        try:
            modules.closure([name])
            there.append(name)
        except CloudlabError as error:
            absent.append(str(error))
    modules.add_to(root, there)
    boot = [f"{name}\n" for name in modules.closure(recipe.boot_modules)]
    root.add_file("etc/boot-modules", "".join(boot))
    return absent


def _join(recipe: Recipe, root: Tree) -> list[str]:
    """Put files into one, as packages do when they are installed; returns a line for each pattern that nothing fits."""
    absent = list[str]()
    for path, patterns in recipe.joined.items():
        found, missing = match(root, patterns)
        root.add_file(path, b"".join(root.pop(name).data for name in found))
        absent += [f"there is no file {pattern!r} to make {path} of" for pattern in missing]
    return absent


def _finish(recipe: Recipe, root: Tree) -> None:
    """Add what the recipe itself brings, the links that installing would make, and busybox for all the rest."""
    for directory in (*_DIRECTORIES, *(_OF_GUESTS if recipe.bootable else _OF_CONTAINERS)):
        root.add_directory(directory)
    root.add_directory("tmp", 0o1777)
    for path, target in {**_LINKS, **recipe.links}.items():
        root.add_link(path, target)
    for file in recipe.files():
        mode = 0o755 if is_program(file) else 0o644
        root.add_file(file.relative_to(recipe.directory / "files").as_posix(), file.read_bytes(), mode)
    if "usr/bin/busybox" in root:
        for applet in busybox_applets(root["usr/bin/busybox"].data):
            if f"usr/bin/{applet}" not in root:
                root.add_link(f"usr/bin/{applet}", "busybox")


def busybox_applets(program: bytes) -> list[str]:
    """Read the names of busybox's applets out of the program itself: sorted, NUL behind each, "[" and "[[" first."""
    names = re.search(rb"\[\0\[\[\0(?:[a-z0-9_.\-]+\0){20,}", program)
    if names is None:
        raise CloudlabError("this busybox carries no list of applets")
    return [name.decode() for name in names[0].split(b"\0") if name and name != b"busybox"]
