"""Fixtures of the system tests: one phantom, one running node per module, a stand-in PACS."""

from collections.abc import Iterator
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
