"""Put ciapp's post-receive hook into a repository, and take it out as if it had never been there.

In:  a repository; its name in the ledger; how the hook may start ciapp.
Out: the hook file; <git dir>/ciapp/ with spool, hook.conf and a note of what was changed; git settings.

The hard idea is to disturb nobody. A hook that was there is renamed beside ours and called by it, under its
own name through a link in <git dir>/ciapp/chained/, since some hooks look at `$0`. A hooks folder that other
repositories share is not written to: the repository gets a hooks folder of its own, full of links to the
shared one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec

from ciapp.errors import CiError, UsageError
from ciapp.git import Repository
from ciapp.git_dirs import find_git_dir
from ciapp.intake.hook_files import (
    HOOK,
    KEPT_HOOK,
    is_same_file,
    link,
    link_all,
    share_like_objects,
    write_at_once,
)
from ciapp.intake.hook_settings import (
    HOOKS_PATH,
    LOG_ON,
    LOG_SETTING,
    add_setting,
    find_hooks_folder,
    logs_refs,
    restore_setting,
    set_setting,
    setting,
)
from ciapp.intake.pins import drop_all_pins
from ciapp.intake.push import OWN_REFS
from ciapp.intake.spool import read_records, spool_folder
from ciapp.settings import NAME_PATTERN

OUR_LINE = b"# ciapp post-receive hook"  #: the second line of every version of our hook starts so
NOTE = "install.json"
OPTIONS_SETTING, OPTIONS_ON = "receive.advertisePushOptions", "true"
HIDE_SETTING, HIDDEN = "receive.hideRefs", OWN_REFS.rstrip("/")


class HookError(CiError):
    """The hook could not be put into, or taken out of, a repository."""


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """The hook in one repository."""

    name: str  #: the repository's name in the ledger
    hook: Path  #: the file that git calls
    chained: Path | None  #: the hook that was there before, which ours calls


class _Note(msgspec.Struct, kw_only=True):
    """What installing changes, kept in the repository until the hook is removed."""

    name: str
    hooks_folder: str  #: where our hook is; relative to the git directory, which may be moved
    shared_folder: str = ""  #: the hooks folder that other repositories use as well, if there is one
    made_folder: bool = False  #: whether the hooks folder was not there
    made_logs: bool = False  #: whether git had no logs of refs until we told it to
    settings: dict[str, list[str]]  #: what we change → its values before, in the repository's own file


def install_hook(
    path: Path, *, name: str | None, command: Sequence[str], config: Path | None, state_dir: Path | None
) -> Installation:
    """Put our hook into a repository, bare or not; doing it again refreshes hook.conf and the hook itself.

    `name` is by default the one it was installed by, else the folder's without `.git`; `command` starts
    ciapp, its first word an absolute path. Raises UsageError for a name that is none, GitError for a folder
    that is no repository, HookError for what cannot be written; then nothing is left of a first installation.
    """
    git_dir = find_git_dir(path)
    is_first = not os.path.lexists(git_dir / "ciapp")
    try:
        return _install(git_dir, name, command, config, state_dir)
    except (CiError, OSError) as error:
        if is_first:
            _take_back(git_dir)
        if isinstance(error, OSError):
            raise _as_hook_error(git_dir, "installed", error) from error
        raise


def remove_hook(path: Path) -> list[str]:
    """Take our hook out, and put back what was there; returns lines that say what was done.

    A setting or a hook that somebody changed since stays as it is. Raises UsageError when there is no hook.
    """
    git_dir = find_git_dir(path)
    note = _read_note(git_dir)
    if note is None:
        raise UsageError(f"{git_dir} has no hook of ciapp; there is nothing to remove")
    unread = len(read_records(git_dir))
    # Nobody lets go of them later, and what hides them from pushers goes with the hook.
    drop_all_pins(Repository(git_dir))
    try:
        restored = _undo(git_dir, note)
        if note.made_logs and not logs_refs(git_dir):
            # git adds to the logs that are there, whatever it is told.
            shutil.rmtree(git_dir / "logs", ignore_errors=True)
        shutil.rmtree(git_dir / "ciapp")
    except OSError as error:
        raise _as_hook_error(git_dir, "removed", error) from error
    # A dispatcher may have made some meanwhile, which from now on leaves the repository alone.
    drop_all_pins(Repository(git_dir))
    lines = [f"hook of {note.name} removed from {git_dir}"]
    if restored:
        lines.append(f"git calls {restored} again, as before")
    if unread:
        lines.append(f"pushes forgotten that no dispatcher had read: {unread}")
    return lines


def default_name(git_dir: Path) -> str:
    """The name that the hook was installed by, else the folder's without `.git`."""
    note = _read_note(git_dir)
    if note is not None:
        return note.name
    return (git_dir.parent if git_dir.name == ".git" else git_dir).name.removesuffix(".git")


def is_removed(git_dir: Path) -> bool:
    """Whether nothing of ours is in a repository that is there: its hook was never installed, or removed."""
    try:
        return git_dir.is_dir() and not (git_dir / "ciapp").is_dir()
    except OSError:  # who may not look there does not know
        return False


def installed_command(git_dir: Path) -> Path:
    """The program by which the hook starts a dispatcher."""
    for line in (git_dir / "ciapp" / "hook.conf").read_text("utf-8", "surrogateescape").splitlines():
        key, _, value = line.partition("=")
        if key == "ciapp_command":
            return Path(shlex.split(shlex.split(value)[0])[0])
    raise HookError(f"hook.conf of {git_dir} names no command; run `ciapp hook install {git_dir}` again")


def is_installed(path: Path) -> bool:
    """Whether git would call our hook after a push to this repository."""
    git_dir = find_git_dir(path)
    note = _read_note(git_dir)
    if note is None:
        return False
    hook = git_dir / note.hooks_folder / HOOK
    return _is_ours(hook) and os.access(hook, os.X_OK) and find_hooks_folder(git_dir).resolve() == hook.parent


def _install(
    git_dir: Path, name: str | None, command: Sequence[str], config: Path | None, state_dir: Path | None
) -> Installation:
    note = _read_note(git_dir)
    name = name or default_name(git_dir)
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"{name!r} cannot name a repository; give --name letters, digits, '.', '_' and '-'")
    if note is not None and find_hooks_folder(git_dir).resolve() != git_dir / note.hooks_folder:
        # core.hooksPath was changed since: our hook is where git no longer looks.
        _undo(git_dir, note)
        note = None
    for folder in (git_dir / "ciapp", spool_folder(git_dir)):
        folder.mkdir(exist_ok=True)
        share_like_objects(git_dir, folder)
    note = note or _plan(git_dir)
    note.name = name
    if not logs_refs(git_dir):
        note.settings[LOG_SETTING] = setting(git_dir, LOG_SETTING, local=True)
        note.made_logs = note.made_logs or not (git_dir / "logs").exists()
    write_at_once(git_dir / "ciapp" / NOTE, msgspec.json.format(msgspec.json.encode(note)), 0o644)
    write_at_once(
        git_dir / "ciapp" / "hook.conf", _hook_conf(git_dir, name, command, config, state_dir), 0o644
    )
    _place_hook(git_dir, note)
    set_setting(git_dir, OPTIONS_SETTING, OPTIONS_ON)
    add_setting(git_dir, HIDE_SETTING, HIDDEN)
    if LOG_SETTING in note.settings and not logs_refs(git_dir):
        # The only trace of a push whose hook was lost, and whose commits the next one has forced away.
        set_setting(git_dir, LOG_SETTING, LOG_ON)
    if note.shared_folder:
        set_setting(git_dir, HOOKS_PATH, str(git_dir / note.hooks_folder))
    if not is_installed(git_dir):
        raise HookError(
            f"git looks for the hooks of {git_dir} in {find_hooks_folder(git_dir)}, where ciapp's is not; "
            f"unset {HOOKS_PATH} where `git config --show-origin {HOOKS_PATH}` finds it"
        )
    chained = git_dir / "ciapp" / "chained" / HOOK
    return Installation(
        name=name,
        hook=git_dir / note.hooks_folder / HOOK,
        chained=chained.readlink() if chained.exists() else None,
    )


def _take_back(git_dir: Path) -> None:
    """Undo an installation that was not finished, as far as that can be done."""
    with contextlib.suppress(CiError, OSError):
        note = _read_note(git_dir)
        if note is not None:
            _undo(git_dir, note)
        shutil.rmtree(git_dir / "ciapp")


def _plan(git_dir: Path) -> _Note:
    """What is to be changed, and what is there now."""
    keys = [OPTIONS_SETTING, HIDE_SETTING]
    folder = find_hooks_folder(git_dir)
    # A folder of this name may be a link to one that is shared.
    target = folder.resolve()
    if target.is_relative_to(git_dir):
        hooks_folder, shared_folder = str(target.relative_to(git_dir)), ""
    else:
        hooks_folder, shared_folder = "ciapp/hooks", str(folder)
        keys.append(HOOKS_PATH)
    return _Note(
        name="",
        hooks_folder=hooks_folder,
        shared_folder=shared_folder,
        made_folder=not target.is_dir(),
        settings={key: setting(git_dir, key, local=True) for key in keys},
    )


def _place_hook(git_dir: Path, note: _Note) -> None:
    folder = git_dir / note.hooks_folder
    folder.mkdir(exist_ok=True)
    hook, kept = folder / HOOK, folder / KEPT_HOOK
    if note.shared_folder:
        link_all(Path(note.shared_folder), folder)
    elif hook.is_dir():
        raise UsageError(f"{hook} is a folder, where git looks for a hook; move it away")
    elif os.path.lexists(hook) and not _is_ours(hook) and not is_same_file(hook, kept):
        if os.path.lexists(kept):
            raise UsageError(f"{hook} replaced ciapp's hook, and {kept} is there too; join the two into one")
        # A second name for the old hook, then ours in place of the first: a push finds one or the other.
        os.link(hook, kept, follow_symlinks=False)
    content = resources.files("ciapp").joinpath("hooks", HOOK).read_bytes()
    if not (_is_ours(hook) and hook.read_bytes() == content and os.access(hook, os.X_OK)):
        write_at_once(hook, content, 0o755)
    if note.shared_folder or os.path.lexists(kept):
        source = Path(note.shared_folder) if note.shared_folder else folder
        chained = git_dir / "ciapp" / "chained"
        chained.mkdir(exist_ok=True)
        link_all(source, chained)
        link(source / HOOK if note.shared_folder else kept, chained / HOOK)


def _undo(git_dir: Path, note: _Note) -> Path | None:
    """Put back hook, folder and settings; leaves <git dir>/ciapp/ with the spool. Returns the old hook."""
    folder = git_dir / note.hooks_folder
    hook, kept = folder / HOOK, folder / KEPT_HOOK
    restored = None
    if note.shared_folder:
        restore_setting(git_dir, HOOKS_PATH, str(folder), note.settings[HOOKS_PATH])
        shutil.rmtree(folder, ignore_errors=True)
        restored = Path(note.shared_folder) / HOOK
    elif _is_ours(hook):
        if os.path.lexists(kept):
            restored = kept.rename(hook)
        else:
            hook.unlink()
        if note.made_folder and not any(folder.iterdir()):
            folder.rmdir()
    elif is_same_file(hook, kept):
        kept.unlink()  # ours never came to take the first name
    shutil.rmtree(git_dir / "ciapp" / "chained", ignore_errors=True)
    restore_setting(git_dir, OPTIONS_SETTING, OPTIONS_ON, note.settings[OPTIONS_SETTING])
    restore_setting(git_dir, HIDE_SETTING, HIDDEN, note.settings[HIDE_SETTING])
    if LOG_SETTING in note.settings:
        restore_setting(git_dir, LOG_SETTING, LOG_ON, note.settings[LOG_SETTING])
    return restored if restored and restored.exists() else None


def _hook_conf(
    git_dir: Path, name: str, command: Sequence[str], config: Path | None, state_dir: Path | None
) -> bytes:
    values = {
        "name": name,
        "command": shlex.join(command),
        "config": str(config.absolute()) if config else "",
        "state_dir": str(state_dir.absolute()) if state_dir else "",
        "umask": f"{~(git_dir / 'objects').stat().st_mode & 0o777:03o}",
    }
    lines = [f"ciapp_{key}={shlex.quote(value)}\n" for key, value in values.items()]
    return os.fsencode("# Written by `ciapp hook install`; read by the post-receive hook.\n" + "".join(lines))


def _read_note(git_dir: Path) -> _Note | None:
    note = git_dir / "ciapp" / NOTE
    try:
        return msgspec.json.decode(note.read_bytes(), type=_Note)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise HookError(f"{note} is damaged; delete it and run `ciapp hook install` again") from error


def _is_ours(hook: Path) -> bool:
    try:
        return OUR_LINE in hook.read_bytes()[:200]
    except OSError:
        return False


def _as_hook_error(git_dir: Path, done: str, error: OSError) -> HookError:
    return HookError(
        f"the hook of {git_dir} cannot be {done}: {error.filename}: {error.strerror}; "
        "run this as the repository's owner"
    )
