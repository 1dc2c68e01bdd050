"""The embedded PostgreSQL against kill -9, zombies, strangers and closed folders."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from dicom_node.embedded import EmbeddedServerError, accounts, places, postgres, processes
from dicom_node.embedded.postgres import EmbeddedPostgres
from dicom_node.errors import ConfigurationError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(module_server_dir):
    """A cluster of this module with 500 rows; tests may kill it and must leave a cluster that starts."""
    server = EmbeddedPostgres(module_server_dir)
    server.start()
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 500) AS i")
    yield module_server_dir
    EmbeddedPostgres(module_server_dir).stop()


def rows(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.url) as connection:
        found = connection.execute("SELECT count(*) FROM t").fetchone()
    assert found is not None
    return found[0]


def test_start_twice_stop_twice_start_again(cluster):
    server = EmbeddedPostgres(cluster)
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    assert not server.is_running()
    assert server.pid is None
    assert not places.run_dir(cluster).joinpath("pg").exists()
    server.start()
    assert rows(server) == 500


def test_killed_it_starts_again_with_its_rows(cluster, eventually):
    server = EmbeddedPostgres(cluster)
    server.start()
    for _ in range(3):
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.is_running(), "killed")
        server.start()
        assert rows(server) == 500


def test_a_zombie_on_the_pid_file_is_dead(cluster, eventually):
    EmbeddedPostgres(cluster).stop()
    first = EmbeddedPostgres(cluster)
    first.start()
    child = first._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)  # nobody polls `first`, so its child stays a zombie
    eventually(lambda: not processes.is_alive(child.pid), "a zombie")
    assert Path(f"/proc/{child.pid}").exists()
    second = EmbeddedPostgres(cluster)
    assert not second.is_running()
    second.start()
    assert rows(second) == 500
    assert second.pid != child.pid
    child.wait()


def test_a_pid_file_naming_a_stranger_does_not_hurt_the_stranger(cluster):
    server = EmbeddedPostgres(cluster)
    server.stop()
    (cluster / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster}/postgres\n")
    assert not server.is_running()
    server.start()
    assert rows(server) == 500


def test_the_server_of_a_process_that_died_is_adopted_and_stopped(cluster):
    EmbeddedPostgres(cluster).stop()
    program = (
        "import os, sys; from pathlib import Path; from dicom_node.embedded.postgres import EmbeddedPostgres\n"
        "s = EmbeddedPostgres(Path(sys.argv[1])); s.start(); print(s.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(cluster)], cwd=ROOT, stdout=subprocess.PIPE, check=False, text=True
    )
    assert done.returncode == -signal.SIGKILL
    server = EmbeddedPostgres(cluster)
    server.start()
    assert server.pid == int(done.stdout)
    assert rows(server) == 500
    server.stop()
    assert not processes.is_alive(int(done.stdout))


def test_a_running_server_without_its_socket_is_replaced(cluster, monkeypatch):
    server = EmbeddedPostgres(cluster)
    server.start()
    pid = server.pid
    (server.socket_dir / ".s.PGSQL.5432").unlink()
    monkeypatch.setattr(postgres, "_SILENT_S", 0.2)
    server.start()
    assert server.pid != pid
    assert rows(server) == 500


def test_two_processes_that_start_it_get_one_server(cluster):
    EmbeddedPostgres(cluster).stop()
    program = (
        "import sys; from pathlib import Path; from dicom_node.embedded.postgres import EmbeddedPostgres\n"
        "s = EmbeddedPostgres(Path(sys.argv[1])); s.start(); print(s.pid)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(cluster)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    pids = {child.communicate(timeout=60)[0] for child in both}
    assert len(pids) == 1
    assert EmbeddedPostgres(cluster).pid == int(pids.pop())


def test_data_of_another_major_version_is_named(server_dir):
    (server_dir / "postgres").mkdir()
    (server_dir / "postgres" / "PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedServerError, match=r"made by PostgreSQL 13.*DICOM_NODE_POSTGRES_BIN.*pg_dumpall"):
        EmbeddedPostgres(server_dir).start()


def test_a_start_that_fails_shows_the_log(cluster):
    server = EmbeddedPostgres(cluster)
    server.stop()
    settings = cluster / "postgres" / "postgresql.conf"
    before = settings.read_text()
    try:
        settings.write_text(before + "\nno_such_setting = 1\n")
        with pytest.raises(EmbeddedServerError, match="no_such_setting"):
            server.start(timeout_s=1)
    finally:
        settings.write_text(before)
    server.start()


def test_a_killed_initdb_leaves_nothing_that_counts(server_dir):
    (server_dir / "postgres.new").mkdir()
    (server_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    (server_dir / "postgres").mkdir()
    server = EmbeddedPostgres(server_dir)
    server.start()
    try:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    finally:
        server.stop()


@as_root
def test_below_a_closed_folder_it_keeps_one_capability(cluster):
    assert cluster.stat().st_mode & 0o777 == 0o700
    server = EmbeddedPostgres(cluster)
    server.start()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split()[0] == str(pwd.getpwnam("nobody").pw_uid)
    assert int(status["CapEff"], 16) in {1 << 1, 1 << 2}
    assert status["Groups"].strip() == ""


@as_root
def test_binaries_below_a_closed_folder_are_found(server_dir):
    """As in a virtual environment below /root: initdb asks access(2), which ignores capabilities by default."""
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    package = places.postgres_bins(None)[0].parents[1]
    for folder in (package, package.with_suffix(".libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    server = EmbeddedPostgres(server_dir / "data", closed / package.name / "pginstall" / "bin")
    server.start()
    try:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


@as_root
def test_in_an_open_folder_it_keeps_none(tmp_path):
    nobody = accounts.server_account(tmp_path / "none")
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o700)
    assert accounts.closed_folder([closed / "data"], nobody) is not None
    assert accounts.closed_folder([Path("/usr/bin")], nobody) is None
    assert accounts.becoming(accounts.own_account(), [closed]) is None


@as_root
def test_a_closed_folder_without_capability_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "_opening_capability", lambda: None)
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    nobody = accounts.server_account(tmp_path / "none")
    with pytest.raises(EmbeddedServerError, match="may not enter"):
        accounts.becoming(nobody, [folder / "data"])


@as_root
def test_others_cannot_connect(cluster):
    server = EmbeddedPostgres(cluster)
    server.start()
    path = str(server.socket_dir / ".s.PGSQL.5432")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(1)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
        except PermissionError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_folder_of_somebody_else_in_tmp_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_SOCKET_ROOT", tmp_path)
    folder = places.run_dir(tmp_path / "data")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(EmbeddedServerError, match="must be a folder of this user"):
        places.run_dir(tmp_path / "data")


def test_the_socket_path_is_short_however_long_the_data_dir(tmp_path):
    path = EmbeddedPostgres(tmp_path / ("x" * 200)).socket_dir / ".s.PGSQL.5432.lock"
    assert len(str(path)) < 100
    places.tidy_run_dir(tmp_path / ("x" * 200))


def test_binaries_setting_is_checked(tmp_path):
    with pytest.raises(ConfigurationError, match="DICOM_NODE_POSTGRES_BIN"):
        places.postgres_bins(tmp_path)
    with pytest.raises(ConfigurationError, match="DICOM_NODE_VALKEY_BIN"):
        places.valkey_bin(tmp_path)
