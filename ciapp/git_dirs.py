"""Where the git directory of a repository is.

In:  a folder: a bare repository, a clone, or a further work tree of either.
Out: the directory that all its work trees share, with the refs, the objects, and the hooks that a push calls.
"""

from __future__ import annotations

from pathlib import Path

from ciapp.errors import NoRepositoryError

POINTER = "gitdir: "  #: how the file `.git` of a linked work tree, or of a submodule, begins


def find_git_dir(path: Path) -> Path:
    """The git directory of a repository given by its folder; of a linked work tree, its main repository's.

    Raises NoRepositoryError when it is none; a folder inside a work tree does not count.
    """
    for candidate in (path / ".git", path):
        git_dir = _shared(_pointed_to(candidate))
        if (git_dir / "HEAD").is_file() and (git_dir / "objects").is_dir():
            return git_dir.resolve()
    raise NoRepositoryError(
        f"{path} is not a git repository; give the folder of a bare repository or of a clone"
    )


def is_linked(path: Path, git_dir: Path) -> bool:
    """Whether a folder is a work tree whose git directory is elsewhere."""
    return git_dir not in (path.resolve(), (path / ".git").resolve())


def _pointed_to(candidate: Path) -> Path:
    said = _first_line(candidate)
    return candidate.parent / said.removeprefix(POINTER) if said.startswith(POINTER) else candidate


def _shared(git_dir: Path) -> Path:
    return git_dir / _first_line(git_dir / "commondir")


def _first_line(file: Path) -> str:
    """Empty when there is no such file; a path that a file holds may be one that no file can have."""
    try:
        return file.read_text("utf-8", "surrogateescape").partition("\n")[0]
    except (OSError, ValueError):
        return ""
