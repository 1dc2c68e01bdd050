"""Fixtures of the encoding tests."""

import os
import shutil
from collections.abc import Callable

import pytest


@pytest.fixture
def need() -> Callable[[str], str]:
    """Path of an outside tool; without it the test skips on a laptop and fails in CI."""

    def find(tool: str) -> str:
        path = shutil.which(tool)
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"{tool} is missing, and CI must have it")
        if path is None:
            pytest.skip(f"{tool} is not installed")
        return path

    return find
