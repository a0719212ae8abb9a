"""Which of the runs that wait goes first, as pushes change it.

In:  a push: the refs it changed, the commits they name now, and which of those refs supersede.
Out: new priorities of runs that nobody has started, in the transaction of the push.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, select, update

from ciapp.results import schema
from ciapp.results.database import stored_text
from ciapp.results.report import State

TIP, BACKLOG, DEFERRED = 2, 1, 0  #: priorities of runs; higher goes first


def put_in_order(
    connection: Connection,
    repository_id: int,
    refs: Iterable[str],
    tips: Mapping[str, tuple[str, ...]],
    superseding: frozenset[str],
) -> None:
    """Move runs that nobody has started: back, what a ref named before; to the front, what one names now."""
    runs = schema.runs.c
    unstarted = (runs.repository_id == repository_id, runs.state == State.QUEUED)
    moved = (
        update(schema.runs)
        .where(*unstarted, runs.ref == bindparam("of_ref"), runs.priority > bindparam("down_to"))
        .values(priority=bindparam("down_to"))
    )
    waiting = set(connection.scalars(select(runs.ref).where(*unstarted).distinct()))
    back = [
        {"of_ref": stored_text(ref), "down_to": DEFERRED if ref in superseding else BACKLOG}
        for ref in refs
        if stored_text(ref) in waiting
    ]
    # From now on the run belongs to the ref that will not defer it, if there is one.
    lasting = {commit: [ref for ref in named if ref not in superseding] for commit, named in tips.items()}
    raised = update(schema.runs).where(*unstarted, runs.commit == bindparam("tip")).values(priority=TIP)
    front = [{"tip": commit} for commit, named in lasting.items() if not named]
    adopted = [{"tip": commit, "of_ref": stored_text(named[0])} for commit, named in lasting.items() if named]
    if back:
        connection.execute(moved, back)
    if front:
        connection.execute(raised, front)
    if adopted:
        connection.execute(raised.values(ref=bindparam("of_ref")), adopted)
