"""A working tree copied into a slot, touching only what differs.

In:  a slot, and a working tree.
Out: a `Checkout` with exactly the tree's files, as a worker would have it; the tree itself is only read.

What the copy holds is written down with each file's inode and ctime, in the tree and in the copy. Nobody can
set a ctime back, so a file that was edited here, or that tests changed there, is seen without reading it.
Nothing of the tests runs while a copy is made, so what was looked at stays what it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path

import msgspec

from ciapp.errors import CheckoutError, UsageError
from ciapp.testing.checkout import Checkout
from ciapp.testing.folders import remove_folder
from ciapp.testing.launch import Shown
from ciapp.testing.own_git import borrowing_files, lay_out_git_folder
from ciapp.testing.sandbox import CHECKOUT, SandboxSetting, find_level, identity_in
from ciapp.testing.slot import Identity, Slot
from ciapp.testing.tree import GitFolder, WorkingTree
from ciapp.testing.worktree import OBJECTS

KEPT = 4  #: copies of the trees used last, in each slot
CHUNK = 1 << 24
#: Of a folder that is not in git, which may be somebody's home by mistake.
MOST_FILES = 100_000
MOST_BYTES = 8 << 30

Signature = tuple[int, int, int, int, int]  #: mode, size, mtime, inode, ctime


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A tree's copy, ready for its tests."""

    checkout: Checkout
    content: str  #: 40 hexadecimal digits that name what was copied


def copy_tree(tree: WorkingTree, slot: Slot, *, setting: SandboxSetting = "auto") -> Replica:
    """Make the slot's copy of a tree what the tree is now.

    Raises UsageError for files of the tree that cannot be read, CheckoutError for trouble with the copy.
    """
    path = slot.path / "checkouts" / tree.key
    records = slot.path / "records"
    level = find_level(setting)
    identity = identity_in(level, slot)
    try:
        records.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o755, exist_ok=True)
        _forget_others(path.parent, records, tree.key)
        copy = _Copy(tree, path, records / tree.key, slot.path.parent, identity)
        content = copy.make()
        shown = [Shown(path, CHECKOUT, writable=True)]
        if tree.git is not None:
            shown += _lay_out_git_folder(tree, tree.git, path / ".git", level.name == "bubblewrap", identity)
    except OSError as error:
        raise CheckoutError(
            f"{error.filename or path} cannot be used: {error.strerror}; check state_dir"
        ) from error
    return Replica(
        checkout=Checkout(commit=tree.head.commit if tree.head else "", path=path, shown=tuple(shown)),
        content=content,
    )


class _Copy:
    """One call of `copy_tree`, as far as files go."""

    def __init__(self, tree: WorkingTree, path: Path, record: Path, slots: Path, identity: Identity) -> None:
        self._tree = tree
        self._slots = slots
        self._path = path
        self._root = str(path)
        self._record = record
        self._identity = identity

    def make(self) -> str:
        """Copy what differs, remove what is too much; a name for the content."""
        known = self._read_record()
        wanted = self._list_tree()
        folders: set[str] = set()
        for name in wanted:
            while name := name.rpartition("/")[0]:
                if name in folders:
                    break
                folders.add(name)
        kept = self._clear(wanted, folders, known)
        for folder in sorted(folders):
            self._make_folder(f"{self._root}/{folder}")
        files = {}
        for name, signature in wanted.items():
            copied = kept.get(name) or self._copy(name)
            if copied is not None:
                files[name] = (signature, copied)
        record = msgspec.msgpack.encode({os.fsencode(name): known for name, known in files.items()})
        self._record.write_bytes(record)
        digest = hashlib.sha256(os.fsencode(self._tree.path))
        for name in sorted(files):
            digest.update(os.fsencode(f"\0{name}\0{wanted[name]}"))
        return digest.hexdigest()[:40]

    def _list_tree(self) -> dict[str, Signature]:
        found, size = {}, 0
        # Where the state folder stands in the tree, copies must not have copies in them.
        own = os.path.relpath(self._slots, self._tree.path) + "/"
        try:
            for name, facts in self._tree.files():
                if name.startswith(own):
                    continue
                found[name] = _signature(facts)
                size += facts.st_size
                if self._tree.git is None and (len(found) > MOST_FILES or size > MOST_BYTES):
                    raise UsageError(
                        f"{self._tree.path} holds more than {MOST_FILES:,} files or {MOST_BYTES >> 30} GiB;"
                        " name a project's own folder, or keep it in git"
                    )
            return found
        except OSError as error:
            raise UsageError(
                f"{error.filename or self._tree.path} cannot be read: {error.strerror}; see its permissions"
            ) from error

    def _read_record(self) -> dict[str, tuple[Signature, Signature]]:
        """What the copy held when it was made; nothing when there is no telling."""
        try:
            record = msgspec.msgpack.decode(
                self._record.read_bytes(), type=dict[bytes, tuple[Signature, Signature]]
            )
            return {os.fsdecode(name): known for name, known in record.items()}
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}

    def _clear(
        self,
        wanted: dict[str, Signature],
        folders: set[str],
        known: dict[str, tuple[Signature, Signature]],
    ) -> dict[str, Signature]:
        """Remove what is not wanted as it is; the files that stay. `folders` keeps what is to be made."""
        kept = {}
        is_there = self._path.is_dir() and not self._path.is_symlink()
        if not is_there or self._path.stat().st_uid != self._identity.uid:
            remove_folder(self._path)
            self._make_folder(self._root)
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            self._open_folder(f"{self._root}/{prefix}")
            with os.scandir(f"{self._root}/{prefix}") as entries:
                found = list(entries)
            for entry in found:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if name in folders:
                        waiting.append(f"{name}/")
                        folders.discard(name)
                    else:
                        remove_folder(Path(entry.path))
                    continue
                signature = _signature(entry.stat(follow_symlinks=False))
                if name in wanted and known.get(name) == (wanted[name], signature):
                    kept[name] = signature
                else:
                    os.unlink(entry.path)  # noqa: PTH108
        return kept

    def _open_folder(self, place: str) -> None:
        """Undo what tests may have done to a folder."""
        os.chmod(place, 0o755)  # noqa: PTH101
        with contextlib.suppress(OSError):  # a file system without attributes
            for name in os.listxattr(place):
                if name.startswith(("user.", "system.")):
                    os.removexattr(place, name)

    def _make_folder(self, place: str) -> None:
        os.mkdir(place, 0o755)  # noqa: PTH102
        os.chmod(place, 0o755)  # noqa: PTH101  # whatever the umask
        if self._identity.is_own:
            os.chown(place, self._identity.uid, self._identity.gid)

    def _copy(self, name: str) -> Signature | None:
        """Copy a file or link; its signature there, None when it is gone by now."""
        source, target = f"{self._tree.path}/{name}", f"{self._root}/{name}"
        try:
            if os.path.islink(source):  # noqa: PTH114
                link, reading = os.readlink(source), None  # noqa: PTH115
            else:
                reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(
                f"{source} cannot be read: {error.strerror}; see its permissions, or have git ignore it"
            ) from error
        if reading is None:
            os.symlink(link, target)  # noqa: PTH211
        else:
            try:
                self._copy_content(reading, target)
            finally:
                os.close(reading)
        if self._identity.is_own:
            os.lchown(target, self._identity.uid, self._identity.gid)
        return _signature(os.lstat(target))

    def _copy_content(self, reading: int, target: str) -> None:
        facts = os.fstat(reading)
        mode = 0o755 if facts.st_mode & stat.S_IXUSR else 0o644  # as git has it
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.fchmod(writing, mode)  # whatever the umask
            _copy_all(reading, writing)
            os.utime(writing, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        finally:
            os.close(writing)


def _copy_all(reading: int, writing: int) -> None:
    """Copy a file's content; where the file system can, the copy shares it until one of both changes."""
    try:
        while os.copy_file_range(reading, writing, CHUNK):
            continue
    except OSError:
        os.lseek(reading, 0, os.SEEK_SET)
        os.ftruncate(writing, 0)
        os.lseek(writing, 0, os.SEEK_SET)
        with open(reading, "rb", closefd=False) as source, open(writing, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target, CHUNK)


def _lay_out_git_folder(
    tree: WorkingTree, git: GitFolder, folder: Path, are_moved: bool, identity: Identity
) -> list[Shown]:
    """A `.git` for the tests, as workers lay it out: it borrows the objects; what else to show for it."""
    own, *borrowed = git.objects
    inside = OBJECTS if are_moved else own
    files = borrowing_files(tree.head.commit if tree.head else "ref: refs/heads/main", inside, git.tags)
    for file, name in ((git.index, "index"), (git.shallow, "shallow")):
        if file.is_file():
            files[name] = file.read_bytes()
    lay_out_git_folder(folder, files, identity)
    return [Shown(own, inside), *(Shown(host, host) for host in borrowed)]


def _forget_others(copies: Path, records: Path, key: str) -> None:
    """Remove the copies of trees that were not used for the longest time."""
    used = sorted(records.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    others = [file for file in used if file.name != key]
    for file in others[KEPT - 1 :]:
        remove_folder(copies / file.name)
        file.unlink()


def _signature(facts: os.stat_result) -> Signature:
    return facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns
