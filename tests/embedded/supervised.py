"""A small node for test_supervisor: python supervised.py DATA_DIR NAME=SHELL_COMMAND ..., with a real broker."""

import sys
from pathlib import Path

from dicom_node import log
from dicom_node.embedded.broker import EmbeddedBroker
from dicom_node.embedded.supervisor import Part, Supervisor, held_data_dir
from dicom_node.errors import NodeError


def main() -> int:
    data_dir = Path(sys.argv[1])
    log.configure("supervisor")
    parts = [
        Part(name, ("/bin/sh", "-c", command), stop_timeout_s=1.0)
        for name, command in (argument.split("=", 1) for argument in sys.argv[2:])
    ]
    try:
        with held_data_dir(data_dir):
            broker = EmbeddedBroker(data_dir)
            node = Supervisor([broker], parts, on_ready=lambda: print("ready:", node.pids(), broker.pid, flush=True))
            return node.run()
    except NodeError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
