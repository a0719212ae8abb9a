"""A package index of this test's own, with wheels made by hand; what it answers can be made to go wrong."""

from __future__ import annotations

import base64
import io
import threading
import unittest
import zipfile
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: A build backend that a project can hold itself: `backend.py`, in the folder that backend-path names.
BACKEND = """\
import os, pathlib, zipfile

def get_requires_for_build_editable(config_settings=None):
    return REQUIRES

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    BEFORE
    name = "project-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("project.pth", os.getcwd() + "/src")
        metadata = "Metadata-Version: 2.1\\nName: project\\nVersion: 1.0\\nEXTRA"
        wheel.writestr("project-1.0.dist-info/METADATA", metadata)
        kind = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("project-1.0.dist-info/WHEEL", kind)
        wheel.writestr("project-1.0.dist-info/RECORD", "")
    return name
"""
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["building"]
[project]
name = "project"
version = "1.0"
"""


def project_files(
    *, before: str = "pass", requires: Sequence[str] = (), metadata: str = "", pyproject: str = ""
) -> dict[str, str]:
    """A project that builds itself offline; `before` is a statement that its build runs first."""
    backend = BACKEND.replace("REQUIRES", repr(list(requires))).replace("BEFORE", before)
    return {
        "pyproject.toml": PYPROJECT + pyproject,
        "building/backend.py": backend.replace("EXTRA", metadata.replace("\n", "\\n")),
        "src/project/__init__.py": "",
        "src/project/code.py": "ANSWER = 42\n",
    }


def wheel(
    name: str, version: str = "1.0", files: Mapping[str, str] | None = None, metadata: Sequence[str] = ()
) -> tuple[str, bytes]:
    """File name and content of a wheel; without files, of a module of its name that holds its version."""
    info = f"{name}-{version}.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in (files or {f"{name}.py": f"VERSION = {version!r}\n"}).items():
            archive.writestr(path, text)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata]
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}-{version}-py3-none-any.whl", content.getvalue()


class PackageIndex:
    """Serves files by package, as PEP 503 has it, on a free port of this host."""

    def __init__(self, test: unittest.TestCase, *files: tuple[str, bytes]) -> None:
        self.status = 200  #: of every answer
        self.password = ""  #: that it asks for, of the user `ann`; empty: none
        self.requests: list[str] = []
        self._files = dict(files)
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index._answer(self)

            do_HEAD = do_GET  # noqa: N815 - http.server's own name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        test.addCleanup(self.stop)

    @property
    def url(self) -> str:
        """Where the index is; with the password, if it has one."""
        user = f"ann:{self.password}@" if self.password else ""
        return f"http://{user}127.0.0.1:{self._server.server_port}/simple"

    def add(self, *files: tuple[str, bytes]) -> None:
        """Serve further files."""
        self._files |= dict(files)

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        status, body = self._find(handler)
        handler.send_response(status)
        if status == 401:
            handler.send_header("WWW-Authenticate", "Basic")
        is_file = "/files/" in handler.path
        handler.send_header("Content-Type", "application/octet-stream" if is_file else "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)

    def _find(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        if self.status != 200:
            return self.status, b""
        wanted = base64.b64encode(f"ann:{self.password}".encode()).decode()
        if self.password and handler.headers.get("Authorization") != f"Basic {wanted}":
            return 401, b""
        kind, _, name = handler.path.strip("/").partition("/")
        if kind == "files":
            return (200, self._files[name]) if name in self._files else (404, b"")
        package = name.replace("-", "_")
        files = [file for file in self._files if file.startswith(f"{package}-")]
        page = "".join(f'<a href="/files/{file}">{file}</a>' for file in files)
        return (200, f"<!DOCTYPE html><html><body>{page}</body></html>".encode()) if files else (404, b"")
