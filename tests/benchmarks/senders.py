"""Sending for the reception benchmark: one DCMTK `storescu` process per association."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def send(folders: Sequence[Path], port: int, called: str, nodelay: bool, within_s: float = 180.0) -> tuple[float, str]:
    """Send each folder over an association of its own, all at once -> (seconds until the last one ended, trouble).

    nodelay : whether the senders switch Nagle's algorithm off (DCMTK reads TCP_NODELAY from its environment).
    """
    environment = os.environ | {"TCP_NODELAY": "1" if nodelay else "0"}
    command = ["storescu", "-R", "-aet", "BENCH", "-aec", called, "+sd", "127.0.0.1", str(port)]
    started = time.perf_counter()
    senders = [
        subprocess.Popen(
            [*command, str(folder)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for folder in folders
    ]
    trouble = []
    try:
        for sender in senders:
            _, said = sender.communicate(timeout=max(0.1, within_s - (time.perf_counter() - started)))
            if sender.returncode:
                trouble.append(said.strip()[-300:])
    except subprocess.TimeoutExpired:
        trouble.append(f"not done within {within_s:.0f} s")
    finally:
        seconds = time.perf_counter() - started
        for sender in senders:
            if sender.poll() is None:
                sender.kill()
                sender.wait()
    return seconds, "; ".join(trouble)
