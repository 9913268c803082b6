"""
What the virtual machine boots: Debian's kernel, and an initramfs with the few modules that it needs.

    apt-get download  ->  linux-image, busybox-static  ->  .cache/vm/{kernel,initramfs}

Nothing is installed: of the packages some files are taken. Standard library only.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Not the kernel for clouds: it has no 9p.
KERNEL = "linux-image-amd64"
BUSYBOX = "busybox-static"
#: For a root file system over 9p, and a disk to swap on.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "virtio_blk")
#: Where they and all that they depend on are found in the package.
PLACES = (
    "/fs/9p/",
    "/fs/fscache/",
    "/fs/netfs/",
    "/net/9p/",
    "/drivers/virtio/",
    "/drivers/block/virtio_blk.",
)
INIT = Path(__file__).resolve().parent / "init.sh"


class NotThere(Exception):
    """Something that the virtual machine takes is missing. The message is one sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What is the same in each boot."""

    kernel: Path
    initramfs: Path


def prepare(cache: Path) -> Image:
    """
    Return what is in *cache*, fetched first where it is not.

    Raises:
        NotThere: no Debian packages can be had here.
    """
    image = Image(kernel=cache / "kernel", initramfs=cache / "initramfs")
    parts = cache / "parts"
    if not parts.exists():
        fetch(parts)
    shutil.copyfile(parts / "kernel", image.kernel)
    # Made anew each time, which takes no time: init.sh is of the checkout.
    image.initramfs.write_bytes(archive(contents(parts)))
    return image


def fetch(parts: Path) -> None:
    """Put kernel, modules and busybox into *parts*, in one step at the end."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotThere(
                f"There is no {program} here, and kernel and busybox come as Debian packages."
            )
    parts.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parts.parent) as directory:
        found = Path(directory, "parts")
        (found / "modules").mkdir(parents=True)
        package = download(newest_kernel(), Path(directory))
        for path, data in files_of(package):
            if path.name.startswith("vmlinuz-"):
                (found / "kernel").write_bytes(data)
            elif ".ko" in path.suffixes and any(place in str(path) for place in PLACES):
                name, plain = unpacked(path.name, data)
                (found / "modules" / name).write_bytes(plain)
        for path, data in files_of(download(BUSYBOX, Path(directory))):
            if path.name == "busybox" and path.parent.name == "bin":
                (found / "busybox").write_bytes(data)
        for name in ("kernel", "busybox"):
            if not (found / name).exists():
                raise NotThere(f"The Debian package that should have the {name} has none.")
        found.rename(parts)


def newest_kernel() -> str:
    """Return the name of the package behind the one that always means the newest kernel."""
    pattern = re.compile(r"^\s*Depends: (linux-image-\S+)$", re.M)
    for _ in look_twice(f"no kernel package ({KERNEL}) is known here"):
        ended = subprocess.run(["apt-cache", "depends", KERNEL], capture_output=True, text=True)
        if found := pattern.search(ended.stdout):
            return found[1]
    raise AssertionError("look_twice raises")


def download(name: str, directory: Path) -> Path:
    """Fetch the package *name* into *directory*."""
    command = ["apt-get", "download", "-qq", name]
    if os.geteuid() == 0:
        # The user that apt would become has no right to write there.
        command[1:1] = ["-o", "APT::Sandbox::User=root"]
    for _ in look_twice(f"the package {name} cannot be fetched by apt-get"):
        subprocess.run(command, cwd=directory, capture_output=True)
        if found := sorted(directory.glob(f"{name}_*.deb")):
            return found[0]
    raise AssertionError("look_twice raises")


def look_twice(complaint: str) -> Iterator[None]:
    """Let the caller try, and again after an update of what apt knows; then raise NotThere."""
    yield
    if os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
        yield
    raise NotThere(f"There is no kernel for the virtual machine, as {complaint}.")


def files_of(package: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read the files of a Debian package one after the other: it is far larger than what is wanted."""
    reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    with reader, tarfile.open(fileobj=reader.stdout, mode="r|") as files:
        for member in files:
            if member.isfile():
                data = files.extractfile(member)
                assert data is not None
                yield PurePosixPath(member.name), data.read()


def unpacked(name: str, data: bytes) -> tuple[str, bytes]:
    """Return a module as the loader of busybox takes it: newer Debians compress them."""
    if name.endswith(".xz"):
        return name.removesuffix(".xz"), lzma.decompress(data)
    if not name.endswith(".ko"):
        raise NotThere(f"The kernel's module {name} is compressed in a way that is not known here.")
    return name, data


def in_order(modules: Mapping[str, bytes], wanted: tuple[str, ...]) -> list[str]:
    """Return *wanted* and all that they depend on, as they must be loaded; built-in ones are left out."""
    order: list[str] = []

    def add(name: str) -> None:
        if name not in modules or name in order:
            return
        # The section .modinfo, where depmod reads it, too.
        for depends in re.findall(rb"\0depends=([^\0]*)\0", modules[name]):
            for other in filter(None, depends.decode().split(",")):
                add(other.replace("-", "_"))
        order.append(name)

    for name in wanted:
        add(name)
    return order


def contents(parts: Path) -> dict[str, tuple[int, bytes]]:
    """Return what the initramfs has: mode and data by path, directories before what is in them."""
    modules = {
        path.stem.replace("-", "_"): path.read_bytes() for path in (parts / "modules").iterdir()
    }
    order = in_order(modules, MODULES)
    directory, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    found: dict[str, tuple[int, bytes]] = dict.fromkeys(
        ("bin", "dev", "proc", "sys", "host", "kept", "modules", "run"), (directory, b"")
    )
    found["bin/busybox"] = (program, (parts / "busybox").read_bytes())
    found["bin/sh"] = (stat.S_IFLNK | 0o777, b"busybox")
    found["init"] = (program, INIT.read_bytes())
    for name in order:
        found[f"modules/{name}.ko"] = (stat.S_IFREG | 0o644, modules[name])
    found["modules/order"] = (stat.S_IFREG | 0o644, "\n".join(order).encode())
    return found


def archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """
    Write *files* as a cpio archive in the format "newc"; several of them in a row are one initramfs.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
    """
    out = bytearray()
    entries = [*files.items(), ("TRAILER!!!", (0, b""))]
    for number, (name, (mode, data)) in enumerate(entries, start=1):
        inode = number if name != "TRAILER!!!" else 0
        fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields)
        out += name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4)
        out += data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)
