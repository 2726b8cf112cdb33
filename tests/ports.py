"""Ports for servers that a test starts."""

import itertools
import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
UNPRIVILEGED = 1024
# Of so many ports hardly ever two calls get the same one.
ENOUGH = 1000


def free_ports(count: int) -> list[int]:
    """They stay free until a server comes to them, also seconds later or once more: none of those that Linux hands out
    by itself, so that only another call of this could take one, whose dice fall otherwise."""
    places = _places()
    found = list(itertools.islice(filter(_is_free, random.SystemRandom().sample(places, len(places))), count))
    assert len(found) == count, f"of the ports {places} none is free"
    return found


def _places() -> range:
    """Above the range that Linux hands out where too few are below it; anywhere where it hands out nearly all."""
    first, last = map(int, RANGE.read_text().split()) if RANGE.exists() else (32768, 60999)
    below, above = range(max(UNPRIVILEGED, first // 3), first), range(last + 1, 65536)
    return next((ports for ports in (below, above) if len(ports) >= ENOUGH), range(UNPRIVILEGED, 65536))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
