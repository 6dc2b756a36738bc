"""What was found of a person: removed, left to expire, or beyond reach. A report is a list of these."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: What nobody looks at here; whoever answers a person has to.
NOT_SEARCHED = (
    "the sources themselves", "snapshots of pipelines' folders", "tables and topics that were not named",
    "packed files of artifacts", "copies of artifacts on other machines", "backups",
)  # fmt: skip
What = Literal[
    "dataset", "artifact", "increment", "events", "cassandra", "kafka", "document", "model", "predictions", "unsearched"
]


@dataclass(frozen=True)
class Finding:
    """One place with something of the person.

    Attributes:
        what: What the place is.
        where: Its name, for people.
        count: Rows, messages or files.
        how: What was done, or why nothing could be.
        details: What else is known.
    """

    what: What
    where: str
    count: int
    how: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Erasure:
    """What an erasure found and did.

    Attributes:
        subject: The person's pseudonym.
        dry_run: Whether it only looked.
        requested: ISO time of the first request.
        finished: ISO time of this report.
        erased: What is gone, by this attempt or one before; with ``dry_run`` what would go.
        expiring: What goes by itself, and when.
        kept: What cannot be erased, and why.
        searched: Places that were looked through, with how much was there.
    """

    subject: str
    dry_run: bool
    requested: str = ""
    finished: str = ""
    erased: list[Finding] = field(default_factory=list)
    expiring: list[Finding] = field(default_factory=list)
    kept: list[Finding] = field(default_factory=list)
    searched: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether nothing is left that Edgewright knows of."""
        return not self.dry_run and not self.expiring and not self.kept

    def as_dict(self) -> dict[str, Any]:
        """Return it as a document."""
        return {"version": 1, **asdict(self), "not_searched": list(NOT_SEARCHED), "complete": self.complete}
