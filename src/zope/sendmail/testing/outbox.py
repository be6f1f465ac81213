"""What a program under test has sent, without a relay, a disk or a thread.

::

    outbox = Outbox()
    provideUtility(outbox.delivery(), IMailDelivery)     # an application of Zope
    application = make_application(sender=outbox.sender()) # any other

    order_something(application)
    mail = outbox.assert_sent(to="jane@example.org", subject="Your order")

Mail is in it as soon as its transaction has committed, in the order of the commits; aborted mail never is.
"""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.message.address import parse_recipient
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.sender import MailWriter


@dataclass(frozen=True)
class OutgoingMail:
    """One mail in an `Outbox`."""

    #: The envelope sender; empty for the null reverse-path.
    sender: str
    #: The envelope's recipients, those of Bcc among them.
    recipients: tuple[str, ...]
    #: As the relay would get it.
    data: bytes
    #: Without angle brackets.
    message_id: str

    @property
    def message(self) -> EmailMessage:
        """The message, parsed anew each time."""
        return email.message_from_bytes(self.data, policy=email.policy.default)

    @property
    def subject(self) -> str:
        """The subject as people read it."""
        return str(self.message["Subject"] or "")

    @property
    def text(self) -> str:
        """The text that a reader of plain mail sees; that of HTML if there is no other, the empty string if none."""
        body = self.message.get_body(("plain", "html"))
        return "" if body is None else str(body.get_content())

    def __str__(self) -> str:
        return f"{self.subject!r} from {self.sender or '<>'} to {', '.join(self.recipients)}"


class Outbox:
    """The mail that waits in a queue.

    :param queue: an `IMailQueue` on which no processor works; None: one of its own, in memory.

    Concurrency: any thread.
    """

    def __init__(self, queue: Any = None) -> None:
        self.queue = MemoryQueue() if queue is None else queue

    def delivery(self, *, transaction_manager: Any = None) -> QueuedMailDelivery:
        """Return an `IMailDelivery` whose mail gets here.

        :param transaction_manager: the one that it follows; None: the thread's.
        """
        delivery = QueuedMailDelivery("memory:", transaction_manager=transaction_manager)
        delivery.use(self.queue)
        return delivery

    def sender(self, *, transaction_manager: Any = None, **options: Any) -> MailWriter:
        """Return a `MailWriter`, for programs that take a ``MailSender``, whose mail gets here.

        :param transaction_manager: the one that it follows; None: mail is here when ``send()`` returns.
        :param options: those of `MailWriter`.
        """
        return MailWriter("memory:", queue=self.queue, transaction_manager=transaction_manager, **options)

    @property
    def mails(self) -> list[OutgoingMail]:
        """The mail, oldest first."""
        return [self._mail(name) for name in self.queue.admin.names()]

    def __len__(self) -> int:
        return len(self.mails)

    def clear(self) -> None:
        """Remove all mail."""
        for name in list(self.queue.admin.names()):
            self.queue.admin.remove(name)

    def assert_sent(
        self,
        *,
        to: str | None = None,
        sender: str | None = None,
        subject: str | None = None,
        text: str | None = None,
        count: int = 1,
    ) -> OutgoingMail:
        """Return the mail that fits all that is given; of several the last.

        :param to: the address of one of the recipients, also of Bcc.
        :param sender: the envelope sender.
        :param subject: a part of the subject.
        :param text: a part of the text.
        :param count: how many mails have to fit; at least one.
        :raises AssertionError: more mails fit, or fewer; it says what is there.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        mails = self.mails
        fitting = [mail for mail in mails if _fits(mail, to, sender, subject, text)]
        if len(fitting) != max(count, 1):
            wanted = {"to": to, "sender": sender, "subject": subject, "text": text}
            criteria = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
            raise AssertionError(
                f"{len(fitting)} mails fit {criteria or 'anything'}, not {max(count, 1)}; sent were {_listed(mails)}"
            )
        return fitting[-1]

    def assert_nothing_sent(self) -> None:
        """Raise `AssertionError` if there is any mail."""
        __tracebackhide__ = True
        if mails := self.mails:
            raise AssertionError(f"mail was sent: {_listed(mails)}")

    def _mail(self, name: str) -> OutgoingMail:
        shown = self.queue.admin.show(name)
        assert shown.envelope is not None
        with self.queue.admin.read(name) as message:
            data = message.read()
        return OutgoingMail(shown.envelope.sender, tuple(shown.envelope.recipients), data, shown.message_id)


def _fits(mail: OutgoingMail, to: str | None, sender: str | None, subject: str | None, text: str | None) -> bool:
    """Say whether a mail has all that is not None."""
    return (
        (to is None or parse_recipient(to).lower() in (each.lower() for each in mail.recipients))
        and (sender is None or sender.lower() == mail.sender.lower())
        and (subject is None or subject in mail.subject)
        and (text is None or text in mail.text)
    )


def _listed(mails: list[OutgoingMail]) -> str:
    return "; ".join(map(str, mails)) if mails else "none"
