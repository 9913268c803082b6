"""
Run the tests that need a kernel of their own, in a virtual machine.

    python3 tests/vm/run.py --python .venv-test/bin/python          tests/vm, all of it
    python3 tests/vm/run.py --python .venv-test/bin/python -k swap  whatever else is given goes to pytest

The machine has Debian's kernel with cgroups of version 2, and for its root this machine's,
read-only: the same Python, the same packages, the same checkout. It takes qemu, and apt-get
for the kernel; with /dev/kvm it is fast, and without it several times slower.
Exit status: that of pytest, or 77 when something that it takes is missing here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import shlex
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import image
from guest import STATUS
from image import Image, NotThere

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "vm"
QEMU = "qemu-system-x86_64"
#: As test harnesses say that a test was skipped.
EXIT_NOT_THERE = 77
MEMORY_MEGABYTES = 1536
SWAP_BYTES = 512 << 20
#: Mounted anew in the guest.
HIDDEN = ("/tmp", "/var/tmp", "/run", "/dev")
#: What a guest under KVM says its first word within. Where /dev/kvm is one of a virtual machine
#: itself, it may open well, and start no ordinary kernel, or end qemu.
FIRST_WORD_SECONDS = 20.0
#: File of the cache that says with which kernel of this machine that was so.
NO_KVM = "no-kvm"


class NoSignOfLife(Exception):
    """The guest did not say a word, in time or at all."""


def main() -> int:
    arguments, for_pytest = parse()
    try:
        check_machine()
        CACHE.mkdir(parents=True, exist_ok=True)
        found = image.prepare(CACHE)
    except NotThere as error:
        print(f"Error: {error}", flush=True)
        return EXIT_NOT_THERE
    if arguments.prepare:
        return 0
    if not any((ROOT / word.partition("::")[0]).exists() for word in for_pytest):
        for_pytest = ["tests/vm", *for_pytest]
    plan = plan_of(arguments.python, for_pytest)
    for accelerator in [arguments.accel] if arguments.accel else accelerators():
        began = time.monotonic()
        try:
            status = boot(
                command_of(found, plan, accelerator), accelerator, arguments.limit_seconds
            )
        except NoSignOfLife:
            (CACHE / NO_KVM).write_text(platform.release())
            print("Error: under KVM the guest does not start; without it, it may.", flush=True)
            continue
        seconds = time.monotonic() - began
        print(f"The virtual machine ({accelerator}) ran for {seconds:.0f} s.", flush=True)
        return status
    return 1


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Take our few options; all others are pytest's."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="the Python that has pytest and what the tests need",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="only fetch what it takes, or say why it cannot be"
    )
    parser.add_argument(
        "--accel", choices=("kvm", "tcg"), help="default: kvm where it works, else tcg"
    )
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=1800,
        help="end the machine after so long (%(default)s)",
    )
    return parser.parse_known_args()


def check_machine() -> None:
    """
    Raises:
        NotThere: no virtual machine can run here.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        here = f"{platform.system()} on {platform.machine()}"
        raise NotThere(f"The virtual machine is for Linux on x86_64, and this is {here}.")
    if shutil.which(QEMU) is None:
        raise NotThere(f"There is no {QEMU} here (on Debian: apt install qemu-system-x86).")


def accelerators() -> list[str]:
    """Return what is to be tried, the first first. What did not work with this kernel is not tried again."""
    known = CACHE / NO_KVM
    is_useless = known.exists() and known.read_text() == platform.release()
    may_have_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK) and not is_useless
    return ["kvm", "tcg"] if may_have_kvm else ["tcg"]


def plan_of(python: str, for_pytest: list[str]) -> dict[str, Any]:
    """Return what guest.py does."""
    # Not resolved: a virtual environment's is a link, and is known by its place.
    python = str(Path(python).absolute())
    options = ["-p", "no:cacheprovider", "--color=no", "--timeout=300"]
    return {
        "command": [python, "-m", "pytest", *options, *for_pytest],
        "directory": str(ROOT),
        "environment": {
            "COLUMNS": "100",
            "DAYFLY_TEST_DATABASE_URL": "sqlite://",
            "DAYFLY_TEST_KERNEL": "1",
            "HOME": "/tmp",
            "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            # The file system is read-only.
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    }


def command_of(found: Image, plan: dict[str, Any], accelerator: str) -> list[str]:
    """Return the command line of the machine that does *plan*."""
    initramfs = CACHE / f"initramfs-{os.getpid()}"
    initramfs.write_bytes(found.initramfs.read_bytes() + image.archive(files_of(plan)))
    swap = CACHE / f"swap-{os.getpid()}"
    with swap.open("wb") as file:
        file.truncate(SWAP_BYTES)
    return [
        QEMU,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-machine", f"pc,accel={accelerator}", "-cpu", "max"),
        *("-smp", "2", "-m", str(MEMORY_MEGABYTES)),
        *("-kernel", str(found.kernel), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 panic=-1 quiet mitigations=off"),
        *("-serial", f"file:{CACHE / 'kernel.log'}", "-serial", "stdio"),
        "-fsdev",
        "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
        *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
        *("-drive", f"file={swap},if=virtio,format=raw"),
    ]


def files_of(plan: dict[str, Any]) -> dict[str, tuple[int, bytes]]:
    """Return what this boot's initramfs has in addition."""
    python = plan["command"][0]
    prefixes = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    lines = [f"PYTHON={shlex.quote(python)}", f"GUEST={shlex.quote(f'{ROOT}/tests/vm/guest.py')}"]
    lines += [f"keep {shlex.quote(place)}" for place in hidden([str(ROOT), *prefixes])]
    mode = stat.S_IFREG | 0o644
    return {
        "plan.sh": (mode, "".join(f"{line}\n" for line in lines).encode()),
        "plan.json": (mode, json.dumps(plan).encode()),
    }


def hidden(places: Iterable[str]) -> list[str]:
    """Return those of *places* that the guest's own file systems would hide."""
    return sorted(
        {place for place in places if place.startswith(tuple(f"{top}/" for top in HIDDEN))}
    )


def boot(command: list[str], accelerator: str, limit_seconds: float) -> int:
    """
    Run the machine, pass on what its guest prints, and return the guest's exit status.

    Raises:
        NoSignOfLife: under KVM it does not start.
    """
    print("$", shlex.join(command), flush=True)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    limit = threading.Timer(limit_seconds, give_up, [process, limit_seconds])
    limit.start()
    try:
        with process:
            output = process.stdout
            assert output is not None
            if accelerator == "kvm" and not select.select([output], [], [], FIRST_WORD_SECONDS)[0]:
                process.kill()
                raise NoSignOfLife
            words = iter(output)
            first = next(words, "")
            if accelerator == "kvm" and not first:
                raise NoSignOfLife
            status = pass_on(chain([first], words))
    finally:
        limit.cancel()
        process.kill()
        for name in ("initramfs", "swap"):
            (CACHE / f"{name}-{os.getpid()}").unlink(missing_ok=True)
    if status is None:
        print_kernel_log()
        print("Error: the guest ended without a word; above is what its kernel said.", flush=True)
        return 1
    return status


def pass_on(output: Iterable[str]) -> int | None:
    """Print what the guest does; return the status that it says at the end."""
    status = None
    for line in output:
        if line.startswith(STATUS):
            status = int(line.removeprefix(STATUS))
        else:
            print(line.rstrip("\r\n"), flush=True)
    return status


def print_kernel_log() -> None:
    """Print the last that the guest's kernel said."""
    log = CACHE / "kernel.log"
    if log.exists():
        print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), flush=True)


def give_up(process: subprocess.Popen[str], seconds: float) -> None:
    """End a machine that takes too long."""
    print(f"\nError: the guest took longer than {seconds:g} s and is ended.", flush=True)
    process.kill()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
