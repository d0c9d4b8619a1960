"""Every error that Forage raises on purpose.

ForageError
|-- ConfigError        a setting is unknown, of the wrong type, or contradicts another   (exit 2)
|   `-- BudgetError    the requests that were to be paid for are spent
|-- DataError          a question, a passage or a file of them is not usable; names file and line
|-- CheckpointError    a checkpoint is missing, truncated or of another shape
|-- RunFolderError     a run's folder is in use, or holds another run
|-- IndexFolderError   an index folder is missing, cut short, of another version, or of another corpus
|-- RetrieverError     a search failed after its retries
|-- ServiceError       a service asked over HTTP gave no usable reply after its retries
|-- RewardError        a reward raised, or returned something that is not a finite number
|-- TrainingError      training can't go on (non-finite loss, nothing left to learn from)
|   `-- CollapseError  the policy has collapsed, and the run is to stop for it
`-- MissingExtra       an optional dependency is not installed; carries the install line
"""

from __future__ import annotations


class ForageError(Exception):
    """Base of all errors below. The message says what, where, and what to do."""

    exit_code = 1


class ConfigError(ForageError):
    """A setting is unknown, of the wrong type, or contradicts another."""

    exit_code = 2


class BudgetError(ConfigError):
    """The requests that were to be paid for are spent; no more are sent until the setting says so."""


class DataError(ForageError):
    """A question, a passage, or a file of them is not usable."""


class CheckpointError(ForageError):
    """A checkpoint is missing, truncated, or of another shape."""


class RunFolderError(ForageError):
    """A run's folder is in use by another process, or holds another run."""

    exit_code = 2


class IndexFolderError(ForageError):
    """An index folder is missing, cut short, of another version, or of another corpus."""


class RetrieverError(ForageError):
    """A search failed after its retries. Never turned into an empty result."""


class ServiceError(ForageError):
    """A service that is asked over HTTP gave no usable reply after its retries.

    Args:
        says: which service, and why.
        status: of its last reply; None where there was none, or none that could be read.
    """

    def __init__(self, says: str, status: int | None = None) -> None:
        super().__init__(says)
        self.status = status


class RewardError(ForageError):
    """A reward raised, or returned something that is not a finite number."""


class TrainingError(ForageError):
    """Training can't go on."""


class CollapseError(TrainingError):
    """The policy has collapsed, and diagnosis.on_collapse says that the run ends or goes back.

    Args:
        says: what was seen, and what to do.
        since: the step that it began with.
    """

    def __init__(self, says: str, since: int) -> None:
        super().__init__(says)
        self.since = since


class MissingExtra(ForageError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'forage-rl[{extra}]'")
