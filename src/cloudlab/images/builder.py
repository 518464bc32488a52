"""From recipe to image: choose files, add the agent and the boot files, write the kernel and the initramfs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from cloudlab.errors import CloudlabError
from cloudlab.images.compiler import compile_static
from cloudlab.images.debs import read_package
from cloudlab.images.kernel import Modules, extract_vmlinux
from cloudlab.images.packages import Package
from cloudlab.images.recipe import Recipe
from cloudlab.images.select import closure, match
from cloudlab.images.tree import Tree

FORMAT = "1"  # of what this module writes: another number makes every image anew
_STEPS = ("unpack packages", "choose files", "kernel and modules", "agent")


@dataclass
class Built:
    """What a build made: the kernel (ELF), the root file system, and which packages gave something to it."""

    vmlinux: bytes
    root: Tree
    used: list[Package]
    step_s: dict[str, float] = field(default_factory=dict)


def build(recipe: Recipe, packages: Mapping[Package, Path], tools: Path) -> Built:
    """Make the image in memory from package files; equal packages give equal bytes."""
    times: dict[str, float] = {}
    with tqdm(total=len(_STEPS), desc=f"image {recipe.name}", unit="step", leave=False) as bar:

        @contextmanager
        def step(name: str) -> Iterator[None]:
            bar.set_postfix_str(name)
            began = time.monotonic()
            yield
            times[name] = time.monotonic() - began
            bar.update()

        with step("unpack packages"):
            with ThreadPoolExecutor(2) as pool:  # decompression runs outside Python's lock
                trees = dict(zip(packages, pool.map(read_package, packages.values()), strict=True))
        with step("choose files"):
            root = _choose(recipe, {package.name: tree for package, tree in trees.items()})
            used = [package for package, tree in trees.items() if _gave(package, tree, root)]
        with step("kernel and modules"):
            kernel_files = _kernel_files(trees)
            vmlinux = extract_vmlinux(_vmlinuz(kernel_files))
            modules = Modules(kernel_files)
            modules.add_to(root, [*recipe.boot_modules, *recipe.modules])
            boot = [f"/{modules.path_of[name]}" for name in modules.closure(recipe.boot_modules)]
            root.add_file("etc/boot-modules", "".join(re.sub(r"\.ko\.\w+$", ".ko", path) + "\n" for path in boot))
        with step("agent"):
            root.add_file("usr/libexec/cloudlab-agent", compile_static(recipe.agent_source, tools), 0o755)
    return Built(vmlinux, _finish(recipe, root), sorted(used), times)


def _choose(recipe: Recipe, trees: Mapping[str, Tree]) -> Tree:
    everything = Tree()
    for tree in trees.values():
        everything.update(tree)
    wanted = []
    for package, patterns in recipe.take.items():
        if package not in trees:
            raise CloudlabError(f"recipe {recipe.name!r} takes files of {package!r}, but that package did not come")
        try:
            wanted += match(trees[package], patterns)
        except CloudlabError as error:
            raise CloudlabError(f"recipe {recipe.name!r}, package {package!r}: {error}") from error
    return closure(everything, wanted)


def _gave(package: Package, tree: Tree, root: Tree) -> bool:
    return package.name.startswith("linux-") or any(root.get(path) is entry for path, entry in tree.items())


def _kernel_files(trees: Mapping[Package, Tree]) -> Tree:
    """The kernel and its modules: one package in Debian, two in Ubuntu."""
    files = Tree()
    for package, tree in trees.items():
        if package.name.startswith("linux-"):
            files.update(tree)
    return files


def _vmlinuz(files: Tree) -> bytes:
    for path in sorted(files):
        if path.startswith("boot/vmlinuz-"):
            return files[path].data
    raise CloudlabError("no package brought a kernel (boot/vmlinuz-…)")


def _finish(recipe: Recipe, root: Tree) -> Tree:
    """Add what the recipe itself brings, the links that installing would make, and busybox for all the rest."""
    for directory in ("dev", "etc", "home/student", "mnt", "opt", "proc", "root", "run", "srv", "sys", "usr/bin", "usr/lib64", "var/lib", "var/log"):
        root.add_directory(directory)
    root.add_directory("tmp", 0o1777)
    for top in ("bin", "lib", "lib64"):
        root.add_link(top, f"usr/{top}")
    root.add_link("sbin", "usr/bin")
    root.add_link("usr/sbin", "bin")
    root.add_link("var/run", "/run")
    root.add_link("var/tmp", "/tmp")
    root.add_link("etc/mtab", "/proc/self/mounts")
    for path, target in recipe.links.items():
        root.add_link(path, target)
    for file in recipe.files():
        mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
        root.add_file(file.relative_to(recipe.directory / "files").as_posix(), file.read_bytes(), mode)
    if "usr/bin/busybox" in root:
        for applet in busybox_applets(root["usr/bin/busybox"].data):
            if f"usr/bin/{applet}" not in root:
                root.add_link(f"usr/bin/{applet}", "busybox")
    return root.with_parents()


def busybox_applets(program: bytes) -> list[str]:
    """Read the names of busybox's applets out of the program itself: a sorted, NUL-separated list that begins "[", "[["."""
    start = program.find(b"\0[\0[[\0") + 1
    if not start:
        raise CloudlabError("this busybox carries no list of applets")
    names = re.match(rb"(?:[\[a-z0-9_.\-]+\0)+", program[start:])
    assert names is not None  # it begins with "[\0[[\0"
    return [name.decode() for name in names[0].split(b"\0") if name and name != b"busybox"]
