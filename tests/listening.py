"""Where processes listen, read from /proc."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LISTEN = "0A"


def listening_addresses(pids: Iterable[int]) -> set[str]:
    """The IP addresses of the TCP sockets on which one of the processes listens."""
    inodes: set[str] = set()
    for pid in pids:
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    kind, _, inode = os.readlink(descriptor).partition(":")
                    inodes |= {inode.strip("[]")} if kind == "socket" else set()
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTEN and inode in inodes:
                found.add(_address(local.partition(":")[0]))
    return found


def _address(text: str) -> str:
    """`0100007F` is 127.0.0.1: words of 32 bits in the machine's order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words)))


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
