"""Stand-ins for Kaggle and Hugging Face on this machine: servers that answer the official clients as the sites' API do.

They know what publishing needs and no more, and were written from what the clients send and read, not from the sites
themselves.
"""

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from abc import ABC, abstractmethod
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JSON = "application/json"


class StandIn(ABC):
    """A server; `calls` tells what was asked of it, `received` how many bytes of files it was sent."""

    def __init__(self):
        self.calls = []
        self.received = 0
        self.fail = {}
        """Status to answer with, by a part of the path."""
        self.url = ""

    @abstractmethod
    def answer(self, method, path, body, headers):
        """Return status, body and headers of the answer to a request."""

    @contextmanager
    def running(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self._read()
        path = urllib.parse.unquote(self.path.split("?")[0])
        self.hub.calls.append(f"{self.command} {path}")
        status = next((status for part, status in self.hub.fail.items() if part in path), None)
        if status is not None:
            answer = (status, {"error": "the stand-in says no"}, {})
        else:
            answer = self.hub.answer(self.command, path, body, self.headers)
        self._send(*answer)

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def _read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status, content, headers):
        kind = "application/octet-stream" if isinstance(content, bytes) else JSON
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""


class Kaggle(StandIn):
    """Models and their variations, each a list of versions: what was asked for, and `files` by path."""

    def __init__(self):
        super().__init__()
        self.models = {}
        self.variations = {}
        self._blobs = {}
        self._names = {}

    def answer(self, method, path, body, headers):
        if method == "PUT":
            self.received += len(body)
            self._blobs[path.rsplit("/", 1)[1]] = body
            return 200, {}, {}
        said = json.loads(body)
        return getattr(self, "_" + path.rsplit("/", 1)[1])(said)

    def _StartBlobUpload(self, said):  # noqa: N802 (the API's own names, here and below)
        token = f"token-{len(self._names)}"
        self._names[token] = said["name"]
        return 200, {"token": token, "createUrl": f"{self.url}/blobs/{token}"}, {}

    def _GetModel(self, said):  # noqa: N802
        name = f"{said['ownerSlug']}/{said['modelSlug']}"
        if name not in self.models:
            return 403, {"code": 403, "message": "Permission 'models.get' was denied"}, {}
        return 200, {"ref": name, "slug": said["modelSlug"]}, {}

    def _CreateModel(self, said):  # noqa: N802
        self.models[f"{said['ownerSlug']}/{said['slug']}"] = said
        return 200, {"ref": said["slug"]}, {}

    def _CreateModelInstance(self, said):  # noqa: N802
        body = said["body"]
        name = f"{said['ownerSlug']}/{said['modelSlug']}/{body['framework']}/{body['instanceSlug']}"
        if name in self.variations:
            return 200, {"error": "A variation with this slug exists already", "errorCode": 409}, {}
        self.variations[name] = [self._version(body)]
        return 200, {"ref": name}, {}

    def _CreateModelInstanceVersion(self, said):  # noqa: N802
        self.variations[self._name(said)].append(self._version(said["body"]))
        return 200, {"ref": self._name(said)}, {}

    def _GetModelInstance(self, said):  # noqa: N802
        versions = self.variations.get(self._name(said))
        if versions is None:
            return 404, {"code": 404, "message": "Not found"}, {}
        return 200, {"slug": said["instanceSlug"], "versionNumber": len(versions)}, {}

    def _DownloadModelInstanceVersion(self, said):  # noqa: N802
        content = self.variations[self._name(said)][said["versionNumber"] - 1]["files"].get(said["path"])
        return (404, {"code": 404, "message": "Not found"}, {}) if content is None else (200, content, {})

    def _name(self, said):
        return f"{said['ownerSlug']}/{said['modelSlug']}/{said['framework']}/{said['instanceSlug']}"

    def _version(self, body):
        return body | {"files": dict(self._files("", body))}

    def _files(self, folder, said):
        for file in said.get("files", ()):
            yield folder + self._names[file["token"]], self._blobs[file["token"]]
        for inner in said.get("directories", ()):
            yield from self._files(f"{folder}{inner['name']}/", inner)


class HuggingFace(StandIn):
    """One repository: `commits`, each with its header and all `files` by path, and `tags`."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.commits = [{"oid": _oid("first"), "header": {}, "files": {".gitattributes": b""}}]
        self.tags = {}
        self.large = {}
        self.meanwhile = None
        """Called before a commit is taken: somebody else's."""

    @property
    def files(self):
        return self.commits[-1]["files"]

    def commit(self, files, **header):
        """Take a commit, as if somebody else had made it, or of a client."""
        self.commits.append({"oid": _oid(str(len(self.commits))), "header": header, "files": files})
        return self.commits[-1]["oid"]

    def answer(self, method, path, body, headers):
        routes = {
            rf"/api/models/{self.name}": self._info,
            rf"/api/models/{self.name}/revision/(?P<tag>[\w-]+)": self._tagged,
            rf"/api/models/{self.name}/tree/(?P<commit>\w+)(\?.*)?": self._tree,
            rf"/api/models/{self.name}/refs": self._refs,
            rf"/api/models/{self.name}/preupload/main": self._preupload,
            rf"/{self.name}\.git/info/lfs/objects/batch": self._batch,
            r"/lfs/(?P<oid>\w+)": self._store,
            rf"/api/models/{self.name}/commit/main": self._take,
            rf"/api/models/{self.name}/tag/(?P<commit>\w+)": self._tag,
            rf"/{self.name}/resolve/(?P<commit>\w+)/(?P<file>.+)": self._resolve,
            r"/api/validate-yaml": lambda _: (200, {"errors": [], "warnings": []}, {}),
        }
        for pattern, route in routes.items():
            if found := re.fullmatch(pattern, path):
                return route(body, **found.groupdict())
        return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}

    def _info(self, _):
        siblings = [{"rfilename": name} for name in self.files]
        return 200, {"id": self.name, "sha": self.commits[-1]["oid"], "siblings": siblings}, {}

    def _tagged(self, _, tag):
        commit = next(one for one in self.commits if one["oid"] == self.tags[tag])
        siblings = [{"rfilename": name} for name in commit["files"]]
        return 200, {"id": self.name, "sha": commit["oid"], "siblings": siblings}, {}

    def _tree(self, _, commit):
        files = next(one for one in self.commits if one["oid"] == commit)["files"]
        rows = [
            {"type": "file", "path": name, "size": len(content), "oid": _oid(name)} for name, content in files.items()
        ]
        return 200, rows, {}

    def _refs(self, _):
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in self.tags.items()]
        return 200, {"branches": [], "converts": [], "tags": tags}, {}

    def _preupload(self, body):
        modes = [
            {"path": one["path"], "uploadMode": "lfs" if one["size"] > 5000 else "regular", "shouldIgnore": False}
            for one in json.loads(body)["files"]
        ]
        return 200, {"files": modes}, {}

    def _batch(self, body):
        objects = []
        for one in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}
            objects.append(one if one["oid"] in self.large else one | {"actions": upload})
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _store(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.received += len(body)
        self.large[oid] = body
        return 200, {}, {}

    def _take(self, body):
        if self.meanwhile is not None:
            self.meanwhile()
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") != self.commits[-1]["oid"]:
            return 412, {"error": "A commit has happened since. Please refresh and try again."}, {}
        files = dict(self.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.received += len(files[value["path"]])
            else:
                files[value["path"]] = self.large[value["oid"]]
        oid = self.commit(files, **header)
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{self.name}/commit/{oid}"}, {}

    def _tag(self, body, commit):
        tag = json.loads(body)["tag"]
        if tag in self.tags:
            return 409, {"error": "Tag exists already"}, {}
        self.tags[tag] = commit
        return 200, {}, {}

    def _resolve(self, _, commit, file):
        content = next(one for one in self.commits if one["oid"] == commit)["files"][file]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return 200, content, {"ETag": etag, "X-Repo-Commit": commit}


def _oid(text):
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
