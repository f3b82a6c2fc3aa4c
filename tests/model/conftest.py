import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants  # noqa: F401  # what is patched by its dotted name must be loaded
import pytest

_QUESTION = re.compile(
    r"/api/models/(?P<of>[^/]+/[^/]+)(/(?P<what>revision|tree)/(?P<which>[^/]+))?"
    r"|/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"
)


class StandInHub:
    """What huggingface_hub asks of the Hugging Face hub, answered on this machine.

    Attributes:
        url: where it answers.
        requests: what it was asked, such as `GET /owner/model/resolve/main/config.json`.
        tokens: those that came with the requests.
        refusals: for a part of a request: the status and the headers of the answer.
        damaged: files that are sent with another byte than they have.
    """

    def __init__(self):
        self.requests, self.tokens, self.refusals, self.damaged = [], set(), {}, set()
        self._models = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
        self._server.hub = self
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, repository, directory, revision="main"):
        """Offer the files of a directory under the name of a branch or tag; return their commit."""
        commit = hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()
        self._models.setdefault(repository, {}).update({revision: (commit, directory), commit: (commit, directory)})
        return commit

    def find(self, repository, revision):
        """Return a commit and its directory, or the hub's word for why there is none."""
        if repository not in self._models:
            return "RepoNotFound"
        return self._models[repository].get(revision or "main", "RevisionNotFound")

    def fetched(self):
        """The files that were sent, by their names in the repository."""
        return [
            line.split("/resolve/")[1].partition("/")[2]
            for line in self.requests
            if line.startswith("GET /")
            if "/resolve/" in line
        ]

    def stop(self):
        """Let connections be refused from now on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802  # http.server's names
        self._answer()

    def do_HEAD(self):  # noqa: N802
        self._answer()

    def log_message(self, *arguments):
        pass

    def _answer(self):
        hub, path = self.server.hub, urlsplit(self.path).path
        hub.requests.append(f"{self.command} {path}")
        hub.tokens.add(self.headers.get("Authorization"))
        for part, (status, headers) in hub.refusals.items():
            if part in hub.requests[-1]:
                return self._send(b"", status, headers)
        question = _QUESTION.fullmatch(path)
        if question is None:
            return self._send(b"", 404)
        found = hub.find(
            question["of"] or question["repository"], unquote(question["which"] or question["revision"] or "main")
        )
        if isinstance(found, str):
            return self._send(b"", 404, {"X-Error-Code": found})
        commit, directory = found
        if question["file"] is not None:
            return self._send_file(directory / unquote(question["file"]), commit)
        files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        names = [path.relative_to(directory).as_posix() for path in files]
        content = {"id": question["of"], "sha": commit, "siblings": [{"rfilename": name} for name in names]}
        if question["what"] == "tree":
            content = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                for name, path in zip(names, files, strict=True)
            ]
        self._send(json.dumps(content).encode(), 200, {"Content-Type": "application/json"})

    def _send_file(self, path, commit):
        if not path.is_file():
            return self._send(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = path.read_bytes()
        if path.name in self.server.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(content, 200, {"X-Repo-Commit": commit, "ETag": f'"{_etag(path)}"'})

    def _send(self, content, status, headers=()):
        self.send_response(status)
        # The hub asks those without a token to get one; huggingface_hub would print it.
        headers = {"X-HF-Warning": "unauthenticated; Please set a HF_TOKEN.", **dict(headers)}
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _etag(path):
    """Hash a file as the hub does: large ones plainly, small ones as git does."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the Hugging Face hub, which huggingface_hub takes for the real one; its cache is empty."""
    hub = StandInHub()
    constants = huggingface_hub.constants
    # They are read from the environment once, when huggingface_hub is imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf_home" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf_home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    hub.stop()
