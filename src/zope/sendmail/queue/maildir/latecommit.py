"""Mails that were committed while the disk refused to reveal them.

The next use of the queue in this process tries again: the delivery that staged them may be gone, and the processor has
a queue object of its own.  Mails that are not revealed before the process ends are in doubt, as the doctor says.
"""

from __future__ import annotations

from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.reporting import maillog
from zope.sendmail.system.forklock import ForkLock


class LateCommits:
    """The late mails of one directory, in the order of their commits.  Concurrency: any thread."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._mutex = ForkLock()
        self._waiting: list[IStagedMail] = []

    def add(self, staged: IStagedMail) -> None:
        """Add mails whose commit failed."""
        self._waiting.append(staged)

    def reveal(self) -> None:
        """Try again, up to the first one that is still refused.  Raises nothing because of the disk."""
        if self._waiting:
            with self._mutex:
                self._reveal()

    def _reveal(self) -> None:
        while self._waiting:
            staged = self._waiting.pop(0)
            try:
                staged.commit()
            except FileNotFoundError as error:  # it was removed
                self._waiting.remove(staged)
                maillog.finish_failed(f"mail for the queue {self._location}", error)
            except OSError:  # it has put itself back
                return


_late: dict[str, LateCommits] = {}


def late_commits_of(location: str) -> LateCommits:
    """Return the late mails of this directory."""
    return _late.setdefault(location, LateCommits(location))


def forget_after_fork() -> None:
    """Forget them in a forked child: the parent reveals what is its own."""
    _late.clear()
