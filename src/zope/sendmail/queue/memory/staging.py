"""Mail in memory that waits for its transaction."""

from __future__ import annotations

from zope.interface import implementer

from zope.sendmail.errors import KeyTaken
from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece, joined
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.keys import id_of, in_use, patiently
from zope.sendmail.queue.memory.store import MemoryStore
from zope.sendmail.system.ownprocess import OwnProcess


@implementer(IStagedMail)
class MemoryStagedMail:
    """See `IStagedMail`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._mails: list[tuple[Envelope, bytes, str]] = []
        self._process = OwnProcess()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the mails."""
        return tuple(name for *_, name in self._mails)

    def __len__(self) -> int:
        return len(self._mails)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail`."""
        if envelope.terms.key:
            patiently(self._store.clock, lambda: self._take_key(envelope.terms, id_of(message)))
        name = self._store.new_name()
        self._mails.append((envelope, joined(message), name))
        self._store.staged += 1
        return name

    def rollback(self, count: int) -> None:
        """See `IStagedMail`."""
        while len(self._mails) > count:
            envelope, *_ = self._mails.pop()
            self._store.staged -= 1
            holder, *_ = self._store.keys.get(envelope.terms.key, (None,))
            if holder is self:
                del self._store.keys[envelope.terms.key]

    def _take_key(self, terms: Terms, identifier: str) -> None:
        """Let the next mail have its key.  Raises `KeyTaken`, `KeyInUse`."""
        with self._store.changed:
            holder, known, until = self._store.keys.get(terms.key, (None, "", 0.0))
            if holder is not None and holder is not self:
                raise in_use(terms.key)
            if holder is self or self._store.clock.time() < until:
                raise KeyTaken(terms.key, known)
            self._store.keys[terms.key] = self, identifier, terms.key_until

    def _keep_keys(self) -> None:
        """Let the mails keep their keys: they are committed."""
        with self._store.changed:
            for envelope, *_ in self._mails:
                if envelope.terms.key:
                    _, identifier, until = self._store.keys[envelope.terms.key]
                    self._store.keys[envelope.terms.key] = None, identifier, until

    def prepare(self) -> None:
        """See `IStagedMail`.  Memory needs no preparation."""
        self._process.check(len(self))

    def commit(self) -> None:
        """See `IStagedMail`."""
        self._process.check(len(self))
        mails = list(self._mails)
        self._keep_keys()
        self.rollback(0)
        self._store.reveal(mails)

    def abort(self) -> None:
        """See `IStagedMail`."""
        self.rollback(0)
