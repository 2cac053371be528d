"""A hub of our own for tests: as much of the Hugging Face hub's protocol as fetching and sending models needs, on a local port.

Large files (*.safetensors) travel as Git LFS objects, by their SHA-256; all others lie in the commits, by git's hash. ``damaged`` files are
delivered with one byte changed, ``broken`` ones stop half way, and ``down`` answers everything with status 503.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_made"


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Hub:
    """What the server knows; ``repositories`` holds the files of every model by commit, oldest first."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.objects: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.broken: set[str] = set()
        self.down = False
        self.private: set[str] = set()
        self.requests: list[str] = []

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Add a commit whose files are these; returns its id."""
        commits = self.repositories.setdefault(name, {})
        whole = json.dumps([len(commits), name, {path: git_hash(content) for path, content in sorted(files.items())}])
        sha = hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest()
        commits[sha] = files
        return sha

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(name, {})
        sha = list(commits)[-1] if revision == "main" and commits else revision
        return (sha, commits[sha]) if sha in commits else None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (names of http.server)

    def _answer(self) -> None:
        body, path = self._body(), unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.down:
            return self._send(503, b"down")
        if path == "/api/repos/create":
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self._json({"error": "unauthorized"}, 401)
            name = "/".join(part for part in (json.loads(body).get("organization"), json.loads(body)["name"]) if part)
            self.hub.repositories.setdefault(name, {})
            return self._json({"url": f"http://{self.headers['host']}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.startswith("/objects/"):
            self.hub.objects[path.rpartition("/")[2]] = body
            return self._send(200, b"")
        if ".git/info/lfs/objects/batch" in path:
            return self._lfs(json.loads(body))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._model("/".join(parts[2:4]), parts[4:], body)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._json({"error": "not found"}, 404)

    def _model(self, name: str, rest: list[str], body: bytes) -> None:
        verb, revision = rest[0] if rest else "revision", rest[1] if len(rest) > 1 else "main"
        if verb == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        if verb == "commit":
            return self._commit(name, [json.loads(line) for line in body.splitlines() if line.strip()])
        if name not in self.hub.repositories or (name in self.hub.private and TOKEN not in (self.headers.get("authorization") or "")):
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        found = self.hub.files(name, revision)
        if found is None:
            return self._json({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
        sha, files = found
        if verb == "tree":
            return self._json(
                [{"type": "file", "path": path, "size": len(content), **self._hashes(path, content)} for path, content in files.items()]
            )
        siblings = []
        for path, content in files.items():
            hashes = self._hashes(path, content)
            blob = {"blobId": hashes["oid"], "size": len(content)}
            if "lfs" in hashes:
                blob["lfs"] = {"sha256": hashes["lfs"]["oid"], "size": len(content), "pointerSize": 130}
            siblings.append({"rfilename": path, **blob})
        return self._json({"id": name, "modelId": name, "sha": sha, "private": False, "siblings": siblings, "tags": [], "downloads": 0})

    def _hashes(self, path: str, content: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {"oid": git_hash(content)}
        if path.endswith(".safetensors"):
            found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return found

    def _file(self, name: str, revision: str, path: str) -> None:
        found = self.hub.files(name, revision)
        if found is None or path not in found[1]:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = found[1][path]
        hashes = self._hashes(path, content)
        etag = hashes["lfs"]["oid"] if "lfs" in hashes else hashes["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found[0], "X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{etag}"'}
        if path in self.hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        self._send(200, content, headers, half=path in self.hub.broken)

    def _lfs(self, asked: dict[str, Any]) -> None:
        objects = []
        for entry in asked["objects"]:
            there = entry["oid"] in self.hub.objects
            upload = {"upload": {"href": f"http://{self.headers['host']}/objects/{entry['oid']}"}}
            objects.append({**entry, **({} if there else {"actions": upload})})
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        found = self.hub.files(name, "main")
        files = dict(found[1]) if found else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        sha = self.hub.commit(name, files)
        self._json({"commitUrl": f"http://{self.headers['host']}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None, half: bool = False) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
            self.close_connection = half


@contextmanager
def serve() -> Iterator[tuple[Hub, str]]:
    """A running hub and its address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
