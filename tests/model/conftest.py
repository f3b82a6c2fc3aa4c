import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants  # noqa: F401  # what is patched by its dotted name must be loaded
import huggingface_hub.file_download  # noqa: F401
import pytest

_REQUEST = re.compile(
    r"/api/models/(?P<of>[^/]+/[^/]+)(/(?P<what>revision|tree|refs)(/(?P<which>[^/]+))?)?"
    r"|/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"
)


class StandInHub:
    """A local server that responds to huggingface_hub like the Hugging Face hub.

    Attributes:
        url: The address of the server.
        requests: The requests received, such as `GET /owner/model/resolve/main/config.json`.
        tokens: The tokens received with requests.
        failures: For a part of a request, the status and the headers of the response.
        damaged: The names of files that are sent with a changed byte.
    """

    def __init__(self):
        self.requests, self.tokens, self.failures, self.damaged = [], set(), {}, set()
        self._models = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
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
        """Return a commit and its directory, or the hub's error code."""
        if repository not in self._models:
            return "RepoNotFound"
        return self._models[repository].get(revision or "main", "RevisionNotFound")

    def refs(self, repository):
        """Describe the branches and pull requests of a repository, as the hub does."""
        refs = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for name, (commit, _) in self._models[repository].items():
            if name != commit:
                kind = "pullRequests" if name.startswith("refs/pr/") else "branches"
                refs[kind].append({"name": name, "ref": name, "targetCommit": commit})
        return refs

    def fetched(self):
        """List the files that were sent, by their names in the repository."""
        return [
            line.split("/resolve/")[1].partition("/")[2]
            for line in self.requests
            if line.startswith("GET /")
            if "/resolve/" in line
        ]

    def stop(self):
        """Stop responding."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802  # http.server's names
        self._respond()

    def do_HEAD(self):  # noqa: N802
        self._respond()

    def log_message(self, *arguments):
        pass

    def _respond(self):
        hub, path = self.server.hub, urlsplit(self.path).path
        hub.requests.append(f"{self.command} {path}")
        hub.tokens.add(self.headers.get("Authorization"))
        for part, (status, headers) in hub.failures.items():
            if part in hub.requests[-1]:
                return self._send(b"", status, headers)
        request = _REQUEST.fullmatch(path)
        if request is None:
            return self._send(b"", 404)
        commit_and_directory = hub.find(
            request["of"] or request["repository"], unquote(request["which"] or request["revision"] or "main")
        )
        if isinstance(commit_and_directory, str):
            return self._send(b"", 404, {"X-Error-Code": commit_and_directory})
        commit, directory = commit_and_directory
        if request["file"] is not None:
            return self._send_file(directory / unquote(request["file"]), commit)
        files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        names = [path.relative_to(directory).as_posix() for path in files]
        content = {"id": request["of"], "sha": commit, "siblings": [{"rfilename": name} for name in names]}
        if request["what"] == "refs":
            content = hub.refs(request["of"])
        if request["what"] == "tree":
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
        # The hub sends this warning to requests without a token, and huggingface_hub would print it.
        headers = {"X-HF-Warning": "unauthenticated; Please set a HF_TOKEN.", **dict(headers)}
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _etag(path):
    """Hash a file as the hub does: a large one with SHA-256, a small one as git does."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def close_session():
    """Close the connections of huggingface_hub; versions before 1.0 name this otherwise."""
    is_current = hasattr(huggingface_hub, "close_session")
    (huggingface_hub.close_session if is_current else huggingface_hub.utils.reset_sessions)()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the Hugging Face hub that huggingface_hub uses, with an empty cache."""
    hub = StandInHub()
    constants = huggingface_hub.constants
    # They are read from the environment once, when huggingface_hub is imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    url = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    if hasattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # in versions before 1.0
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf_home" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf_home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    close_session()
    yield hub
    close_session()
    hub.stop()
