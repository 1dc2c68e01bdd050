"""Hosts, ports, AE titles and paths in the administrator's file: each function says what is wrong with one, or None."""

import ipaddress
import re
from typing import Any

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 6.2: no backslash, no control characters
_HOST = re.compile(r"[0-9A-Za-z.:/_-]{1,255}|\*")


def host_problem(value: str) -> str | None:
    """An address, a network or a host name."""
    problem = "an address, a network such as 10.1.2.0/24 or a host name is needed"
    if not _HOST.fullmatch(value):
        return problem
    if "/" in value or ":" in value or re.fullmatch(r"[0-9.]+", value):  # meant as an address: must be one
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            return problem
    return None


def single_host_problem(value: str) -> str | None:
    """One address or a host name."""
    return "one address or a host name is needed" if "/" in value or value == "*" else host_problem(value)


def port_problem(value: Any) -> str | None:
    """A TCP port."""
    is_port = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
    return None if is_port else "a port from 1 to 65535 is needed"


def ae_title_problem(value: str) -> str | None:
    """An AE title."""
    return None if _AE_TITLE.fullmatch(value) and value.strip() else "1 to 16 characters without backslash are needed"


def path_problem(value: str) -> str | None:
    """The full path of a file or folder."""
    return None if value.startswith("/") else "the full path is needed"


def count_problem(value: Any) -> str | None:
    """How many of something."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return None if is_count else "a whole number above 0 is needed"
