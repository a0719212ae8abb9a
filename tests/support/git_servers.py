"""Servers that give repositories away: sshd, and git's own CGI program or plain files behind http(s).

Each has a free port, keys of its own in a temporary folder, and is gone after the test.
"""

from __future__ import annotations

import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
import threading
import unittest
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.git_repositories import ENVIRONMENT
from tests.support.servers import PrivateServer
from tests.support.services import need

PRIVILEGE_SEPARATION = Path("/run/sshd")  #: root's sshd wants this folder, which its service makes
IN_A_RUN_OF_ITS_OWN = 'mount -t tmpfs -o mode=755 tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"'


class PrivateSshd(PrivateServer):
    """An sshd that lets the test's own user in, by one key."""

    name = "sshd"

    @property
    def ssh(self) -> str:
        """What reaches it, as $GIT_SSH_COMMAND has it."""
        return f"ssh -F {self.folder / 'ssh_config'}"

    def url(self, repository: Path) -> str:
        """The clone URL of a repository on this machine."""
        return f"ssh://{pwd.getpwuid(os.geteuid()).pw_name}@{self.address}:{self.port}{repository}"

    def prepare(self) -> None:
        path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
        found = shutil.which("sshd", path=path)
        if found is None:
            need("sshd", "it is not installed (Debian: openssh-server)")
        self._program = [found]
        if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.is_dir():
            alone = ["unshare", "--mount", "--"]
            if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
                need("sshd", f"{PRIVILEGE_SEPARATION} is not there, and no mount namespace can be made")
            self._program = [*alone, "sh", "-c", IN_A_RUN_OF_ITS_OWN, "sh", found]
        for key in ("host_key", "user_key"):
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key))
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        self._write("known_hosts", f"[{self.address}]:{self.port} {kind} {key}")
        self._write(
            "sshd_config",
            f"ListenAddress {self.address}:{self.port}",
            f"HostKey {self.folder / 'host_key'}",
            f"AuthorizedKeysFile {self.folder / 'user_key.pub'}",
            "PidFile none",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "StrictModes no",  # temporary folders stand below one that all may write to
        )
        self._write(
            "ssh_config",
            "BatchMode yes",
            f"IdentityFile {self.folder / 'user_key'}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.folder / 'known_hosts'}",
            "GlobalKnownHostsFile none",
            "StrictHostKeyChecking yes",
        )

    def command(self) -> list[str]:
        return [*self._program, "-D", "-e", "-f", str(self.folder / "sshd_config")]

    def _write(self, name: str, *lines: str) -> None:
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))


class HttpServer:
    """Repositories below a folder, over http; by default as `git http-backend` gives them away."""

    def __init__(
        self, test: unittest.TestCase, folder: Path, *, dumb: bool = False, encrypted: bool = False
    ) -> None:
        """`dumb`: files alone, after `git update-server-info`; `encrypted`: https, by `certificate`."""
        handler = partial(_Files, directory=str(folder)) if dumb else partial(_Backend, folder)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.certificate = Path()  #: what a client is to trust
        if encrypted:
            self.certificate = _make_certificate(test)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if encrypted else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        test.addCleanup(self._server.server_close)
        test.addCleanup(thread.join)
        test.addCleanup(self._server.shutdown)


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Backend(BaseHTTPRequestHandler):
    """CGI, as far as `git http-backend` needs it."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._folder = folder
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        variables = {
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        command = ["git", "http-backend"]
        done = subprocess.run(
            command, input=body, env=ENVIRONMENT | variables, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _make_certificate(test: unittest.TestCase) -> Path:
    """A key with a certificate that it signed itself, for this machine."""
    if shutil.which("openssl") is None:
        need("openssl", "it makes the certificate")
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    file = Path(folder.name) / "both.pem"
    words = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ciapp-test"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(["openssl", "req", "-x509", *words], check=True, capture_output=True)
    file.write_text(Path(f"{file}.crt").read_text() + file.read_text())
    return file
