"""Fixtures of the system tests: one phantom, one running node per module, a stand-in PACS."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Pacs, RunningNode

from dicom_node.dimse.standin import StandInPacs
from models.phantoms import PHANTOMS


@pytest.fixture(scope="session")
def phantom_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One ct_lesion case folder."""
    return PHANTOMS["ct_lesion"](3, tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """A PACS that records."""
    stand_in = StandInPacs(tmp_path_factory.mktemp("pacs"), ae_title="PACS")
    with stand_in.running() as port:
        yield Pacs(stand_in, port)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[RunningNode]:
    """A node with embedded servers and its rules in force."""
    node = RunningNode(tmp_path_factory.mktemp("node"), pacs).start()
    node.import_rules()
    yield node
    node.stop()


@pytest.fixture(scope="session")
def required_tool() -> Callable[[str], str]:
    """Path of a program; without it the test skips on a laptop and fails in CI."""

    def find(name: str) -> str:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/lib/rabbitmq/bin")
        if found is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{name} must be installed in CI")
            pytest.skip(f"{name} is not installed")
        return found

    return find
