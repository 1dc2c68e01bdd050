"""The embedded Valkey against kill -9 and damaged files."""

import os
import signal
import socket

import pytest

from dicom_node.embedded.broker import EmbeddedBroker


@pytest.fixture
def broker(server_dir):
    server = EmbeddedBroker(server_dir)
    server.start()
    yield server
    server.stop()


def ask(broker: EmbeddedBroker, *commands: str) -> bytes:
    """Send inline commands and return what the last answered."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(broker.socket_path))
        answer = b""
        for command in commands:
            client.sendall(command.encode() + b"\r\n")
            answer = client.recv(4096)
    return answer


def test_entries_survive_kill_9_again_and_again(broker, eventually):
    for round_number in range(1, 4):
        ask(broker, *(f"LPUSH q {n}" for n in range(100)))
        os.kill(broker.pid, signal.SIGKILL)
        eventually(lambda: not broker.is_running(), "killed")
        broker.start()
        assert ask(broker, "LLEN q") == f":{100 * round_number}\r\n".encode()


def test_a_running_one_is_adopted_and_stopped(broker, server_dir):
    other = EmbeddedBroker(server_dir)
    other.start()
    assert other.pid == broker.pid
    other.stop()
    assert not broker.is_running()
    broker.start()


def test_a_zombie_is_dead(broker, server_dir, eventually):
    os.kill(broker._child.pid, signal.SIGKILL)
    other = EmbeddedBroker(server_dir)
    eventually(lambda: not other.is_running(), "a zombie")
    other.start()
    assert ask(other, "PING") == b"+PONG\r\n"
    other.stop()


def test_one_that_was_started_but_not_noted_is_found(broker, server_dir):
    (server_dir / "broker" / "server.pid").unlink()  # killed between starting it and writing this
    other = EmbeddedBroker(server_dir)
    other.start()
    assert other.pid == broker.pid


def test_a_torn_last_entry_is_dropped(broker, server_dir):
    ask(broker, "LPUSH q whole")
    broker.stop()
    (file,) = (server_dir / "broker").glob("appendonlydir/*.incr.aof")
    with file.open("ab") as aof:
        aof.write(b"*3\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$100\r\nhal")
    broker.start()
    assert ask(broker, "LLEN q") == b":1\r\n"


def test_unreadable_files_are_put_aside(broker, server_dir):
    ask(broker, "LPUSH q one", "LPUSH q two")
    broker.stop()
    (file,) = (server_dir / "broker").glob("appendonlydir/*.incr.aof")
    file.write_bytes(b"nonsense" * 10 + file.read_bytes())
    broker.start()
    assert ask(broker, "LLEN q") == b":0\r\n"
    assert list(server_dir.glob("broker.unreadable-*/appendonlydir/*.incr.aof"))


def test_only_this_user_may_connect(broker):
    assert broker.socket_path.stat().st_mode & 0o777 == 0o600
    assert broker.url == f"redis+socket://{broker.socket_path}"
