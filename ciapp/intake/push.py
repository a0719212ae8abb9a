"""Turn a push into the commits worth testing.

In:  ref updates, as git hands them to post-receive; the values that the ledger has seen.
Out: commits, oldest first, each new to the ledger; the commit that each updated ref now names.

A commit is new when no value that the ledger has seen reaches it:

    git rev-list --topo-order --reverse new1 new2 ^seen1 ^seen2 …

Old values do not count as seen. Mostly the ledger has seen them anyway; where it has not, a hook was lost,
and the commits that its push brought would vanish for good behind the next push of the same ref: of those
that this one forced away, the old value (`lost_updates`) and git's own log of the ref (`logged_updates`) are
the only traces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from ciapp.errors import GitError
from ciapp.git import NULL_IDS, Commit, Repository

OWN_REFS = "refs/ciapp/"  #: our pins; hidden from pushers, never tested
SUBJECT_LIMIT = 1000  #: characters kept of a subject or an author: a hostile one may have megabytes
EPOCH = datetime.fromtimestamp(0, UTC)

# Fields end in NUL, which no commit can hold; none of them can hold a newline.
COMMIT_FORMAT = "%H%x00%T%x00%P%x00%ct%x00%an <%ae>%x00%s"


class RefUpdate(msgspec.Struct, frozen=True):
    """One ref that changed; a null id stands for "there is none"."""

    old: str
    new: str
    ref: str  #: full name, "refs/heads/main"; bytes that are not UTF-8 are surrogate escapes


def tips(repository: Repository, updates: Iterable[RefUpdate]) -> dict[str, tuple[str, ...]]:
    """The commits that the updated refs now name → those refs, in the order of the push; tags are peeled.

    A deleted ref names nothing, nor does a tag of a tree or a blob: see `untestable`.
    """
    named: dict[str, tuple[str, ...]] = {}
    for update, (peeled, kind) in _peeled_updates(repository, updates):
        if kind == "commit":
            named[peeled] = (*named.get(peeled, ()), update.ref)
    return named


def peeled_tags(repository: Repository, updates: Iterable[RefUpdate]) -> dict[str, str]:
    """Refs that were given an annotated tag → the commit behind it."""
    return {
        update.ref: peeled
        for update, (peeled, kind) in _peeled_updates(repository, updates)
        if kind == "commit" and peeled != update.new
    }


def untestable(repository: Repository, updates: Iterable[RefUpdate]) -> dict[str, str]:
    """Refs that brought something other than a commit → a sentence that says what.

    Raises GitError for what is not there though its ref, or git's log of the ref, names it. git keeps what
    they name, so it is there, and cannot be read now; taken for gone, it would not be tested once it can.
    """
    found = [(one, kind) for one, (_, kind) in _peeled_updates(repository, updates) if kind != "commit"]
    if not all(kind for _, kind in found):
        named = repository.refs()
        for one, kind in found:
            if not kind and (named.get(one.ref) == one.new or _is_logged(repository, one)):
                raise GitError(
                    f"{one.ref} of {repository.git_dir} was given {one.new}, which cannot be read; "
                    "run `git fsck` there"
                )
    return {
        one.ref: f"{one.ref} names a {kind}, not a commit; there is nothing to test"
        if kind
        else f"{one.ref} was given {one.new}, which is no longer there; push it again to test it"
        for one, kind in found
    }


def _is_logged(repository: Repository, update: RefUpdate) -> bool:
    """Whether git's log of the ref tells of the new value, which git keeps for as long."""
    return any(update.new in values for values in repository.ref_log(update.ref))


def new_commits(
    repository: Repository, updates: Iterable[RefUpdate], seen: Iterable[str]
) -> Iterator[Commit]:
    """Commits that these updates made reachable, oldest first, parents before children, each one once.

    They come while git lists them, so that a long list takes no memory. Values whose objects are gone
    count as never seen. Raises GitError when the repository has lost an object in between.
    """
    wanted = list(tips(repository, updates))
    if not wanted:
        return
    reached = _commits(repository, seen)
    yield from _list(
        repository, [*wanted, *(f"^{commit}" for commit in reached)], "--topo-order", "--reverse"
    )


def single_commits(repository: Repository, commits: Iterable[str]) -> Iterator[Commit]:
    """These commits alone, whatever is behind them. Raises GitError for one that is not there."""
    yield from _list(repository, commits, "--no-walk")


def lost_updates(updates: Iterable[RefUpdate], seen: Collection[str]) -> list[RefUpdate]:
    """The updates that must have come before these and were not recorded: they led to values never seen."""
    return [
        RefUpdate("0" * len(one.old), one.old, one.ref)
        for one in updates
        if one.old not in NULL_IDS and one.old not in seen
    ]


def logged_updates(
    repository: Repository, updates: Iterable[RefUpdate], seen: Mapping[str, str]
) -> list[RefUpdate]:
    """The updates between the values `seen` of these refs and their new ones, oldest first for each ref.

    None of a ref that git does not log, or whose log does not reach back so far.
    """
    found = []
    for one in updates:
        values = _values_between(repository.ref_log(one.ref), seen.get(one.ref, ""), one.new)
        found += [RefUpdate("0" * len(one.new), value, one.ref) for value in values if value != one.new]
    return found


def _values_between(log: Iterable[tuple[str, str]], seen: str, latest: str) -> list[str]:
    """Values of a ref after the one seen, up to the latest; `log` is newest first."""
    values: list[str] = []
    for old, new in log:
        if not values and new != latest:
            continue
        if new == seen:
            return values[::-1]
        values.append(new)
        if old == seen:
            return values[::-1]
    return values[::-1] if not seen else []


def late_updates(
    repository: Repository, updates: Sequence[RefUpdate], seen: Mapping[str, str]
) -> list[RefUpdate]:
    """The updates whose ref has moved on, to what the ledger has `seen` of it: they are told late.

    Nobody says when a ref had which value. But a ref that is where it was seen, and not where an update led,
    has had that value before.
    """
    found = repository.objects([one.ref for one in updates])
    current = {one.ref: named.id if named else "" for one, named in zip(updates, found, strict=True)}
    return [
        one
        for one in updates
        if current[one.ref] == seen.get(one.ref, "") != ("" if one.new in NULL_IDS else one.new)
    ]


def changed_refs(current: Mapping[str, str], seen: Mapping[str, str]) -> list[RefUpdate]:
    """The updates that lead from the values seen to the current ones, sorted; our own refs left out."""
    updates = []
    for ref in sorted(current.keys() | seen.keys()):
        old, new = seen.get(ref, ""), current.get(ref, "")
        if old != new and not ref.startswith(OWN_REFS):
            null = "0" * len(old or new)
            updates.append(RefUpdate(old or null, new or null, ref))
    return updates


def _list(repository: Repository, revisions: Iterable[str], *options: str) -> Iterator[Commit]:
    words = ["rev-list", *options, "--encoding=UTF-8", f"--format={COMMIT_FORMAT}", "--stdin"]
    for line in repository.lines(*words, stdin="".join(f"{revision}\n" for revision in revisions)):
        # Each commit comes after a line "commit <id>", which git before 2.33 cannot be asked to leave out.
        if "\0" in line:
            yield _as_commit(line)


def _peeled_updates(
    repository: Repository, updates: Iterable[RefUpdate]
) -> list[tuple[RefUpdate, tuple[str, str]]]:
    """Updates that are no deletions, each with what it names, peeled: id and type."""
    kept = [one for one in updates if one.new not in NULL_IDS and not one.ref.startswith(OWN_REFS)]
    return list(zip(kept, _peel(repository, [update.new for update in kept]), strict=True))


def _commits(repository: Repository, values: Iterable[str]) -> list[str]:
    """The commits that these values name, peeled, each one once; lost objects are left out."""
    named = dict.fromkeys(value for value in values if value not in NULL_IDS)
    return list(dict.fromkeys(peeled for peeled, kind in _peel(repository, list(named)) if kind == "commit"))


def _peel(repository: Repository, values: Sequence[str]) -> list[tuple[str, str]]:
    """What each object is with its tags taken off: id and type; two empty texts for a lost object."""
    if not values:
        return []
    asked = "".join(f"{value}^{{}}\n" for value in values)
    found = repository.run("cat-file", "--batch-check=%(objectname) %(objecttype)", "--buffer", stdin=asked)
    answers = []
    for line in found.split("\n"):
        value, _, kind = line.partition(" ")
        answers.append(("", "") if kind == "missing" else (value, kind))
    return answers


def _as_commit(line: str) -> Commit:
    commit, tree, parents, seconds, author, subject = line.split("\0", 5)
    return Commit(
        id=commit,
        tree=tree,
        parents=tuple(parents.split()),
        author=author[:SUBJECT_LIMIT],
        subject=subject[:SUBJECT_LIMIT],
        committed_at=_as_instant(seconds),
    )


def _as_instant(seconds: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        # A commit may claim the year 300,000, or no date at all; its order comes from its parents.
        return EPOCH
