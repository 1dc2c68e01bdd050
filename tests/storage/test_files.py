"""The file store: whole files or none."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_rows import at_once

from storage.files import FileStore, FolderStore, sha256_of

DATA = b"DICM" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_file_is_linked_under_its_digest(tmp_path):
    store: FileStore = FolderStore(tmp_path / "store")
    source = tmp_path / "in.part"
    source.write_bytes(DATA)
    relative = store.put_file(source, sha256_of(source))
    assert relative == f"{SHA256[:2]}/{SHA256[2:4]}/{SHA256}.dcm"
    assert store.exists(relative)
    assert store.path(relative).samefile(source)
    source.unlink()
    assert sha256_of(store.path(relative)) == SHA256
    assert files_in(tmp_path / "store") == [store.path(relative)]


def test_a_file_from_another_file_system_is_copied(tmp_path, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    store = FolderStore(tmp_path / "store")
    source = tmp_path / "in.part"
    source.write_bytes(DATA)
    relative = store.put_file(source, SHA256)
    assert not store.path(relative).samefile(source)
    assert store.path(relative).read_bytes() == DATA
    assert files_in(tmp_path / "store") == [store.path(relative)]


def test_the_same_bytes_again_change_nothing(tmp_path):
    store = FolderStore(tmp_path)
    relative = store.put_bytes(DATA, SHA256)
    inode = store.path(relative).stat().st_ino
    assert store.put_bytes(DATA, SHA256) == relative
    assert store.path(relative).stat().st_ino == inode


def test_eight_writers_of_the_same_bytes(tmp_path):
    paths = at_once(8, lambda _number: FolderStore(tmp_path).put_bytes(DATA, SHA256))
    assert len(set(paths)) == 1
    assert [path.read_bytes() for path in files_in(tmp_path)] == [DATA]


@given(st.binary(max_size=3000), st.sampled_from(["", ".dcm", ".json"]))
def test_bytes_come_back(tmp_path_factory, data, suffix):
    store = FolderStore(tmp_path_factory.getbasetemp() / "round-trip")
    relative = store.put_bytes(data, hashlib.sha256(data).hexdigest(), suffix)
    assert store.path(relative).read_bytes() == data


def test_killed_before_the_rename_leaves_no_half_file(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path; from storage.files import FolderStore\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"FolderStore(Path(sys.argv[1])).put_bytes({DATA[:8]!r} * 500, {SHA256!r})"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    store = FolderStore(tmp_path)
    relative = f"{SHA256[:2]}/{SHA256[2:4]}/{SHA256}.dcm"
    assert not store.exists(relative)
    assert [path.parent.name for path in files_in(tmp_path)] == [".aside"]
    assert store.sweep() == 0  # it might be somebody's who is still writing
    assert store.sweep(older_than_s=-1) == 1
    assert store.put_bytes(DATA, SHA256) == relative
    assert files_in(tmp_path) == [store.path(relative)]


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store = FolderStore(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.put_bytes(DATA, SHA256)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("relative", ["/etc/passwd", "../x", "ab/../../x", ""])
def test_no_way_out_of_the_store(tmp_path, relative):
    with pytest.raises(ValueError, match="below the root"):
        FolderStore(tmp_path).path(relative)


@pytest.mark.parametrize(("sha256", "suffix"), [("../" * 21 + "a", ".dcm"), (SHA256.upper(), ""), (SHA256, "/x")])
def test_names_are_checked(tmp_path, sha256, suffix):
    with pytest.raises(ValueError, match="must be"):
        FolderStore(tmp_path).put_bytes(b"", sha256, suffix)


def test_many_files_at_once(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    sources = []
    for number in range(20):
        path = tmp_path / f"{number}"
        path.write_bytes(b"content %d" % (number // 2))  # every content twice
        sources.append((path, sha256_of(path)))
    store.put_file(*sources[4])
    relatives = store.put_files(sources)
    assert len(set(relatives)) == 10
    for (path, digest), relative in zip(sources, relatives, strict=True):
        assert digest in relative
        assert store.path(relative).read_bytes() == path.read_bytes()
    assert store.put_files(sources) == relatives
    assert store.put_files([]) == []
    assert list((tmp_path / "store" / ".aside").iterdir()) == []
