"""Ports for servers that a test starts."""

import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """They stay free until a server comes to them, also seconds later or once more: below those that Linux hands out by
    itself, so that only another call of this could take one, whose dice fall otherwise."""
    handed_out = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32768
    found: list[int] = []
    dice = random.SystemRandom()
    while len(found) < count:
        port = dice.randrange(handed_out // 3, handed_out)
        if port not in found and _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
