"""Real upstreams on one loopback TLS port: a git server, a package index and a JSON endpoint.

Which one answers is decided by the Host header; `seen` holds every request as it arrived, so that
tests can assert on what the proxy really let out. The git server is `git http-backend` behind a
small CGI bridge; the index is PEP 503 with one wheel, beside it as much of npm's and cargo's
registries as answers a ping and a search.
"""

import asyncio
import base64
import contextlib
import hashlib
import io
import os
import ssl
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

API, GIT, PACKAGES = "api.example", "git.example", "packages.example"
HOSTS = (API, GIT, PACKAGES)
REPOSITORY = "/project.git"
WHEEL = "palyra_probe-1.0-py3-none-any.whl"
STREAM_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it arrived."""

    method: str
    host: str
    path: str
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.host}{self.path}"


@dataclass(slots=True)
class Upstreams:
    """What arrived, and where the server listens. `git_root` holds bare repositories."""

    git_root: Path
    wheel: bytes
    port: int = 0
    seen: list[SeenRequest] = field(default_factory=list)

    def url(self, host: str, path: str) -> str:
        return f"https://{host}:{self.port}{path}"

    def of(self, host: str) -> list[SeenRequest]:
        return [request for request in self.seen if request.host == host]

    @property
    def leaked_headers(self) -> set[str]:
        """Proxy headers that reached an upstream; there must be none."""
        names = {name for request in self.seen for name in request.headers}
        return {name for name in names if name.startswith("proxy-")}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        host = request.host.rpartition(":")[0]
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(SeenRequest(request.method, host, request.path, headers))
        match host:
            case "git.example":
                return await _git_backend(self.git_root, request)
            case "packages.example":
                return self._index(request)
            case _ if request.path.endswith("/stream"):
                return await _endless(request)
            case _:
                return web.json_response({"path": request.path, "served_by": host})

    def _index(self, request: web.Request) -> web.Response:
        match request.path:
            case "/simple/palyra-probe/":
                digest = hashlib.sha256(self.wheel).hexdigest()
                link = f'<a href="/files/{WHEEL}#sha256={digest}">{WHEEL}</a>'
                page = f"<!DOCTYPE html><html><body>{link}</body></html>"
                return web.Response(text=page, content_type="text/html")
            case "/npm/-/ping":
                return web.json_response({})
            case "/cargo/config.json":
                here = self.url(PACKAGES, "/cargo")
                return web.json_response({"dl": f"{here}/dl", "api": here})
            case "/cargo/api/v1/crates":
                return web.json_response({"crates": [], "meta": {"total": 0}})
            case path if path == f"/files/{WHEEL}":
                return web.Response(body=self.wheel, content_type="application/zip")
            case _:
                return web.Response(status=404)


async def _endless(request: web.Request) -> web.StreamResponse:
    """A line every now and then, until the reader goes away."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"still open\n")
            await asyncio.sleep(STREAM_EVERY_S)
    return response


async def _git_backend(root: Path, request: web.Request) -> web.Response:
    """One request through git's own CGI program."""
    body = await request.read()
    process = await asyncio.create_subprocess_exec(
        *("git", "http-backend"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
        },
    )
    answer, _ = await process.communicate(body)
    head, _, content = answer.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if line)
    status = int(fields.pop("Status", "200 OK").split()[0])
    return web.Response(status=status, headers=fields, body=content)


def make_wheel() -> bytes:
    """A small, valid, pure Python wheel."""
    info = "palyra_probe-1.0.dist-info"
    files = {
        "palyra_probe.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: palyra-probe\nVersion: 1.0\n",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    rows = [f"{name},{_record_digest(text)},{len(text)}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def _record_digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@asynccontextmanager
async def upstreams(context: ssl.SSLContext, git_root: Path) -> AsyncIterator[Upstreams]:
    """Serve on a free loopback port until the block ends."""
    served = Upstreams(git_root, make_wheel())
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", served.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        served.port = int(runner.addresses[0][1])
        yield served
    finally:
        await runner.cleanup()
