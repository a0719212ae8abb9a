"""What may go wrong on our side, one sentence and one exit code each.

A commit that fails its tests is data (`ciapp.results.report`), never one of these.
"""

from __future__ import annotations

#: Exit code of a fault of ciapp's own, which nobody has thought of: sysexits.h calls it EX_SOFTWARE.
FAULT_EXIT_CODE = 70


class CiError(Exception):
    """Base of everything ciapp raises for a person to read: the object, the fact, the next step."""

    exit_code = 3  #: infra-error, or a service that cannot be reached


class UsageError(CiError):
    """What the user asked for cannot be: a wrong option, an unknown repository or revision."""

    exit_code = 2


class SettingsError(UsageError):
    """The server's settings cannot be used as they stand."""


class NoSuchRunError(CiError):
    """The ledger has no such run, or the run has not finished."""

    exit_code = 4


class GitError(CiError):
    """git answered with an error."""


class NoRepositoryError(GitError):
    """The folder that the user named is no git repository."""

    exit_code = UsageError.exit_code


class CheckoutError(CiError):
    """A commit could not be laid out in a slot's checkout, for reasons that are not the commit's."""


class FetchError(CheckoutError):
    """A commit cannot be had from its repository, that is away, damaged or has none such; later it may."""


class SandboxError(CiError):
    """The sandbox that the settings ask for cannot be had on this host."""


class InstallError(CiError):
    """What a commit's tests need could not be installed, for reasons that are not the commit's."""


class LedgerError(CiError):
    """The ledger's database cannot be reached or used."""


class LedgerAwayError(LedgerError):
    """The ledger's database does not answer, is locked, or went away in the middle; later it may be back."""


class LedgerConflictError(LedgerError):
    """Another transaction was in the way of this one, of which nothing was kept: it may begin anew."""


class BrokerError(CiError):
    """The broker cannot be reached."""


class BrokerRefusedError(BrokerError):
    """The broker, or who knows its host, said no: waiting would not help."""


class StaleAttemptError(CiError):
    """An attempt's fencing token is no longer the run's: another attempt, or a cancel, came after it."""


class ProjectError(Exception):
    """The commit's own configuration or contents make testing impossible: ends as `setup-failed`.

    Not a CiError: it is a fact about the commit, and the pipeline turns it into a report.
    """

    def __init__(self, sentence: str, *, output: str = "") -> None:
        """`output` is what a program said that failed on the commit: head and tail."""
        super().__init__(sentence)
        self.output = output
