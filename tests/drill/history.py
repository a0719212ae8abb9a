"""The commits of a plan as git objects, made at once: a source repository that every clone borrows from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.drill.plan import Plan
from tests.support.installation import Installation

SOURCE = "source.git"
START = 1_700_000_000  #: seconds since 1970, of the first commit
AUTHOR = "Ann <ann@example.org>"


def make_history(ci: Installation, plan: Plan) -> dict[int, str]:
    """Write the plan's commits into a source repository; number → commit id."""
    source = ci.folder / SOURCE
    ci.git("init", "--quiet", "--bare", str(source))
    marks = ci.folder / "marks"
    subprocess.run(
        ["git", "fast-import", "--quiet", f"--export-marks={marks}"],
        cwd=source,
        env=ci.environment,
        input="".join(_stream(plan)).encode(),
        check=True,
    )
    pairs = (line[1:].split() for line in marks.read_text().splitlines())
    marks.unlink()
    return {int(number): commit for number, commit in pairs}


def make_clone(ci: Installation, name: str, remotes: dict[str, Path]) -> Path:
    """A clone that has every object of the source, and these remotes."""
    clone = ci.folder / name
    ci.git("init", "--quiet", "--bare", str(clone))
    (clone / "objects/info/alternates").write_text(f"{ci.folder / SOURCE / 'objects'}\n")
    for remote, path in remotes.items():
        ci.git("remote", "add", remote, str(path), cwd=clone)
    return clone


def annotated_tags(ci: Installation) -> dict[int, str]:
    """Number of a commit → its annotated tag's object, for those that have one."""
    listed = ci.git(
        "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/tags", cwd=ci.folder / SOURCE
    )
    return {int(number): tag for number, tag in (line.split() for line in listed.splitlines())}


def _stream(plan: Plan) -> list[str]:
    lines = []
    for commit in plan.commits:
        seconds = f"{START + commit.number} +0000"
        subject = f"Commit {commit.number}: {commit.project.kind}"
        lines.append(f"commit refs/drill/{commit.number}\nmark :{commit.number}\n")
        lines.append(f"author {AUTHOR} {seconds}\ncommitter {AUTHOR} {seconds}\n")
        lines.append(_data(subject))
        for word, parent in zip(("from", "merge"), commit.parents, strict=False):
            lines.append(f"{word} :{parent}\n")
        lines.append("deleteall\n")
        for path, text in commit.project.files.items():
            lines.append(f"M 100644 inline {path}\n{_data(text)}")
    for push in plan.pushes:
        for update in push.updates:
            if update.is_annotated:
                lines.append(f"tag {update.commit}\nfrom :{update.commit}\ntagger {AUTHOR} {START} +0000\n")
                lines.append(_data("A tag"))
    return lines


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"
