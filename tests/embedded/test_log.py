"""The log: one line per event, UTC, the component's name."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging, structlog, sys
from dicom_node import log
log.configure("receiver", sys.argv[1])
events = structlog.get_logger("x")
events.info("association opened", calling="CT 1", instances=3)
events.warning("evil\\nINFO: line")
logging.getLogger("celery").info("chatter")
logging.getLogger("pynetdicom").warning("(0010,0010) Doe^John")
import warnings
warnings.warn("a library warns")
try:
    1 / 0
except ZeroDivisionError:
    events.exception("failed")
"""


def lines(format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, format],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_text():
    first, second, third, *rest = lines("text")
    assert first[10] == "T"
    assert first.endswith("Z receiver: association opened (calling='CT 1', instances=3)")
    assert second.endswith("receiver WARNING: evil | INFO: line")
    assert "a library warns" in third
    assert any("ZeroDivisionError" in line for line in rest)
    assert not any("Doe" in line or "chatter" in line for line in [third, *rest])


def test_json():
    events = [json.loads(line) for line in lines("json")]
    assert events[0] | {"timestamp": ""} == {
        "event": "association opened",
        "calling": "CT 1",
        "instances": 3,
        "level": "info",
        "component": "receiver",
        "timestamp": "",
    }
    assert events[0]["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in events[-1]["exception"]
