"""Under which account PostgreSQL runs: it refuses to be root.

As root the server becomes `nobody`. If a folder on the way to its data or its binaries is closed to others (a checkout
below a 0700 home), it keeps one capability that opens closed folders, as an ambient capability (capabilities(7)), and
nothing else of root. access(2), with which initdb looks for its binaries, heeds capabilities of other users than root
only under the securebit NO_SETUID_FIXUP. Copying the data or the binaries elsewhere would be the alternative, with two
truths to keep.
"""

import ctypes
import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.embedded import EmbeddedServerError

# linux/capability.h and linux/prctl.h
_CAP_DAC_OVERRIDE = 1  # kept by container engines by default
_CAP_DAC_READ_SEARCH = 2  # the smaller one
_CAP_SETPCAP = 8  # to set securebits
_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Account:
    """An account of the operating system."""

    name: str
    uid: int
    gid: int


def own_account() -> Account:
    """The account of this process. Raises EmbeddedServerError when it has no entry in passwd, which initdb needs."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedServerError(
            f"user id {os.geteuid()} has no entry in /etc/passwd, which PostgreSQL needs. "
            "Run as a user that has one, or set DATABASE_URL."
        ) from None
    return Account(entry.pw_name, entry.pw_uid, os.getegid())


def server_account(existing: Path) -> Account:
    """The account for the server: this process's own; as root the owner of the existing data, else `nobody`."""
    if os.geteuid() != 0:
        return own_account()
    if existing.is_dir() and (owner := existing.stat().st_uid) != 0:
        try:
            entry = pwd.getpwuid(owner)
        except KeyError:
            raise EmbeddedServerError(
                f"{existing} belongs to user id {owner}, which has no entry in /etc/passwd. "
                "Give the folder to `nobody` (chown -R), or set DATABASE_URL."
            ) from None
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root and there is no account `nobody`. Run as another user, "
            "or set DATABASE_URL."
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def closed_folder(paths: Sequence[Path], account: Account) -> Path | None:
    """The first folder on the way to one of these paths that the account may not enter; None: the way is open."""
    for path in paths:
        absolute = path.resolve()
        for folder in [*reversed(absolute.parents), absolute]:
            if not folder.is_dir():
                continue
            status = folder.stat()
            needed = 0o001
            if status.st_uid == account.uid:
                needed = 0o100
            elif status.st_gid == account.gid:
                needed = 0o010
            if not status.st_mode & needed:
                return folder
    return None


def becoming(account: Account, paths: Sequence[Path]) -> Callable[[], None] | None:
    """What a child process must do before exec to run as this account and reach these paths; None: nothing.

    Raises EmbeddedServerError when the way is closed and this process has no capability to open it.
    """
    if account.uid == os.geteuid():
        return None
    closed = closed_folder(paths, account)
    capability = _opening_capability() if closed is not None else None
    if closed is not None and capability is None:
        raise EmbeddedServerError(
            f"PostgreSQL runs as `{account.name}`, who may not enter {closed}. Allow it (chmod o+x {closed}), use "
            "another --data-dir, run as another user than root, or set DATABASE_URL."
        )
    libc = ctypes.CDLL(None, use_errno=True) if capability is not None else None

    def become() -> None:
        # Runs between fork and exec: only system calls, everything else is prepared above.
        if libc is None or capability is None:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            return
        mask = 1 << capability
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; upper 32: none
        failed = libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
        failed = failed or libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
        failed = failed or libc.capset(header, data)
        failed = failed or libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
        if failed:
            raise OSError(ctypes.get_errno(), "cannot keep the capability to enter closed folders")

    return become


def _opening_capability() -> int | None:
    """The smallest capability of this process with which a folder closed to others can be entered."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    usable = int(fields.get("CapPrm", "0"), 16) & int(fields.get("CapBnd", "0"), 16)
    if not usable & 1 << _CAP_SETPCAP:
        return None
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        if usable & 1 << capability:
            return capability
    return None
