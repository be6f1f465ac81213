"""Every contract and every error of the package.

Each implementation keeps the *Guarantee* lines of its contract, and callers may rely on them.  Durations are seconds as
float, times are seconds since the epoch (UTC), and addresses are ``str`` in the form ``local@domain``, unless stated
otherwise.  An error says whether it is permanent; an unknown error counts as temporary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from email.message import Message
from math import inf
from smtplib import SMTPRecipientsRefused
from typing import TYPE_CHECKING, BinaryIO, Unpack

from zope.interface import Attribute, Interface, classImplements
from zope.schema import Bool, Float, Int, Password, TextLine

# The errors are defined below this module, so that values can raise them; their home for callers is here.
from zope.sendmail.errors import (
    InvalidAddress as InvalidAddress,
    InvalidLocation as InvalidLocation,
    InvalidMail as InvalidMail,
    InvalidMessage as InvalidMessage,
    InvalidRecipient as InvalidRecipient,
    InvalidRelay as InvalidRelay,
    InvalidSender as InvalidSender,
    InvalidSettings as InvalidSettings,
    InvalidTerms as InvalidTerms,
    KeyInUse as KeyInUse,
    KeyTaken as KeyTaken,
    LeaseLost as LeaseLost,
    MailError as MailError,
    MalformedEnvelope as MalformedEnvelope,
    NoSuchMail as NoSuchMail,
    NotPossible as NotPossible,
    QueueError as QueueError,
    QueueNotSafe as QueueNotSafe,
    QueueNotWritable as QueueNotWritable,
    QueueTrouble as QueueTrouble,
    RelayError as RelayError,
)
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.message.terms import Priority, TermOptions

if TYPE_CHECKING:
    from zope.sendmail.lifecycle.finding import Finding
    from zope.sendmail.lifecycle.mailstatus import MailStatus
    from zope.sendmail.lifecycle.outcome import Outcome
    from zope.sendmail.lifecycle.record import Record
    from zope.sendmail.lifecycle.relaystate import ProcessorState
    from zope.sendmail.lifecycle.states import State
    from zope.sendmail.lifecycle.suppression import Suppression
    from zope.sendmail.message.envelope import Envelope
    from zope.sendmail.message.pieces import Piece
    from zope.sendmail.message.relayname import RelayName

#: What applications may pass as a message: the text with its headers, as str, bytes or a message object.
type_of_message = str | bytes | Message

#: An envelope sender.
type_of_sender = str | bytes

#: Envelope recipients: a single one, or a series.
type_of_recipients = str | bytes | Sequence[str | bytes]

#: A relay: ``"host:port"``, or a pair of both; where mailers have names, the name of one.
type_of_relay = str | tuple[str, int]


class SendOptions(TermOptions, total=False):
    """The keywords of `IMailDelivery.send`, which says what each of them means."""

    relay: type_of_relay | None
    verp: bool


# --- errors ---------------------------------------------------------------------------------------------------


class MailRefused(MailError, SMTPRecipientsRefused):
    """The relay refused the sender, a recipient or the content of a mail; ``outcome`` says which and why.

    ``recipients`` maps each recipient that does not get the mail to the reply of the relay, a pair of code and text as
    in smtplib.  Direct delivery raises it in the vote, so that the transaction aborts.
    """

    def __init__(self, text: str, outcome: Outcome, *, permanent: bool) -> None:
        OSError.__init__(self, text)
        self.outcome = outcome
        self.permanent = permanent
        self.recipients = {
            recipient: reply.as_pair()
            for recipient, reply in outcome.replies.items()
            if reply.answer is not Answer.ACCEPTED
        }


# --- the way in -----------------------------------------------------------------------------------------------


class IMailDelivery(Interface):
    """Sends mail when the transaction commits."""

    def send(
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        *,
        relay: type_of_relay | None = None,
        verp: bool = False,
        not_before: datetime | timedelta | None = None,
        expires: datetime | timedelta | None = None,
        priority: Priority | str | None = None,
        key: str | None = None,
    ) -> str:
        """Hand over one mail.

        :param fromaddr: the envelope sender, where bounces go; ``""`` is the null reverse-path (RFC 5321, 4.5.5).
        :param toaddrs: the envelope recipients, a single ``str`` or a series.  Display names are dropped, and so are
            empty entries if there are others.
        :param message: the message with its header.  A missing Message-Id or Date is added in front of it, and ``Bcc``
            is removed.  Text beyond ASCII in a ``str`` or a message object is encoded as MIME; bytes are not changed.
        :param relay: the relay that gets the mail, if the delivery allows it: the name of a mailer, ``"host:port"``, or
            a pair of both.  None: the routes of the delivery decide.
        :param verp: whether each recipient gets a copy whose envelope sender names it, so that bounces say which
            recipient they are about; see `zope.sendmail.message.verp`.
        :param not_before: when the mail leaves, in whole seconds: an aware datetime, or a timedelta from now on.  A
            time in the past means now; more than ten years are refused.  None: the default of the delivery, usually
            now.
        :param expires: when the mail is given up if it has not left for all recipients, in the same forms; later than
            now and than `not_before`.  None: the default of the delivery, usually the lifetime of the queue's schedule.
        :param priority: ``high``, ``normal`` or ``low``: which mail of a queue goes first.  None: the delivery's
            default.
        :param key: one to 200 printable characters.  Of several mails of a queue with the same key, only the first one
            is sent.  None: no key.
        :returns: the Message-Id without angle brackets; if there is a mail with the same key already, that of this
            mail.
        :raises InvalidMail: an argument is invalid, and nothing was written: `InvalidSender`, `InvalidRecipient`,
            `InvalidMessage`, `InvalidRelay` or `InvalidTerms`, each of them an ``smtplib.SMTPException``.
        :raises QueueError: the disk of the queue refuses, an `OSError`; the text says what to do.
        :raises KeyInUse: another transaction has sent a mail with this key, and has not ended within two seconds.  This
            is a `transaction.interfaces.TransientError`, so frameworks that retry transactions retry this one.  A queue
            in a database may raise it in the vote instead.

        Guarantee: the mail leaves if, and only if, the current transaction commits.

        Guarantee: of all mails of a queue with the same key, sent by any thread and any process until the key expires
        (a week after the first one may have left, unless the delivery sets another time), only one leaves.  If the
        transaction of that mail aborts, or is rolled back to a savepoint before it, the key is free again.

        Concurrency: any thread.
        """


class IDefaultMailDelivery(IMailDelivery):
    """The default delivery of the current site, which ``getUtility(IMailDelivery)`` returns.

    That is the delivery registered without a name, else the only one registered, else the one named "Mail".  It is
    looked up at each use, and all other attributes are those of that delivery.

    If there are several deliveries and none is called "Mail", every use raises
    ``zope.interface.interfaces.ComponentLookupError``, which names them.
    """


class IDirectMailDelivery(IMailDelivery):
    """Talks to the relay while the transaction commits.

    The vote connects, with TLS and login, and fails with a `RelayError` if the relay cannot be used.  Each mail is sent
    after the commit.  If the relay refuses recipients then, the log and events report them, and the others get the
    mail.
    """

    mailer = Attribute("The `IMailer` that talks to the relay.")
    onRefused = Attribute(
        "What happens with refused recipients.  ``tell``: they are reported.  ``abort``: the vote asks the relay about "
        "every recipient, and raises `MailRefused` if it refuses one."
    )
    queue = Attribute(
        "A queued delivery, or the name of one, that gets mail that the relay defers or that could not be sent; None: "
        "such mail is reported and lost.  With a queue, the vote does not fail if the relay cannot be used."
    )


class IQueuedMailDelivery(IMailDelivery):
    """Puts mail into a queue while the transaction commits; a processor sends it."""

    queuePath = TextLine(title="Queue path", description="Absolute path of the Maildir.", readonly=True)

    def send_now(
        fromaddr: type_of_sender,
        toaddrs: type_of_recipients,
        message: type_of_message,
        **options: Unpack[SendOptions],
    ) -> str:
        """Hand over one mail as `IMailDelivery.send` does, but outside any transaction.

        :param options: the keywords of `IMailDelivery.send`.
        :raises InvalidMail: as `IMailDelivery.send`.
        :raises QueueError: as `IMailDelivery.send`; the mail will not be sent later.

        Guarantee: when this returns, the mail is committed to the queue; an abort does not remove it.
        """

    def status(message_id: str) -> MailStatus:
        """Return what became of a mail; see `IMailQueue.status`.

        A mail whose transaction has not committed is unknown.

        :param message_id: what `IMailDelivery.send` returned.
        """


# --- where mail waits -----------------------------------------------------------------------------------------


class IStagedMail(Interface):
    """The mails of one transaction in a queue, before processors can see them.

    They belong to the process that staged them.  In a forked child, `rollback` and `abort` leave them alone, and
    `prepare` and `commit` raise `QueueError`.

    Concurrency: one thread at a time.
    """

    def __len__() -> int:
        """Return how many mails there are."""

    def add(envelope: Envelope, *message: Piece) -> str:
        """Write one more mail.

        :param message: the message in pieces, as ``zope.sendmail.message.pieces.octets`` takes them.
        :returns: the name of the mail in its queue.
        :raises OSError: the disk refuses; the earlier mails are not affected.
        :raises KeyTaken: a committed mail, or one of this group, has the key of the envelope; nothing was written.
        :raises KeyInUse: a mail of another transaction that has not ended has the key; a queue that cannot know this
            yet raises it in `prepare`.
        """

    def rollback(count: int) -> None:
        """Keep the first `count` mails; remove the others."""

    def prepare() -> None:
        """Make everything durable, and prove that `commit` will be possible.  This is the only step that may fail.

        `abort` is possible afterwards.  If the mail is part of the caller's own database transaction, there is nothing
        to do here or in `commit`.

        :raises OSError: if the disk refuses; a `QueueError` says what to do.

        Guarantee: once this has returned, `commit` has all the space and permissions it needs, and only an
        input/output error can make it fail.
        """

    def commit() -> None:
        """Reveal all mails, in order.

        Guarantee: all mails are revealed or none, even if the process dies at any point; they are durable when this
        returns; it fails only if the disk does.
        """

    def abort() -> None:
        """Remove everything.  Harmless when repeated, and after `commit`."""


class IJob(Interface):
    """A mail to be sent in a stream; every lease is one."""

    envelope = Attribute("`Envelope`: the sender, and the recipients to be served.")

    def open() -> BinaryIO:
        """Return the message as a seekable stream at its beginning; the lease closes it."""

    def intend() -> None:
        """Note that the last byte is about to be sent; an exception stops the transfer."""


class IOrdinaryJob(IJob):
    """A mail whose text was read already.  Optional; a session may send such a mail on a shorter path."""

    text = Attribute("The message as bytes; None if it has to be opened")


class IJobSource(Interface):
    """Where a session takes the mails of a stream from.

    It may have a method ``let_go()``.  A session with the attribute ``lets_go`` calls it before a mail that may take
    long: the source releases the mails that it has reserved for this session, and does the work that it has postponed.
    It may also have a method ``meanwhile()``.  Such a session calls it after it has sent a mail whose reply should come
    soon: the source does its remaining work while the relay works.  Neither method raises anything.

    Concurrency: called in the thread of the session only.
    """

    def next() -> IJob | None:
        """Return the mail to be sent next, or None if there is none for this session now.

        The session may call this while the relay has the previous mail, and may call it again after None.
        """


class ILease(IJob):
    """The right to work on one message, for as long as its owner lives."""

    name = TextLine(title="Name of the message in its queue")
    envelope = Attribute("`Envelope`: the sender, and the recipients that are still to be served.")
    record = Attribute("`Record`: the last one of the message; a new one if it was never tried.")
    message_id = TextLine(title="Message-Id without brackets, or the empty string")
    written = Attribute("When the mail was written, seconds since the epoch; None where that is not known")
    size = Attribute("Bytes of the message; None where that is not known.  Must not be read after the lease has ended.")
    problem = TextLine(title="Why no relay can be asked about the message (its file is damaged), or the empty string")
    inherited = Attribute(
        "`Outcome` that a dead owner of the lease left, or None.  It is unknown, and already recorded in `record`; or "
        "it is accepted: then the state of `record` is sent, and it has to be settled as it is"
    )

    def open() -> BinaryIO:
        """Return the message without envelope lines, as a stream at its beginning.  May be called again."""

    def told() -> None:
        """Note that the unknown outcome in `inherited` was reported; until then, each next owner inherits it."""

    def intend() -> None:
        """Note that the last byte is about to be sent.

        :raises LeaseLost: if it must not be sent, because another processor has the message.
        """

    def settle(record: Record) -> None:
        """Record how the attempt ended, and end the lease.

        A queue may record that a mail was sent a fraction of a second later, together with the next call of the same
        processor (`ILease.intend` of another lease, `IMailQueue.claim`, `IMailQueue.wait` or `IMailQueue.close`).  If
        the processor dies in between, the outcome is *unknown*, as if it had died before this call.
        """

    def release() -> None:
        """End the lease as if nothing had been tried."""

    def park(relay: str, patience: float = inf) -> None:
        """End the lease as `release` does; this queue object does not claim the message before it is unparked.

        See `IMailQueue.unpark`.

        :param relay: the relay for which the message waits.
        :param patience: seconds after which it may be claimed in any case.
        """

    def give_way(relay: str, patience: float = inf) -> bool:
        """Park this message and unpark another one in its place, if one that is parked for `relay` goes before it.

        An older message of the same priority goes before it, and so does one of a higher priority, unless this message
        was itself unparked because its turn had come.

        :returns: whether there was one.  If not, the lease goes on.
        """


class IFirstAttempts(Interface):
    """The right of the process that commits mails to make the first attempt, as direct delivery does.

    Concurrency: one thread at a time.
    """

    def commit(staged: IStagedMail) -> None:
        """Commit as `IStagedMail.commit` does, and keep the mails from processors.

        They get them at `leave`, at `close`, or when this process ends.

        A mail for which this cannot be ensured is left to the processors.

        :raises OSError: as `IStagedMail.commit`.

        Guarantee: if this process dies from now on, these mails are treated as those of a dead processor.
        """

    def claim(name: str) -> ILease | None:
        """Return the lease on a mail that was committed here; None: it is left to the processors."""

    def leave(name: str) -> None:
        """Leave a mail that was committed here and not claimed to the processors; harmless for any other mail."""

    def close() -> None:
        """Leave all remaining mails to the processors; open leases end."""


class IOrdinaryLease(ILease, IOrdinaryJob):
    """A lease on an ordinary message: it was never tried, and is small, so its text is all that has to be known.

    Optional: a queue need not return such leases, and a processor may treat them like any `ILease`.
    """

    text = Attribute("The message as bytes; None if the message is not ordinary")

    def accepted() -> None:
        """Note that the relay has accepted the message for all recipients; then a crash does not make it unknown.

        A queue may write that down some thousandths of a second later.  `settle_sent` has to follow.
        """

    def settle_sent(together: Sequence[tuple[ILease, Outcome, Record]]) -> None:
        """Settle several `accepted` leases of this queue, this one among them, as `ILease.settle` does.

        The messages are removed soon, at the latest before `IMailQueue.wait` or `IMailQueue.close` returns.

        :param together: each lease with the outcome of its attempt and the resulting record.
        """


class IForeseenLease(IOrdinaryLease):
    """An ordinary lease of a queue whose `ILease.intend` takes a round trip, which can begin ahead of time.

    Optional, as `IOrdinaryLease` is.
    """

    def soon() -> None:
        """Note that the message will probably be sent within a few thousandths of a second.

        Does not wait, and raises nothing.  If the process dies from now on, the outcome may be unknown, as after
        `ILease.intend`.
        """


class IQueuedMail(Interface):
    """One mail as an operator sees it."""

    name = TextLine(title="Name")
    state = Attribute("`State`")
    envelope = Attribute("`Envelope` with all recipients, or None if the file has none that can be read")
    message_id = TextLine(title="Message-Id without brackets, or the empty string")
    since = Float(title="When it was written, seconds since the epoch")
    size = Int(title="Bytes")
    due = Float(title="When it is tried next, seconds since the epoch; 0.0 if that is not known")
    history = Attribute("Sequence of `Record`, oldest first")
    relays = Attribute("Names of the relays for its remaining recipients; empty if no processor has reported them")
    blocked = Attribute("``RelayState`` of the unusable relay for which it waits; else None")
    locked_until = Attribute("Until when a lock of 7.3 or older may block it, seconds since the epoch; 0.0: no lock")
    tried = Attribute("Name of the relay of its last attempt; empty if no processor has reported it")


classImplements(QueuedMail, IQueuedMail)


class IRankedQueue(Interface):
    """A queue that tells whether more urgent mail is due.  Optional; every queue of this package does."""

    def has_before(priority: Priority) -> bool:
        """Return whether mail of a higher priority is known to be due.

        It is called between two mails and must be fast, so recent commits of other processes may not be known yet.
        """


class IMailQueue(Interface):
    """A queue, where mail waits between commit and relay, as deliveries and processors use it.

    See `IMailQueueAdmin` for what operators do.  Concurrency: everything may be called from any thread and any process
    at any time, also while processors run.
    """

    location = TextLine(title="The name of the queue for people: a path, or a URL without its password")
    schedule = Attribute("`Schedule`: when mail of this queue is tried again")
    admin = Attribute("`IMailQueueAdmin` of this queue; nothing is opened before it is used")
    suppressions = Attribute(
        "`ISuppressions` of this queue: which addresses get no mail; nothing is opened before it is used"
    )

    def stage() -> IStagedMail:
        """Return an empty group for the mails of one transaction.

        :raises QueueError: if the queue cannot take mail now; the text names the cure.
        """

    def first_attempts() -> IFirstAttempts:
        """Return what lets a process send the mails that it commits before a processor does."""

    def status(message_id: str) -> MailStatus:
        """Return what became of the mail with this Message-Id: queued, deferred, sent, rejected, ...

        :param message_id: without angle brackets.
        :returns: a status; mail that has left the queue is remembered for a week, unless the queue is set otherwise.
        """

    def claim(limit: int = 1, *, ahead: int = 0) -> Sequence[ILease]:
        """Lease messages that are due, oldest first within each priority.

        High priority goes first, but no mail starves: while there is enough of each, one message in nine is low, and
        one in five of the others is normal.  A message is not due before the time that its sender set.

        While there is work, a queue may return fewer messages than are due, and may not know yet what was committed in
        the last 0.02 seconds.  An empty list means that nothing is due.

        :param limit: the most leases to return.
        :param ahead: how many more messages the caller will probably claim soon.  A queue for which each claim is a
            round trip may reserve them; no other processor gets them before this one claims, waits, closes or dies.
        :returns: leases; an empty list if nothing is due.
        :raises QueueTrouble: if no message of this queue can be worked on now.  All messages stay due.

        Guarantee: no message is leased twice at a time.  A lease ends by itself within five seconds of its owner's
        death, or within two minutes if the owner was on another host.  If the owner had called `ILease.intend`, the
        history records an *unknown* outcome.
        """

    def claim_expired(limit: int = 100) -> Sequence[ILease]:
        """Lease messages that have expired (`Terms.expires`), whether or not they are due.

        Held messages are left out; they wait for an operator.

        :param limit: the most leases to return.
        :returns: leases, as those of `claim`; an empty list if no such message is known.
        """

    def next_expiry() -> float | None:
        """Return the seconds until the next known message expires (0.0: now), or None if none is known."""

    def wait(timeout: float) -> None:
        """Return when there may be something to claim, after `wake`, or after `timeout` seconds.

        Guarantee: commits are noticed within a fraction of a second, for a directory those of all processes on this
        host, for a database those on every host.
        """

    def wake() -> None:
        """Let `wait` return.  May be called from a signal handler."""

    def next_due() -> float | None:
        """Return the seconds until the next known message is due (0.0: now), or None if none is known."""

    def unpark(relay: str, limit: int) -> int:
        """Let messages that were parked for `relay` be claimed again, oldest first.

        Only this object knows what is parked: for other processors the messages are due.

        :param limit: the most messages to unpark.
        :returns: how many were unparked.
        """

    def parked() -> Collection[str]:
        """Return the names of the relays for which messages are parked."""

    def report(state: ProcessorState) -> None:
        """Publish the state of this queue object's processor for operators, in place of its last one.

        This is best effort: if the disk refuses, it is ignored, and nothing depends on it.  The states of relays that
        ended processors have reported are taken over, so that they outlive their processor.
        """

    def probe_asked(relay: str) -> float:
        """Return when an operator last asked for this relay to be tried although it is paused.

        :returns: seconds since the epoch; 0.0 for never.  A number that differs from the last one is a new request.
        """

    def take_turns(relay: str, rate: float, count: int) -> float:
        """Take the next turns to send to a relay, whose rate all processors of the queue share.

        :param relay: the name of the relay, the same for all processors.
        :param rate: mails a second that all of them may send together.
        :param count: the number of turns, each ``1 / rate`` seconds after the one before.
        :returns: the seconds until the first of them.
        :raises QueueTrouble: if the turns cannot be recorded.

        Guarantee: no turn is given twice, except after a crash of the database.  Turns that are not taken are lost.
        """

    def close() -> None:
        """Release everything; open leases end."""


class ISuppressions(Interface):
    """The addresses that get no mail of one queue, and why: its suppression list.

    It is checked when mail is handed over and when mail is claimed; a recipient on the list is rejected with the reason
    of its entry.  Addresses are compared without regard to case or to the form of an international domain.
    Operators, refusals of relays, bounces and one-click unsubscribe extend it with `add`.

    Concurrency: as `IMailQueue`.
    """

    def among(recipients: Iterable[str]) -> Mapping[str, Suppression]:
        """Return the recipients that are suppressed now, each with its entry.

        :param recipients: addresses, as an envelope has them.

        Guarantee: only memory is read; changes by other processes are known after a second at most.
        """

    def add(*entries: Suppression) -> None:
        """Add entries durably; each replaces an entry with the same address.

        :param entries: made with ``Suppression.of``, which refuses invalid addresses.
        :raises OSError: the queue refuses; nothing was added.
        """

    def remove(*addresses: str) -> int:
        """Remove addresses durably.

        :param addresses: as people write them.
        :returns: how many of them were on the list.
        :raises InvalidRecipient: one of them is not an address; nothing was removed.
        :raises OSError: the queue refuses.
        """

    def entries() -> Sequence[Suppression]:
        """Return the entries that have not expired, sorted by address."""


class IMailQueueAdmin(Interface):
    """What operators see and do in one queue, while processors work on it.

    Concurrency: as `IMailQueue`.
    """

    def count() -> Mapping[State, int]:
        """Return how many messages there are in each state; states without messages are left out."""

    def oldest() -> float | None:
        """Return when the oldest message still to be sent was written (seconds since the epoch), or None."""

    def mails(
        states: Iterable[State] = (),
        sender: str = "",
        recipient: str = "",
        *,
        reply: str = "",
        before: float = inf,
        after: float = -inf,
        relay: str = "",
    ) -> Iterator[QueuedMail]:
        """Yield the mails that match all arguments, oldest first.

        Their ``history`` may hold the last record only.

        :param states: the states that match; empty: all but staged mail, which has to be named here.
        :param sender: the envelope sender; ``<>`` is the null reverse-path.
        :param recipient: one of the recipients; ``@example.org`` matches all addresses there.  Case does not matter.
        :param reply: the last reply or note, or why the relay cannot be used: a code such as ``450``, a part of the
            text, or the whole text with ``*`` as the doctor shows it.
        :param before: written before this time, in seconds since the epoch.
        :param after: written at this time or later.
        :param relay: the name or address of the relay that will get the mail, or that was asked last.

        Guarantee: one mail is read at a time, and an unreadable file does not end the iteration.
        """

    def names() -> Iterator[str]:
        """Yield the names of all mails that are not staged, oldest first, without reading any."""

    def these(names: Iterable[str]) -> Iterator[QueuedMail]:
        """Yield the mails with these names that still exist, in this order.

        Their ``history`` may hold the last record only.

        Guarantee: a mail that is gone is left out, and does not make the others be read.
        """

    def examine() -> Iterator[Finding]:
        """Yield what is stuck or unusual in the queue, with the reason and the cure in plain words.

        Each held or rejected mail is a finding with its name and the reason.  Severity *problem* means that an operator
        has to act.  Guarantee: nothing is changed, and no processor is delayed.
        """

    def unusable() -> Iterator[Finding]:
        """Yield findings about files among the mails that cannot be sent and need an operator.

        These are files that cannot be read or that no processor takes, but not rejected mail.  Guarantee: costs no more
        than reading the mails that are ready.
        """

    def in_doubt() -> Iterator[Finding]:
        """Yield a finding for each staged mail or group that no living process can commit any more.

        `examine` yields them as well; this reads only the names of staged mail.
        """

    def show(name: str) -> QueuedMail:
        """Return one mail with its whole history.

        :raises NoSuchMail: if there is no mail of this name.
        """

    def read(name: str) -> BinaryIO:
        """Return the message of one mail, without envelope lines.

        :raises NoSuchMail: if there is no mail of this name.
        """

    def hold(name: str) -> None:
        """Do not try this mail until `release`.

        :raises NoSuchMail: if there is no mail of this name.
        :raises NotPossible: while it is being sent.
        """

    def release(name: str) -> None:
        """End a hold, or reveal a staged mail whose transaction, as the caller knows, has committed.

        A lock of an older release is removed; the caller has to know that its process is dead.

        :raises NoSuchMail: if there is no mail of this name.
        :raises NotPossible: if the mail is not held, or its transaction may still end by itself.
        """

    def retry(name: str) -> None:
        """Try the mail now, whatever the schedule says.

        A rejected mail is tried for its rejected recipients, with a new lifetime.

        :raises NoSuchMail: if there is no mail of this name.
        :raises NotPossible: while it is being sent.
        """

    def remove(name: str) -> None:
        """Delete the mail for good.

        :raises NoSuchMail: if there is no mail of this name.
        :raises NotPossible: while it is being sent, or while it is staged and its transaction may still commit.
        """

    def reroute(name: str, relay: RelayName | None) -> None:
        """Give the mail to another relay; it is due at once, and its attempts still count.

        :param relay: one that the processor of the queue knows; None: the routes decide.
        :raises NoSuchMail: if there is no mail of this name.
        :raises NotPossible: while it is being sent, or if its file cannot be rewritten.
        """

    def give_up(name: str, why: str) -> None:
        """Reject the remaining recipients, without a report.  See ``zope.sendmail.queue.nondelivery``.

        :param why: the reason, for people.
        :raises NoSuchMail: if there is no mail of this name.
        :raises NotPossible: while it is being sent.
        """

    def processors() -> Sequence[ProcessorState]:
        """Return the states that the processors of this queue have reported, each with whether it is alive."""

    def probe(relay: str) -> None:
        """Ask all processors of this queue to try a relay now, although it is paused.

        :raises OSError: if the request cannot be recorded.
        """

    def forget_keys() -> int:
        """Forget the keys that have expired; processors do this once an hour.

        :returns: how many were forgotten.
        """

    def expire_rejected(before: float) -> int:
        """Remove the mails that were rejected before this time, in seconds since the epoch.

        :returns: how many were removed.
        """


class IMailQueueProcessor(Interface):
    """Drains one queue through one mailer until it is stopped."""

    queuePath = TextLine(title="Queue path", description="Absolute path of the queue directory.", readonly=True)
    pollingInterval = Int(
        title="Polling interval",
        description="Milliseconds between two looks at the queue when nothing wakes the processor.",
        default=3000,
    )
    mailer = Attribute("The `IMailer` that talks to the relay.")


# --- the way out ----------------------------------------------------------------------------------------------


class IMailer(Interface):
    """Talks to a relay.  Only `send` is required; the other two methods are called if they exist."""

    def send(fromaddr: str, toaddrs: Sequence[str], message: bytes) -> object:
        """Send one mail now.

        :param fromaddr: the envelope sender, ``""`` for the null reverse-path.
        :param toaddrs: the envelope recipients.
        :param message: the whole message.
        :returns: a dict of the refused recipients, each with code and text, as in smtplib; anything else means that the
            relay accepted all of them.
        :raises smtplib.SMTPException: no recipient gets the mail; a subclass says why.
        :raises OSError: the relay was not reached.
        """

    def abort() -> None:
        """Forget what `vote` has prepared, because the transaction aborts.  Must not raise."""

    def vote(fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
        """Raise if `send` with the same arguments is likely to fail."""


class ISession(Interface):
    """A conversation with one relay: any number of mails, one after the other.  It is opened by its first use.

    Concurrency: one thread at a time.
    """

    relay = TextLine(title="The relay for people, e.g. ``mail.example.org:25``")

    def verify(envelope: Envelope, message: BinaryIO) -> Outcome:
        """Ask the relay whether it would accept this mail from this sender for these recipients, without sending it.

        :returns: the relay's replies; if the relay cannot be used, the ``fault`` of the outcome says why.
        """

    def transfer(envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """Send one mail.

        :param message: a seekable stream.
        :param intend: called before the last byte; an exception stops the transfer.
        :returns: the relay's replies, one for each recipient about which something is known.
        :raises Exception: whatever `intend`, or reading `message`, raises.

        Guarantee: trouble with the relay, the network or TLS is in the outcome, and not raised.
        """

    def rest() -> None:
        """Close connections that were idle for too long; called when there is nothing to send for now."""

    def close() -> None:
        """End the conversation.  Never raises."""


class ICollectiveSession(ISession):
    """A session that can ask about several mails at once, since asking may cost as much as sending.  Optional."""

    def verify_together(mails: Sequence[tuple[Envelope, BinaryIO]]) -> list[Outcome | None]:
        """Ask about several mails, as `ISession.verify` does about one, with as few questions as possible.

        :param mails: envelopes and messages, which must be seekable.
        :returns: for each mail an outcome with a reply for each of its recipients; a refusal may be due to recipients
            of other mails that were in the same question.  None: the mail has to be asked about alone.
        """


class IStreamingSession(ISession):
    """A session that works on the next mail while it waits for the relay.  Optional."""

    def stream(jobs: IJobSource) -> Iterator[tuple[IJob, Outcome | Exception]]:
        """Send each job of the source until it returns None; yield each job with its result.

        The result is the outcome, or what `IJob.open`, `IJob.intend` or reading the message raised.

        The source may be asked for the next job while the relay has the previous one: right before its last byte, if
        the envelope of the next one can be sent with it, or while the reply of a fast relay is awaited.  Otherwise it
        is asked after the caller has taken the previous result.  The job is opened and read then, and intended in its
        turn. What the source raises is raised in its turn as well.

        A caller that stops early closes the iterator.  A job that was taken and not yielded was not sent, and no relay
        has it.

        Guarantee: no job changes the outcome of another one.  If the envelope of a job was sent ahead and lost with the
        connection, the job begins anew on another connection, and is charged with nothing.
        """


class ISessionMailer(IMailer):
    """A mailer that can keep a conversation open."""

    def open_session() -> ISession:
        """Return a new session; no connection is made yet."""


class ITokenProvider(Interface):
    """Provides tokens instead of a password (OAuth 2).  Any callable without arguments will do.

    Concurrency: any thread; several connections may call it at once.
    """

    def __call__() -> str:
        """Return a token that is valid for the next moments.  It is called before each login.

        After a refusal it is called once more; if it returns the same token, that is not tried again.

        :raises RelayError: there is no token; any other exception is treated as one.  Mail waits then, and loses no
            attempt.
        """


class IRenewableToken(ITokenProvider):
    """A provider that keeps its tokens, and has to be told when one is refused."""

    def renew(refused: str) -> str:
        """Return another token than the one that the relay refused.  It is called once for a refusal.

        :param refused: the token that was refused.
        :raises RelayError: there is no other token.
        """


class ISMTPMailer(ISessionMailer):
    """A mailer that speaks SMTP with one relay."""

    hostname = TextLine(title="Hostname", description="Name of the relay.", default="localhost")
    port = Int(title="Port", description="TCP port of the relay.", default=25)
    username = TextLine(title="Username", description="Username for SMTP AUTH.", required=False)
    password = Password(title="Password", description="Password for SMTP AUTH.", required=False)
    no_tls = Bool(title="No TLS", description="Never use TLS.", default=False)
    force_tls = Bool(title="Force TLS", description="Do not send without TLS.", default=False)
    implicit_tls = Bool(title="Implicit TLS", description="TLS from the first byte (port 465).", default=False)
    timeout = Float(title="Timeout", description="Seconds to wait for a connection.", default=10.0, required=False)


class ILMTPMailer(ISessionMailer):
    """A mailer that speaks LMTP (RFC 2033) with a mail store, which replies for each recipient."""

    hostname = TextLine(title="Hostname", description="Name of the mail store, or the path of its socket.")
    port = Int(title="Port", description="TCP port.", default=24)
    socket = TextLine(title="Socket", description="The path, if it is one.", required=False, readonly=True)


# --- events ---------------------------------------------------------------------------------------------------


class IMailEvent(Interface):
    """Something happened to a mail.

    Guarantee: events are sent after the commit, in a separate thread with its own transaction; what a subscriber raises
    is logged.
    """

    messageId = TextLine(title="Message-Id without angle brackets")
    sender = TextLine(title="Envelope sender")
    replies = Attribute("Mapping: recipient -> `Reply`, for the recipients this event is about")
    relay = TextLine(title="The relay that replied, or the empty string")


class IMailSentEvent(IMailEvent):
    """The relay has accepted the mail for these recipients."""


class IMailErrorEvent(IMailEvent):
    """These recipients will not get the mail."""

    errorMessage = TextLine(title="Why, for people")


class IMailDeferredEvent(IMailEvent):
    """These recipients did not get the mail yet; it will be tried again."""

    due = Float(title="When, seconds since the epoch")


class IMailUnknownEvent(IMailEvent):
    """It is unknown whether these recipients got the mail: the connection ended before the relay's reply."""


class IMailHandOverEvent(Interface):
    """A mail is being handed over: ``send()`` was called, and nothing has been written.

    Subscribers are called in the thread of the caller.  A subscriber refuses the mail by raising an error, preferably
    an `InvalidMail`, which ``send()`` raises.  It may change sender and recipients by assigning to the attributes; it
    cannot change the message.
    """

    sender = TextLine(title="The envelope sender; empty for the null reverse-path")
    recipients = Attribute("Sequence of the envelope recipients")
    message = Attribute(
        "The message as it was passed to ``send()``: ``str``, ``bytes``, or an object; must not be changed"
    )
    delivery = Attribute("The `IMailDelivery`")


class IMailBouncedEvent(Interface):
    """A mail bounced, seconds or days after a relay accepted it; see `zope.sendmail.bounces`.

    Bounces are easily forged, so act only on those that are authentic.
    """

    recipient = TextLine(title="The address that the bounce is about")
    verdict = Attribute(
        "``Verdict``: permanent (there is no such recipient), refused (this mail), temporary, delayed (it is still "
        "tried), or unknown"
    )
    status = TextLine(title="The code of RFC 3463, e.g. ``5.1.1``, or the empty string")
    words = TextLine(title="The text of the report")
    messageId = TextLine(title="Message-Id of the mail without brackets, or the empty string")
    isAuthentic = Bool(title="Whether it came to a return path that was signed for this recipient")


# --- Maildir --------------------------------------------------------------------------------------------------


class IMaildirFactory(Interface):
    """Makes `IMaildir` objects."""

    def __call__(dirname: str, create: bool = False) -> IMaildir:
        """Return the Maildir in a directory.

        :param dirname: path of the directory.
        :param create: whether it is made if there is none.
        :raises ValueError: the directory is something else.
        :raises OSError: it cannot be made.
        """


class IMaildir(Interface):
    """A Maildir: qmail's directory for messages (https://cr.yp.to/proto/maildir.html)."""

    def __iter__() -> Iterator[str]:
        """Return an iterator over the absolute paths of the messages in ``new`` and ``cur``, oldest first.

        Names with a leading dot are left out.
        """

    def newMessage() -> IMaildirMessageWriter:
        """Return a writer for one more message."""


class IMaildirMessageWriter(Interface):
    """A message in ``tmp``, until `commit` or `abort`."""

    def write(data: str | bytes) -> None:
        """Append to the message; str is written as UTF-8."""

    def writelines(lines: Iterable[str | bytes]) -> None:
        """Append each of `lines`; no line ends are added."""

    def close() -> None:
        """Close the file; it can still be committed or aborted."""

    def commit() -> str:
        """Make the message durable and visible.  Harmless when repeated.

        :returns: its path.
        :raises OSError: the disk refuses.
        """

    def abort() -> None:
        """Remove the message.  Harmless when repeated, and after `commit`."""
