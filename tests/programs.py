"""Programs of other packages that tests call."""

import os
import shutil
import sysconfig
from typing import NoReturn

import pytest

#: Where Debian puts servers that an ordinary user's PATH leaves out.
_MORE_FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/lib/rabbitmq/bin", "/usr/lib/postgresql/15/bin")


def need(program: str) -> str:
    """Path of a program; a test without it skips on a laptop and fails where nothing may be missing.

    The environment's own scripts are left out: pynetdicom installs a `storescu` and an `echoscu` there, which are not
    DCMTK's.
    """
    scripts = os.path.realpath(sysconfig.get_path("scripts"))
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if os.path.realpath(folder) != scripts]
    found = shutil.which(program, path=os.pathsep.join([*folders, *_MORE_FOLDERS]))
    if found is None:
        _missing(program)
    return found


def need_file(path: str, package: str) -> str:
    """The path, if it is there; else as `need`. package : Debian's, that brings it."""
    if not os.path.exists(path):
        _missing(package)
    return path


def _missing(what: str) -> NoReturn:
    reason = f"{what} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
