"""Which mails of a queue an operator means.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from zope.sendmail.errors import InvalidAddress
from zope.sendmail.lifecycle.relaystate import fault_says
from zope.sendmail.lifecycle.replypattern import pattern_of, pattern_of_words
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.verp import whom

if TYPE_CHECKING:
    from zope.sendmail.lifecycle.queuedmail import QueuedMail
    from zope.sendmail.lifecycle.record import Record
    from zope.sendmail.message.envelope import Envelope

#: What an operator writes for the null reverse-path (RFC 5321, 4.5.5).
NULL = "<>"


@dataclass(frozen=True, slots=True)
class Selection:
    """The arguments of `IMailQueue.mails`; what is left out matches everything."""

    states: frozenset[State] = frozenset()
    sender: str = ""
    recipient: str = ""
    reply: str = ""
    before: float = inf
    after: float = -inf
    relay: str = ""

    def may_match(self, since: float, *, rejected: bool) -> bool:
        """Return whether to read a mail of this age, which was or was not set aside."""
        if not self.after <= since < self.before:
            return False
        return not self.states or (State.REJECTED in self.states if rejected else self.states != {State.REJECTED})

    def may_be_in(self, state: State) -> bool:
        """Return whether a mail in this state may be meant; what is ready as its history says may be scheduled."""
        return not self.states or state in self.states or (state is State.READY and State.SCHEDULED in self.states)

    def may_be_of(self, envelope: Envelope | None) -> bool:
        """Return whether a mail with this envelope may be meant; None: it cannot be read."""
        return not (self.sender or self.recipient) or self._is_to(envelope)

    @property
    def leaves_out_untried(self) -> bool:
        """Whether it pays to ask which mails were tried: others, in no processor's hands, are not meant."""
        untried = {State.READY, State.SCHEDULED}
        return bool(self.states) and untried.isdisjoint(self.states) and self.states != {State.REJECTED}

    @property
    def anywhere(self) -> Selection:
        """The same without what only processors know about mail: relays and replies."""
        return replace(self, relay="", reply="")

    def matches(self, mail: QueuedMail) -> bool:
        """Return whether the mail is meant."""
        if not self.after <= mail.since < self.before or (self.states and mail.state not in self.states):
            return False
        if not self.may_be_of(mail.envelope):
            return False
        if self.relay and not self._is_at(mail):
            return False
        return not self.reply or _was_told(mail, self.reply)

    def _is_at(self, mail: QueuedMail) -> bool:
        """Return whether the mail is for this relay, or its last attempt went there."""
        wanted = self.relay.casefold()
        tried = {mail.history[-1].relay, mail.tried} - {""} if mail.history else set()
        blocked = {mail.blocked.address} if mail.blocked is not None else set()
        return wanted in {each.casefold() for each in (*mail.relays, *tried, *blocked)}

    def _is_to(self, envelope: Envelope | None) -> bool:
        """Return whether sender and recipient are those that are meant."""
        if envelope is None:
            return False
        recipients = (*envelope.recipients, *envelope.malformed)
        return _is_from(self.sender, envelope.sender or NULL) and _fits(self.recipient, recipients)


def _is_from(wanted: str, sender: str) -> bool:
    """Return whether `sender` is the one that is wanted, or was made of it for one recipient (`verp`)."""
    if _fits(wanted, [sender]):
        return True
    try:
        return bool(whom(sender.casefold(), wanted.casefold()))
    except InvalidAddress:
        return False


def _fits(wanted: str, addresses: Iterable[str]) -> bool:
    """Return whether one of `addresses` is the one that is wanted, or one of its domain (``@example.org``)."""
    wanted = wanted.casefold()
    if wanted.startswith("@"):
        return any(address.casefold().endswith(wanted) for address in addresses)
    return not wanted or any(address.casefold() == wanted for address in addresses)


def _was_told(mail: QueuedMail, text: str) -> bool:
    """Return whether a reply about the mail, or about its relay, has this code or these words."""
    return fault_says(mail.blocked, text) or (bool(mail.history) and _says(mail.history[-1], text))


def _says(record: Record, text: str) -> bool:
    """Return whether a reply has this code, or these words are in a reply or in the note, or are what many say."""
    if len(text) == 3 and text.isascii() and text.isdigit():
        return any(reply.code == int(text) for reply in record.replies.values())
    words = text.casefold()
    if words in record.note.casefold() or any(words in str(each).casefold() for each in record.replies.values()):
        return True
    patterns = (pattern_of_words(record.note), *(pattern_of(each) for each in record.replies.values()))
    return words in {each.casefold() for each in patterns}


def matching(given: Iterable[str], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names that each text may mean: an equal one, else those that begin, or end in a part, with it.

    Paths of files in the queue are understood as well.
    """
    wanted = {text: text.rpartition("/")[2].removeprefix(".rejected-").removeprefix(".sending-") for text in given}
    everything = list(dict.fromkeys(names))
    exact = set(wanted.values()).intersection(everything)
    found: dict[str, list[str]] = {text: [part] if part in exact else [] for text, part in wanted.items()}
    parts = {text: part for text, part in wanted.items() if part and part not in exact}
    for name in everything if parts else ():
        for text, part in parts.items():
            if name.startswith(part) or name.rpartition(".")[2].startswith(part):
                found[text].append(name)
    return {text: _best(wanted[text], candidates) for text, candidates in found.items()}


def _best(part: str, candidates: list[str]) -> list[str]:
    """Return the names whose whole last part was given, if there are any: that says more than a beginning."""
    whole = [name for name in candidates if name.rpartition(".")[2] == part]
    return whole if len(whole) == 1 else candidates
