"""Giving up a mail that waits, with a report to its sender (RFC 3464).

The mail is held while the report is made, so that no processor sends it meanwhile.  A death in between leaves a held
mail; done again, the same report goes out again.
"""

from __future__ import annotations

from datetime import UTC, datetime

from zope.sendmail.errors import NotPossible
from zope.sendmail.interfaces import IMailQueue, IMailQueueAdmin
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import Action, State, after
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import put
from zope.sendmail.queue.diagnosis import GIVEN_UP
from zope.sendmail.reporting.dsn import notification
from zope.sendmail.system.hostname import host_name

#: So much of a message is looked at for its header.
_HEAD = 64 * 1024


def bounce(queue: IMailQueue, name: str, *, now: float) -> None:
    """Give up a mail; its sender gets a report about the recipients that were not served.

    :param now: seconds since the epoch.
    :raises NoSuchMail: if there is none of this name.
    :raises NotPossible: while it is being sent, and if it was given up already.
    :raises OSError: if the report cannot be written; the mail is held then.
    """
    admin = queue.admin
    mail = admin.show(name)
    after(mail.state, Action.BOUNCE, name)
    if mail.state is not State.HELD:
        _hold(admin, name)
    mail = admin.show(name)
    last = mail.history[-1] if mail.history else Record()
    if mail.envelope is not None and mail.envelope.sender:
        left = last.outstanding(mail.envelope.recipients)
        _report(queue, name, mail.envelope.sender, {each: _reply(last, each) for each in left}, now)
    admin.give_up(name, GIVEN_UP)


def _hold(admin: IMailQueueAdmin, name: str) -> None:
    """Hold a mail; what a dead processor left of it is written down first, and may have it held already."""
    try:
        admin.hold(name)
    except NotPossible:
        if admin.show(name).state is not State.HELD:
            raise


def _reply(last: Record, recipient: str) -> Reply:
    said = last.replies.get(recipient)
    words = f"{GIVEN_UP}; last: {said}" if said is not None else GIVEN_UP
    return Reply(Answer.REJECTED, words, said.code if said is not None else None, "5.0.0")


def _report(queue: IMailQueue, name: str, sender: str, replies: dict[str, Reply], now: float) -> None:
    if not replies:
        return
    host = host_name()
    with queue.admin.read(name) as stream:
        head = stream.read(_HEAD)
    text = notification(
        sender=sender,
        head=head,
        replies=replies,
        relay="",
        host=host,
        message_id=f"report.{name}.bounce@{host}",
        moment=datetime.fromtimestamp(now, UTC),
    )
    put(queue, [Envelope("", (sender,))], text)
