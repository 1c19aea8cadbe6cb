"""File writing: what reaches the disk, in which order, and what a failure leaves."""

import errno
import os
import stat

import pytest
from disk import Recording

from labrnn import files
from labrnn.files import (
    make_folder,
    publish,
    publish_folder,
    read_file,
    replace_file,
    sync_folder,
    write_file,
)

ASIDE = f"a.json.{os.getpid()}.writing"


def log(root, work):
    """Return the operations of some work under an empty folder: `create`, `write`, `sync`, ..."""
    return Recording(root, lambda note: work()).log


@pytest.fixture
def no_leak():
    """Assert that a test closes every file descriptor that it opens."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes a function of `os` fail with an error number."""

    def fail(name, code):
        def call(*args):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, name, call)

    return fail


# Reading


def test_file_is_read_completely_in_parts(tmp_path, monkeypatch, no_leak):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)))
    real, sizes = os.read, []
    monkeypatch.setattr(os, "read", lambda fd, n: sizes.append(n) or real(fd, min(n, 100)))
    assert read_file(path) == bytes(range(256))
    assert sizes == [256, 156, 56]


def test_file_truncated_during_reading_is_read_to_its_end(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, n: real(fd, n) if n == 3 else b"")
    os.truncate(path, 2)
    monkeypatch.setattr(
        os, "fstat", lambda fd: os.stat_result([stat.S_IFREG, *[0] * 5, 3, 0, 0, 0])
    )
    assert read_file(path) == b"ab"


def test_size_limit_is_inclusive(tmp_path, no_leak):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    assert len(read_file(path, 1000)) == 1000
    path.write_bytes(b"x" * 1001)
    with pytest.raises(OSError, match=r"it is larger than 1,000 bytes: '.*/a'$") as caught:
        read_file(path, 1000)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))


def test_default_size_limit_is_64_mebibytes(tmp_path):
    path = tmp_path / "a"
    path.touch()
    os.truncate(path, 1 << 26)
    assert len(read_file(path)) == 1 << 26
    os.truncate(path, (1 << 26) + 1)
    with pytest.raises(OSError, match="larger than 67,108,864 bytes"):
        read_file(path)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_non_regular_file_is_not_opened(tmp_path, monkeypatch, make):
    make(tmp_path / "a")
    monkeypatch.setattr(os, "open", None)
    with pytest.raises(OSError, match=r"it is not a regular file: '.*/a'$") as caught:
        read_file(tmp_path / "a")
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tmp_path / "a"))


def test_pipe_that_replaces_a_file_does_not_block(tmp_path, monkeypatch, no_leak):
    """The pipe appears between `stat` and `open`."""
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "a")
    before, real = os.stat(tmp_path / "file"), os.open
    monkeypatch.setattr(os, "stat", lambda path: before)

    def opened(path, flags):
        assert flags & os.O_NONBLOCK
        return real(path, flags)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(OSError, match=r"it is not a regular file: '.*/a'$"):
        read_file(tmp_path / "a")


# Writing


def test_written_file_is_synced_and_has_no_old_content(tmp_path, no_leak):
    path = tmp_path / "a"
    path.write_bytes(b"longer than what comes")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    (tmp_path / "run").mkdir()
    assert log(tmp_path / "run", lambda: write_file(tmp_path / "run" / "b", b"12345")) == [
        ("create", 0, "b", 1),
        ("write", 1, b"12345"),
        ("sync", 1),
    ]


def test_partial_writes_are_completed(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, part: real(fd, part[:2]))
    write_file(tmp_path / "a", b"12345")
    assert (tmp_path / "a").read_bytes() == b"12345"


def test_file_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_file(tmp_path / "a", b"")
        os.umask(0)
        write_file(tmp_path / "b", b"")
    finally:
        os.umask(old)
    assert [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in "ab"] == [0o640, 0o666]


def test_a_failed_write_leaves_no_descriptor_open(tmp_path, failing, no_leak):
    failing("fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_file(tmp_path / "a", b"x")


def test_file_is_replaced_atomically_after_sync(tmp_path):
    assert log(tmp_path, lambda: replace_file(tmp_path / "a.json", b"new")) == [
        ("create", 0, ASIDE, 1),
        ("write", 1, b"new"),
        ("sync", 1),
        ("rename", 0, ASIDE, 0, "a.json", 1),
        ("sync", 0),
    ]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"new"}
    replace_file(str(tmp_path / "a.json"), b"newer")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"newer"}


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
def test_failed_replacement_keeps_only_the_old_file(tmp_path, failing, name):
    (tmp_path / "a.json").write_bytes(b"old")
    failing(name, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "a.json", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"old"}


# Folders


def test_make_folder_creates_and_syncs_missing_parents(tmp_path):
    assert log(tmp_path, lambda: make_folder(tmp_path / "a" / "b")) == [
        ("mkdir", 0, "a", 1),
        ("sync", 0),
        ("mkdir", 1, "b", 2),
        ("sync", 1),
    ]
    (tmp_path / "c").mkdir()
    assert log(tmp_path / "c", lambda: make_folder(str(tmp_path / "c" / "d")))[-1] == ("sync", 0)


def test_make_folder_syncs_an_existing_folder(tmp_path):
    make_folder(tmp_path / "a")
    recorded = Recording(tmp_path, lambda note: make_folder(tmp_path / "a"))
    assert recorded.log == [("sync", 0)]


@pytest.mark.parametrize("below", ["", "b"])
def test_a_file_where_a_folder_should_be_is_an_error(tmp_path, below):
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError, match=r"not a folder: '.*/a'$") as caught:
        make_folder(tmp_path / "a" / below)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTDIR, str(tmp_path / "a"))


def test_a_folder_is_published_with_all_its_files(tmp_path):
    aside, place = tmp_path / "aside", tmp_path / "place"

    def work():
        os.mkdir(aside)
        publish_folder({"b": b"1", "a": b"2"}, aside, place)

    assert log(tmp_path, work) == [
        ("mkdir", 0, "aside", 1),
        *[("create", 1, "b", 2), ("write", 2, b"1"), ("sync", 2)],
        *[("create", 1, "a", 3), ("write", 3, b"2"), ("sync", 3)],
        ("sync", 1),
        ("rename", 0, "aside", 0, "place", 1),
        ("sync", 0),
    ]
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {"b": b"1", "a": b"2"}


def test_publish_accepts_strings_as_paths(tmp_path):
    (tmp_path / "a").touch()
    publish(str(tmp_path / "a"), str(tmp_path / "b"))
    assert os.listdir(tmp_path) == ["b"]


def test_sync_skips_a_folder_that_cannot_be_opened(tmp_path, failing, no_leak):
    failing("open", errno.EACCES)
    sync_folder(tmp_path)


def test_sync_of_a_missing_folder_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "a")


def test_sync_ignores_file_systems_without_folder_sync(tmp_path, failing, no_leak):
    failing("fsync", errno.EINVAL)
    sync_folder(tmp_path)


def test_failed_folder_sync_raises(tmp_path, failing, no_leak):
    failing("fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_folder_sync_is_skipped_on_windows(tmp_path, monkeypatch):
    folder = str(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "name", "nt")
        patch.setattr(os, "open", None)
        sync_folder(folder)
