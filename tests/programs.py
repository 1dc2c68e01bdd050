"""Programs of other packages that tests call."""

import os
import shutil
import sysconfig

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
        reason = f"{program} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
