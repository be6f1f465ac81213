"""What an operator can do to mails and relays: the verbs, in words, and how each is done.

They are those of ``zope-sendmail queue``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from zope.sendmail.errors import InvalidRelay, MailError
from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.lifecycle.relaystate import DEFAULT, RelayBoard
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue.nondelivery import bounce
from zope.sendmail.system.clock import Clock

#: So many mails are changed in one request; the page offers to go on.
AT_ONCE = 2000

#: Seconds for which one request changes mails.
FOR_SECONDS = 20.0

#: So many errors are shown.
_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing to do, in words."""

    name: str
    title: str
    #: Follows "3 mails": what they are afterwards.
    done: str
    #: What it means, for the page that asks.
    text: str
    #: Whether the mails are gone for good.
    final: bool = False


VERBS = {
    verb.name: verb
    for verb in (
        Verb("retry", "Try now", "will be tried now", "They are tried now, whatever the schedule says."),
        Verb("hold", "Hold", "held", "They are not tried until they are released."),
        Verb("release", "Release", "released", "Their hold ends."),
        Verb("reroute", "Reroute", "rerouted", "Another relay gets them, now."),
        Verb("bounce", "Give up", "given up", "They are given up, and their senders get a report.", final=True),
        Verb("remove", "Remove", "removed", "They are deleted for good; no sender gets a report.", final=True),
    )
}

#: Done to a relay: it is tried, and so is the mail that waits for its next attempt there.
FLUSH = Verb("flush", "Try the relay now", "will be tried now", "The relay is tried now, and with it the mails.")


@dataclass(slots=True)
class Result:
    """What came of it."""

    done: int = 0
    #: What could not be done, in words: the first ones, and how many.
    errors: list[str] = field(default_factory=list)
    failed: int = 0
    #: Whether there may be more to do, and the last mail that was tried.
    more: bool = False
    last: str = ""

    def fail(self, error: Exception) -> None:
        """Note what could not be done."""
        self.failed += 1
        if len(self.errors) < _ERRORS:
            self.errors.append(str(error))


def act(queue: IMailQueue, verb: Verb, names: Iterable[str], clock: Clock, to: str = "") -> Result:
    """Do something to each mail of these names, for a while.

    :param to: for ``reroute``: the name of a relay; ``default``: as the routes say
    :raises InvalidRelay: if there is no such relay
    """
    result, until = Result(), clock.monotonic() + FOR_SECONDS
    do = _doing(queue, verb, clock, to)
    for count, name in enumerate(names):
        if count >= AT_ONCE or clock.monotonic() >= until:
            result.more = True
            break
        result.last = name
        try:
            do(name)
            result.done += 1
        except (MailError, OSError) as error:
            result.fail(error)
    return result


def _doing(queue: IMailQueue, verb: Verb, clock: Clock, to: str) -> Callable[[str], None]:
    admin = queue.admin
    if verb.name == "reroute":
        return partial(admin.reroute, relay=_target(queue, to))
    if verb.name == "bounce":
        return partial(bounce, queue, now=clock.time())
    if verb.name in ("retry", FLUSH.name):
        return partial(_retry, queue)
    simple: Callable[[str], None] = getattr(admin, verb.name)
    return simple


def _retry(queue: IMailQueue, name: str) -> None:
    """Try a mail now; where it waits for a relay, that is tried."""
    admin = queue.admin
    mail = admin.show(name)
    if mail.blocked is not None:
        admin.probe(mail.blocked.name)
    if mail.blocked is None or mail.state is not State.READY:
        admin.retry(name)


def _target(queue: IMailQueue, to: str) -> RelayName | None:
    if to in ("", DEFAULT):
        return None
    board = RelayBoard(queue.admin.processors())
    if not board.processors:
        raise InvalidRelay("no processor has told which relays there are; start one, then reroute")
    return board.processors[0].routes.named(to)
