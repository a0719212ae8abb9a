"""The git settings that decide about hooks, in one repository.

In:  a git directory.
Out: where git looks for its hooks; settings changed, and put back as they were.
"""

from __future__ import annotations

from pathlib import Path

from ciapp.git import Repository

HOOKS_PATH = "core.hooksPath"
LOG_SETTING, LOG_ON = "core.logAllRefUpdates", "true"

#: Every hook that git may look for, but for post-receive.
OTHER_HOOKS = frozenset(
    {
        "applypatch-msg",
        "commit-msg",
        "fsmonitor-watchman",
        "p4-changelist",
        "p4-post-changelist",
        "p4-pre-submit",
        "p4-prepare-changelist",
        "post-applypatch",
        "post-checkout",
        "post-commit",
        "post-index-change",
        "post-merge",
        "post-rewrite",
        "post-update",
        "pre-applypatch",
        "pre-auto-gc",
        "pre-commit",
        "pre-merge-commit",
        "pre-push",
        "pre-rebase",
        "pre-receive",
        "prepare-commit-msg",
        "proc-receive",
        "push-to-checkout",
        "reference-transaction",
        "sendemail-validate",
        "update",
    }
)


def find_hooks_folder(git_dir: Path) -> Path:
    """Where git looks for the hooks of a repository; absolute."""
    configured = setting(git_dir, HOOKS_PATH)
    if not configured:
        return git_dir / "hooks"
    # A relative path starts where git runs hooks: in a bare repository, or at the top of a work tree.
    base = git_dir.parent if git_dir.name == ".git" else git_dir
    return base / Path(configured[-1]).expanduser()


def setting(git_dir: Path, key: str, *, local: bool = False) -> list[str]:
    """A setting's values as a repository sees them, the last one counts; `local`: those of its own file."""
    listed = Repository(git_dir).run("config", "--list", "-z", *(["--local"] if local else []))
    values = []
    for entry in listed.split("\0"):
        # Section and key come in lower case; a key without a value has no newline, and means true.
        name, has_value, value = entry.partition("\n")
        if name == key.lower():
            values.append(value if has_value else "true")
    return values


def logs_refs(git_dir: Path) -> bool:
    """Whether git notes the values that branches have, which a bare repository does only if told to."""
    told = setting(git_dir, LOG_SETTING)[-1:]
    if not told:
        return setting(git_dir, "core.bare")[-1:] != ["true"]
    return told[0].lower() in {"true", "yes", "on", "1", "always"}


def set_setting(git_dir: Path, key: str, value: str) -> None:
    """Make this the one value of a setting in the repository's own file."""
    if setting(git_dir, key, local=True) != [value]:
        _configure(git_dir, "--replace-all", key, value)


def add_setting(git_dir: Path, key: str, value: str) -> None:
    """Add a value to a setting of several in the repository's own file, once."""
    if value not in setting(git_dir, key, local=True):
        _configure(git_dir, "--add", key, value)


def restore_setting(git_dir: Path, key: str, ours: str, before: list[str]) -> None:
    """Take our value of a setting away; a value that somebody gave it since stays."""
    now = setting(git_dir, key, local=True)
    if ours not in now or now == before:
        return
    if now == [ours] and before:
        _configure(git_dir, "--replace-all", key, before[0])
        for value in before[1:]:
            _configure(git_dir, "--add", key, value)
    elif ours not in before:
        _configure(git_dir, "--fixed-value", "--unset-all", key, ours)


def _configure(git_dir: Path, *words: str) -> None:
    Repository(git_dir).run("config", "--local", *words)
