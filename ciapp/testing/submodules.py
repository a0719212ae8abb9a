"""The submodules of a commit, laid out in its checkout from mirrors of their own.

In:  a work tree whose index names submodules, and where its repository was cloned from.
Out: each submodule's commit in its folder; a ProjectError when one cannot be had.

The URLs are the commit's, so they are believed only so far: protocols that git fetches over safely, and, by
a path of this host, only what stands beside the repository itself, as `../library.git`.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from ciapp.errors import FetchError, ProjectError
from ciapp.testing.worktree import WorkTree

GITLINK = b"\x00\x00\xe0\x00"  #: a submodule's mode, as it stands in git's index
URLS = ".gitmodules"
DEEPEST = 8  #: submodules in submodules
REMOTE = re.compile(r"(?:https?|ssh|git)://[^/\s-][^\s]*|[\w.-]+@[\w][\w.-]*:[^\s-][^\s]*")
BASE = re.compile(r"(?P<host>[a-z+]+://[^/]+|[^/:]+:)(?P<path>.*)")


def check_out_submodules(tree: WorkTree, depth: int = 0) -> None:
    """Lay out every submodule below a work tree. Raises ProjectError when one cannot be had."""
    if GITLINK not in tree.index.read_bytes():
        return
    commits, has_urls = _commits_by_path(tree)
    urls = _urls_by_path(tree) if commits and has_urls else {}
    if commits and depth == DEEPEST:
        raise ProjectError(f"submodules are nested more than {DEEPEST} deep")
    for path, commit in commits.items():
        if path not in urls:
            raise ProjectError(f"submodule {path!r} has no URL in {URLS}")
        url = resolve_url(urls[path], tree.mirror.clone_url)
        mirror = tree.mirror.of_submodule(hashlib.sha256(os.fsencode(url)).hexdigest()[:32])
        try:
            mirror.ensure_commit(url, commit)
        except FetchError as error:
            raise ProjectError(f"submodule {path!r}: {error}") from error
        below = tree.below(path, mirror)
        below.move_to(commit)
        check_out_submodules(below, depth + 1)


def resolve_url(url: str, clone_url: str) -> str:
    """Where a submodule is fetched from; `clone_url` is its repository's.

    Raises ProjectError for a URL that a commit may not ask for.
    """
    if REMOTE.fullmatch(url):
        return url
    if not url.startswith(("./", "../")):
        raise ProjectError(
            f"submodule URL {url!r} is not allowed; use http, https, ssh or git, or a path as ../library.git"
        )
    base = BASE.fullmatch(clone_url)
    if base:
        path = os.path.normpath(PurePosixPath("/", base["path"], url))
        return base["host"] + (path if "://" in base["host"] else path.lstrip("/"))
    repository = Path(clone_url).resolve()
    if repository.name == ".git":
        repository = repository.parent
    wanted = (repository / url).resolve()
    if not wanted.is_relative_to(repository.parent) or wanted == repository.parent:
        raise ProjectError(f"submodule URL {url!r} leads out of the folder that the repository stands in")
    return str(wanted)


def _commits_by_path(tree: WorkTree) -> tuple[dict[str, str], bool]:
    """The submodules of the commit, and whether it says where they are to be had."""
    commits, has_urls = {}, False
    for entry in tree.git("ls-files", "--stage", "-z").split("\0"):
        facts, _, path = entry.partition("\t")
        has_urls |= path == URLS
        if facts.startswith("160000 "):
            commits[path] = facts.split()[1]
    return commits, has_urls


def _urls_by_path(tree: WorkTree) -> dict[str, str]:
    """What .gitmodules says, as it stands in the commit: the file may be a link."""
    paths, urls = {}, {}
    for entry in tree.git("config", "--blob", f":{URLS}", "--null", "--list").split("\0"):
        key, _, value = entry.partition("\n")
        name = key.removeprefix("submodule.")
        if name.endswith(".path"):
            paths[name.removesuffix(".path")] = value
        elif name.endswith(".url"):
            urls[name.removesuffix(".url")] = value
    return {path: urls[name] for name, path in paths.items() if name in urls}
