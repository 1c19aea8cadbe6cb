"""The download from a local server that can fail like real servers."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labrnn.errors import LabError
from labrnn.reviews import download as module
from labrnn.reviews.download import ARCHIVE, download

CONTENT = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    """Answer each request with the next of `answers`; repeat the last one."""

    answers: list
    requests = 0

    def answer(self):
        self.requests += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = self.server.answer()
        if isinstance(answer, int):
            self.send_error(answer)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("LABRNN_DOWNLOAD_URL", f"http://127.0.0.1:{server.server_port}/a.tar.gz")
        monkeypatch.setattr(module, "SHA256", hashlib.sha256(CONTENT).hexdigest())
        yield server
        server.shutdown()
        thread.join()


def assert_refused(folder, says: str) -> None:
    """Assert that the download fails with an actionable message and leaves nothing behind."""
    with pytest.raises(LabError) as caught:
        download(folder)
    message = str(caught.value)
    assert says in message
    assert f"get {ARCHIVE} elsewhere and put it into {folder}" in message
    assert "\n" not in message
    assert not list(folder.glob("*"))


def test_archive_is_downloaded_once(server, tmp_path, capsys):
    server.answers = [CONTENT]
    path = download(tmp_path / "new")
    assert path == tmp_path / "new" / ARCHIVE
    assert path.read_bytes() == CONTENT
    assert "100%" in capsys.readouterr().err
    assert download(tmp_path / "new") == path
    assert server.requests == 1


def test_existing_archive_is_used(server, tmp_path):
    server.answers = [404]
    (tmp_path / ARCHIVE).write_bytes(CONTENT)
    assert download(tmp_path).read_bytes() == CONTENT
    assert server.requests == 0


def test_a_damaged_copy_is_replaced(server, tmp_path):
    server.answers = [CONTENT]
    (tmp_path / ARCHIVE).write_bytes(CONTENT[:-1])
    assert download(tmp_path).read_bytes() == CONTENT


def test_interrupted_download_is_retried(server, tmp_path):
    server.answers = [CONTENT[:100_000], CONTENT]
    assert download(tmp_path).read_bytes() == CONTENT
    assert server.requests == 2
    assert [file.name for file in tmp_path.iterdir()] == [ARCHIVE]


def test_repeated_interruption_is_reported(server, tmp_path):
    server.answers = [CONTENT[:100_000]]
    assert_refused(tmp_path, "no connection")
    server.answers = [CONTENT]
    assert download(tmp_path).read_bytes() == CONTENT


def test_wrong_checksum_is_refused(server, tmp_path):
    server.answers = [CONTENT[::-1]]
    assert_refused(tmp_path, "another checksum")


def test_not_found(server, tmp_path):
    server.answers = [404]
    assert_refused(tmp_path, "the server answered 404")


def test_no_network(server, tmp_path):
    server.answers = [CONTENT]
    server.socket.close()
    assert_refused(tmp_path, "no connection: ConnectionError")


def test_invalid_url_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LABRNN_DOWNLOAD_URL", "file:///etc/passwd")
    assert_refused(tmp_path, "InvalidSchema")


def test_uncreatable_folder_is_reported(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LabError, match=ARCHIVE):
        download(tmp_path / "file")
