"""The /etc that programs in a sandbox see: what programs need of the host's, and nobody's secrets.

Small files are copied once per slot, because each mount costs 0.2 ms at each start of a program; folders of
many links are shown as they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ciapp.testing.slot import Identity

ETC = Path("/etc")
COPIED = (
    "ca-certificates.conf",
    "debian_version",
    "ld.so.cache",
    "ld.so.conf",
    "locale.alias",
    "localtime",
    "mime.types",
    "os-release",
    "protocols",
    "services",
    "ssl/openssl.cnf",
    "timezone",
)
SHOWN = ("alternatives", "fonts", "pki/ca-trust", "pki/tls/certs", "ssl/certs")
NOBODY = 65534
MADE_UP = {
    "hostname": "ciapp\n",
    "hosts": "127.0.0.1\tlocalhost ciapp\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n",
    "resolv.conf": "",
}


def lay_out_etc(folder: Path, identity: Identity, home: str) -> None:
    """Fill a folder that does not exist yet."""
    folder.mkdir()
    for name in COPIED:
        source, target = ETC / name, folder / name
        if source.is_file():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
    for name in SHOWN:
        (folder / name).mkdir(parents=True, exist_ok=True)
    made_up = {
        **MADE_UP,
        "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"ciapp:x:{identity.uid}:{identity.gid}::{home}:/bin/sh\n"
        f"nobody:x:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nciapp:x:{identity.gid}:\nnogroup:x:{NOBODY}:\n",
    }
    for name, text in made_up.items():
        (folder / name).write_text(text, "ascii")
    # Readable by the slot's identity, whatever the worker's umask.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def shown_folders() -> list[Path]:
    """The folders of the host's /etc to be shown in their places."""
    return [ETC / name for name in SHOWN if (ETC / name).is_dir()]
