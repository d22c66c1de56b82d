"""What must be there before the private engine is started, each looked at, each fault one line for the operator.

The engine itself takes minutes to fail, and says little then.
"""

import fcntl
import os
import resource
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ark_trio.config import Settings, XllmSettings
from ark_trio.engine.xllm.launch import LICENSE_NAME, Host, Role, env_file, gemm_config
from ark_trio.rpc.server import bind_tcp

SHM = Path("/dev/shm")  # noqa: S108 (its size is looked at)

_NVIDIA_SMI_S = 30.0
_SIOCGIFADDR = 0x8915
_NAME_BYTES = 15
_GIB = 2**30
_NO_LICENSE = (b"", b"none")
"""What the unit's drop-in puts where the credential is missing."""

T = TypeVar("T")


class Fault(Exception):
    """Something is missing. The text is one line for the operator."""


def check_host(settings: Settings, role: Role) -> tuple[Host, list[str]]:
    """Look at everything; return what was found, and the faults."""
    faults: list[str] = []
    gpus = _kept(faults, lambda: _gpus(settings.xllm), 0)
    local_addr = _kept(faults, lambda: _local_addr(settings.xllm), "")
    faults += _file_faults(settings.xllm, role)
    faults += _port_faults(settings, role)
    faults += _limit_faults(settings.xllm)
    faults += _memory_faults(settings.xllm)
    return Host(gpus=gpus, local_addr=local_addr), faults


def raise_limits() -> None:
    """Use what is allowed: soft limits become the hard ones."""
    for which in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_NOFILE):
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (hard, hard))


def place_license(xllm: XllmSettings) -> None:
    """Link a licence that is elsewhere to where the engine looks for it.

    Raises:
        Fault: it can't be, or another licence is there.
    """
    place = xllm.home / LICENSE_NAME
    if xllm.license is None or _same(place, xllm.license):
        return
    if place.exists() and not place.is_symlink():
        raise Fault(f"licence: {place} is another file than {xllm.license} (xllm.license)")
    link = place.with_name(f".{LICENSE_NAME}.{os.getpid()}")
    try:
        link.symlink_to(xllm.license)
        link.replace(place)
    except OSError as error:
        raise Fault(
            f"licence: {place} can't be made ({error.strerror}); mount {xllm.license} there"
        ) from error


def _kept(faults: list[str], look: Callable[[], T], otherwise: T) -> T:
    try:
        return look()
    except Fault as fault:
        faults.append(str(fault))
        return otherwise


def _gpus(xllm: XllmSettings) -> int:
    found = _listed_gpus()
    wanted = xllm.gpus or found
    if found == 0:
        raise Fault("GPUs: nvidia-smi lists none")
    if wanted > found:
        raise Fault(f"GPUs: {wanted} are wanted (xllm.gpus), nvidia-smi lists {found}")
    return wanted


def _listed_gpus() -> int:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 (where it is depends on the distribution)
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_S,
            check=False,
        )
    except OSError as error:
        raise Fault("GPUs: nvidia-smi can't be run; is the driver installed?") from error
    except subprocess.TimeoutExpired as error:
        raise Fault(f"GPUs: nvidia-smi did not answer within {_NVIDIA_SMI_S:g} s") from error
    if listed.returncode:
        words = " ".join((listed.stderr or listed.stdout).split())
        raise Fault(f"GPUs: nvidia-smi failed: {words[:200]}")
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _local_addr(xllm: XllmSettings) -> str:
    """Ask the kernel for the interface's IPv4 address."""
    if xllm.local_addr is not None:
        return xllm.local_addr
    name = xllm.interface.encode()[:_NAME_BYTES]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("16s24x", name))
        except OSError as error:
            raise Fault(
                f"address: the interface {xllm.interface} has no IPv4 address"
                " (xllm.interface, xllm.local_addr)"
            ) from error
    return socket.inet_ntoa(answer[20:24])


def _file_faults(xllm: XllmSettings, role: Role) -> Iterator[str]:
    binary = xllm.home / xllm.binary
    if not os.access(binary, os.X_OK) or binary.is_dir():
        yield f"engine: {binary} can't be run (xllm.home, xllm.binary)"
    folders = {
        "model": (xllm.model_dir, "xllm.model_dir"),
        "draft model": (xllm.draft_model_dir, "xllm.draft_model_dir"),
        "tuner configuration": (gemm_config(xllm), "xllm.model_dir"),
    }
    for what, (path, key) in folders.items():
        if not os.access(path, os.R_OK):
            yield f"{what}: {path} can't be read ({key})"
    variables = env_file(xllm, role)
    if not (variables.is_file() and os.access(variables, os.R_OK)):
        yield f"environment file: {variables} can't be read (xllm.env_file)"
    licence = xllm.license or xllm.home / LICENSE_NAME
    if not _holds_something(licence):
        yield (
            f"licence: there is none in {licence}"
            " (xllm.license; under systemd /etc/ark/credentials/license.lic)"
        )


def _port_faults(settings: Settings, role: Role) -> Iterator[str]:
    ports = {"grpc_bind": settings.grpc_bind.port}
    if role == "decoder":
        ports |= {
            "xllm.driver_port": settings.xllm.driver_port,
            "xllm.kv_port": settings.xllm.kv_port,
        }
    for key, port in ports.items():
        try:
            bind_tcp("0.0.0.0", port).close()  # noqa: S104 (nobody is listened to; the engine takes every address)
        except OSError as error:
            yield f"port: {port} can't be listened on ({key}): {error.strerror}"


def _limit_faults(xllm: XllmSettings) -> Iterator[str]:
    pinned, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    needed = xllm.min_memlock_bytes
    if pinned != resource.RLIM_INFINITY and (needed is None or pinned < needed):
        text = "no limit" if needed is None else f"at least {needed}"
        yield f"memlock: the limit is {pinned} bytes; {text} is needed (LimitMEMLOCK=)"
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < xllm.min_open_files:
        needed = xllm.min_open_files
        yield f"nofile: the limit is {files}; at least {needed} is needed (LimitNOFILE=)"


def _memory_faults(xllm: XllmSettings) -> Iterator[str]:
    try:
        stat = os.statvfs(SHM)
    except OSError as error:
        yield f"{SHM}: it can't be used: {error.strerror}"
        return
    size = stat.f_frsize * stat.f_blocks
    if size < xllm.min_shm_bytes:
        needed = f"{xllm.min_shm_bytes / _GIB:g} GiB"
        yield f"{SHM}: {size / _GIB:.1f} GiB; {needed} is needed (xllm.min_shm_bytes)"


def _holds_something(path: Path) -> bool:
    try:
        return path.read_bytes().strip() not in _NO_LICENSE
    except OSError:
        return False


def _same(left: Path, right: Path) -> bool:
    try:
        return left.samefile(right)
    except OSError:
        return False
