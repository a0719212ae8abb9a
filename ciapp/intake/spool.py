"""Read what the hook wrote: one spool record per push.

In:  the files in <git dir>/ciapp/spool/, written by hooks/post-receive, which describes their form.
Out: records, oldest first; what is no record is moved to spool/rejected/, with a warning that says why.

Anybody who may push can write into this folder, so a file there is a claim: its type, size and form are
looked at before it is believed, and none of it can stop the reader. A push whose record is rejected is found
again by comparing the repository's refs with the ledger.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ciapp.intake.push import RefUpdate

logger = logging.getLogger(__name__)

#: First line → what ends the record. Hooks that an older version has installed write the older form.
FORMS = {"ciapp-push 2": "\n", "ciapp-push 1": "\nend\n"}
REJECTED = "rejected"
PART_SUFFIX = ".part"  #: of a record that a hook is writing; its name starts with a dot
STALE_PART_S = 3600.0  #: a part so old belongs to a hook that was killed
SIZE_LIMIT = 64 * 2**20  #: bytes; about 600,000 ref updates
REF_UPDATE = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) (refs/.+)")


class SpoolRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One push, as its hook recorded it."""

    id: str  #: the file's name; no two pushes to a repository share one
    path: Path
    received_at: datetime  #: when its file was written; aware, UTC
    pusher: str  #: the name the git server gave; may be empty
    options: tuple[str, ...]  #: of `git push -o`, in order
    updates: tuple[RefUpdate, ...]  #: in git's order

    def discard(self) -> None:
        """Delete the file: the ledger holds the push now."""
        self.path.unlink(missing_ok=True)


class _NoRecordError(Exception):
    """Why a file is no record."""


def spool_folder(git_dir: Path) -> Path:
    """Where the hook of a repository writes its records."""
    return git_dir / "ciapp" / "spool"


def read_records(git_dir: Path) -> list[SpoolRecord]:
    """The records in a repository's spool, oldest first; empty without a spool. Never raises for a file."""
    found = []
    for path in _entries(spool_folder(git_dir)):
        try:
            if path.name.startswith("."):
                _remove_stale_part(path)
            elif path.name != REJECTED:
                found.append(_read_record(path))
        except _NoRecordError as error:
            _reject(path, str(error))
        except FileNotFoundError:
            continue  # renamed by its hook, or taken by another dispatcher
        except OSError as error:
            _warn("spool file cannot be read", path, error.strerror or str(error))
    found.sort(key=lambda record: (record.received_at, record.id))
    return _in_order(found)


def _in_order(records: list[SpoolRecord]) -> list[SpoolRecord]:
    """Records by their time, but none before the one whose push it came after: a clock may be set back."""
    left, ordered, values = list(records), list[SpoolRecord](), dict[str, str]()
    made = Counter((one.ref, one.new) for record in records for one in record.updates)

    def follows(update: RefUpdate) -> bool:
        if update.ref in values:
            return values[update.ref] == update.old
        return not made[update.ref, update.old]

    while left:
        following = (record for record in left if all(map(follows, record.updates)))
        first = next(following, left[0])
        left.remove(first)
        ordered.append(first)
        for one in first.updates:
            values[one.ref] = one.new
            made[one.ref, one.new] -= 1
    return ordered


def _entries(spool: Path) -> list[Path]:
    try:
        return sorted(spool.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        _warn("spool cannot be read", spool, error.strerror or str(error))
        return []


def _read_record(path: Path) -> SpoolRecord:
    if not _is_utf_8(path.name):
        raise _NoRecordError("its name is not UTF-8")
    try:
        # Not to be led elsewhere by a symbolic link, nor kept waiting by a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.ELOOP, errno.ENXIO}:
            raise _NoRecordError(f"it cannot be opened ({error.strerror})") from error
        raise
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _NoRecordError("it is not a regular file")
        if facts.st_size > SIZE_LIMIT:
            raise _NoRecordError(f"it has {facts.st_size} bytes, a record has at most {SIZE_LIMIT}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(facts.st_size)
    finally:
        os.close(descriptor)
    return _parse_record(path, _parse_time(facts), content.decode("utf-8", "surrogateescape"))


def _is_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # its other bytes are surrogate escapes
        return False
    return True


def _parse_record(path: Path, received_at: datetime, text: str) -> SpoolRecord:
    if not text:
        raise _NoRecordError("it is empty")
    head, _, body = text.partition("\n\n")
    first, *header = head.split("\n")
    if first not in FORMS:
        raise _NoRecordError(f"its first line is not {next(iter(FORMS))!r}")
    end = FORMS[first]
    if not body.endswith(end):
        raise _NoRecordError("it has no end: it was cut, or never finished")
    named = [line.partition(" ")[::2] for line in header]
    fields = dict(named)
    return SpoolRecord(
        id=path.name,
        path=path,
        received_at=received_at,
        pusher=fields.get("pusher", ""),
        options=tuple(value for name, value in named if name == "option"),
        updates=tuple(_parse_update(line) for line in body.removesuffix(end).split("\n")),
    )


def _parse_time(facts: os.stat_result) -> datetime:
    try:
        return datetime.fromtimestamp(facts.st_mtime, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise _NoRecordError(f"it was written at second {facts.st_mtime:.0f} of 1970") from error


def _parse_update(line: str) -> RefUpdate:
    matched = REF_UPDATE.fullmatch(line)
    if matched is None or len(matched[1]) != len(matched[2]):
        raise _NoRecordError(f"{line[:80]!r} is no ref update")
    return RefUpdate(matched[1], matched[2], matched[3])


def _remove_stale_part(path: Path) -> None:
    if path.name.endswith(PART_SUFFIX) and time.time() - path.lstat().st_mtime > STALE_PART_S:
        path.unlink()
        _warn("spool file of a killed hook removed", path, "it was never finished")


def _reject(path: Path, reason: str) -> None:
    """Put a file out of the reader's way, and keep it for a person to look at."""
    rejected = path.parent / REJECTED
    try:
        rejected.mkdir(exist_ok=True)
        target, number = rejected / path.name, 1
        while os.path.lexists(target):
            target, number = rejected / f"{path.name}.{number}", number + 1
        path.rename(target)
    except OSError as error:
        _warn("spool file cannot be moved", path, f"{reason}; {error.strerror}")
    else:
        _warn("spool file rejected", path, reason)


def _warn(event: str, path: Path, reason: str) -> None:
    logger.warning(event, extra={"path": str(path), "reason": reason})
