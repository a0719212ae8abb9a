"""From a checkout to tests that are ready to run: what workers and desks share.

In:  a checkout in a slot, the server's settings, and an interpreter.
Out: a `Suite`, whose environment is nobody's to remove for as long as it is held.

    the commit's own configuration → environment → sandbox → plan
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from functools import cache

import msgspec

from ciapp.errors import ProjectError, StaleAttemptError
from ciapp.results.report import Findings, Status
from ciapp.settings import RepositorySettings, Settings
from ciapp.testing.checkout import Checkout
from ciapp.testing.environment import Interpreter
from ciapp.testing.preparation import prepare_environment
from ciapp.testing.project import load_project, lower_limits
from ciapp.testing.sandbox import Sandbox, open_sandbox, warn_of_root
from ciapp.testing.slot import Slot
from ciapp.testing.supervisor import SuitePlan


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """The tests of a checkout, with all that they need."""

    plan: SuitePlan
    sandbox: Sandbox
    installation: str  #: what is installed for them and why: a sentence for the report
    warnings: tuple[str, ...] = ()  #: of how little holds them, for the report
    is_reusable: bool  #: whether their result may stand for others, as far as settings and commit say


@contextlib.contextmanager
def prepare_suite(
    slot: Slot,
    checkout: Checkout,
    settings: Settings,
    *,
    repository: RepositorySettings,
    tree: str,
    interpreter: Interpreter,
    should_stop: Callable[[], bool],
) -> Iterator[Suite]:
    """The suite of a checkout, to be run inside the `with` as often as one likes.

    `tree` names the checkout's whole content; the hash seed is made of it, so that each run of a tree has the
    same. Raises ProjectError for what is the commit's own fault, StaleAttemptError once `should_stop` says
    yes, CiError for the rest.
    """
    project = load_project(checkout.path, repository.project, settings.limits)
    with prepare_environment(
        slot,
        checkout,
        project.install,
        settings,
        tree=tree,
        interpreter=interpreter,
        should_stop=should_stop,
    ) as environment:
        limits = lower_limits(settings.limits, project)
        sandbox = open_sandbox(slot, checkout, limits, setting=settings.sandbox, network=repository.network)
        own = {
            name: value.replace("{checkout}", str(sandbox.checkout)) for name, value in project.env.items()
        }
        yield Suite(
            plan=SuitePlan(
                python=environment.python,
                readable=environment.readable,
                start=project.unittest.start,
                pattern=project.unittest.pattern,
                top=project.unittest.top,
                environment=environment.variables | own,
                hash_seed=hash_seed_of(tree),
                limits=limits,
            ),
            sandbox=sandbox,
            installation=environment.explanation,
            warnings=_warnings(slot, settings),
            is_reusable=project.reuse and not repository.network,
        )


def with_terms(findings: Findings, suite: Suite) -> Findings:
    """Findings that say what their tests ran with and were held to."""
    return msgspec.structs.replace(
        findings,
        installation=suite.installation,
        warnings=(*findings.warnings, *suite.warnings),
        platform=platform_name(),
        limits=suite.plan.limits,
        hash_seed=suite.plan.hash_seed,
    )


@cache
def platform_name() -> str:
    """This machine, as far as tests may differ by it."""
    return f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}".rstrip(", ")


def hash_seed_of(tree: str) -> int:
    """PYTHONHASHSEED for the tests of a tree, by its id."""
    return int(tree[:8], 16) % 4294967296


def unprepared(error: ProjectError | StaleAttemptError, slot: Slot, settings: Settings) -> Findings:
    """What is to be reported of a suite that could not be prepared, or need not be any more."""
    if isinstance(error, StaleAttemptError):
        return Findings(status=Status.CANCELLED, reason=str(error))
    warnings = _warnings(slot, settings)
    return Findings(status=Status.SETUP_FAILED, reason=str(error), output=error.output, warnings=warnings)


def _warnings(slot: Slot, settings: Settings) -> tuple[str, ...]:
    return tuple(filter(None, [warn_of_root(settings.sandbox, slot)]))
