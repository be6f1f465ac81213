"""Every contract and every error of the package.

An implementation keeps the *Guarantee* lines of its contract; a caller may count on them.  Times are seconds as
float, wall clock times are seconds since the epoch (UTC); addresses are ``str`` in the form ``local@domain``
unless said otherwise.  Errors answer one question: is it permanent?  What is unknown is temporary.
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

    ``recipients`` maps each recipient that does not get the mail to the code and the words of the relay, as smtplib
    has it.  Raised by direct delivery in the vote, so that the transaction aborts.
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
        :param toaddrs: the envelope recipients, a single ``str`` or a series; display names are dropped, and empty
            entries beside others.
        :param message: the text with its header.  A missing Message-Id and a missing Date are put in front of it,
            ``Bcc`` is taken out.  Text beyond ASCII in a ``str`` or a message object becomes MIME; bytes stay.
        :param relay: the relay that shall get the mail, if the delivery allows that: the name of a mailer,
            ``"host:port"``, or a pair of both; None: as the routes of the delivery say.
        :param verp: whether each recipient gets a copy whose envelope sender names it, so that bounces say which
            recipient they are about; see `zope.sendmail.message.verp`.
        :param not_before: when the mail leaves, in whole seconds: an aware datetime, or a timedelta from now on; what
            has passed is now, and more than ten years are refused.  None: as the delivery says, usually now.
        :param expires: when it is given up if it has not left for all recipients, in the same forms; behind now and
            behind `not_before`.  None: as the delivery says, usually when the lifetime of the queue's schedule is over.
        :param priority: ``high``, ``normal`` or ``low``: which mail of a queue goes first.  None: as the delivery says.
        :param key: one to 200 printable characters: two mails of a queue with the same key are one.  None: it has none.
        :returns: the Message-Id without angle brackets; that of the first mail if there is one with the same key.
        :raises InvalidMail: an argument cannot become a mail, and nothing was written: `InvalidSender`,
            `InvalidRecipient`, `InvalidMessage`, `InvalidRelay` or `InvalidTerms`, each of them an
            ``smtplib.SMTPException``.
        :raises QueueError: the queue's disk refuses, an `OSError`; the text says what to do.
        :raises KeyInUse: another transaction has sent a mail with this key, and has not ended within two seconds.  It
            is a `transaction.interfaces.TransientError`, so the transaction is tried again by what does that.  A queue
            in a database may find it out in the vote.

        Guarantee: the mail leaves if, and only if, the current transaction commits.

        Guarantee: of all mails of a queue with one key, handed over by any thread and any process until the key's time
        is over (a week after the first one may have left, unless the delivery says something else), one leaves.  The
        key of a mail whose transaction has aborted, or was rolled back to before it, is free.

        Concurrency: any thread.
        """


class IDefaultMailDelivery(IMailDelivery):
    """What ``getUtility(IMailDelivery)`` finds, without a name: the delivery that is meant in the current site.

    That is the one that is registered without a name; else the only one that there is; else the one named "Mail".  The
    choice is made at each use.  Everything else that is asked of it is asked of the delivery.

    Every use raises ``zope.interface.interfaces.ComponentLookupError``, which names the choices, if there are several
    and none is called "Mail".
    """


class IDirectMailDelivery(IMailDelivery):
    """Speaks with the relay while the transaction commits.

    The vote makes the connection, with TLS and login; a relay that cannot be used stops it with a `RelayError`.  Each
    mail is sent after the commit.  Recipients that the relay refuses then are told by the log and by events, and the
    others are served.
    """

    mailer = Attribute("The `IMailer` that speaks with the relay.")
    onRefused = Attribute(
        "What a refused recipient means: ``tell``, or ``abort``: the vote asks about every recipient, and raises "
        "`MailRefused`."
    )
    queue = Attribute(
        "A queued delivery, or the name of one, that takes what the relay defers and what could not be sent; None: "
        "such mail is told of and lost.  With one, a relay that cannot be used stops no vote."
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
        """Hand over one mail as `IMailDelivery.send` does, but apart from any transaction.

        :param options: the keywords of `IMailDelivery.send`.
        :raises InvalidMail: as `IMailDelivery.send`.
        :raises QueueError: as `IMailDelivery.send`; the mail is not sent later either.

        Guarantee: the mail is on disk and on its way when this returns; an abort does not call it back.
        """

    def status(message_id: str) -> MailStatus:
        """Return what became of a mail; see `IMailQueue.status`.

        A mail whose transaction has not committed is not known.

        :param message_id: what `IMailDelivery.send` has returned.
        """


# --- where mail waits -----------------------------------------------------------------------------------------


class IStagedMail(Interface):
    """The mails of one transaction in a queue, before a processor may see them.

    They belong to the process that staged them: in a forked child `rollback` and `abort` leave them alone, `prepare`
    and `commit` raise `QueueError`.

    Concurrency: one thread at a time.
    """

    def __len__() -> int:
        """Return how many mails there are."""

    def add(envelope: Envelope, *message: Piece) -> str:
        """Write one more mail.

        :param message: the message in pieces; what one consists of says ``zope.sendmail.message.pieces.octets``.
        :returns: the name of the mail in its queue.
        :raises OSError: the disk refuses; the mails before it are untouched then.
        :raises KeyTaken: the envelope has a key, and a committed mail, or one of this group, has it; nothing was
            written.
        :raises KeyInUse: another transaction has it, and may commit or abort; a queue that cannot know this here raises
            it in `prepare`.
        """

    def rollback(count: int) -> None:
        """Keep the first `count` mails; remove the others."""

    def prepare() -> None:
        """Make everything durable, and prove that `commit` will be possible.  The only step that may fail.

        `abort` is possible afterwards.  A queue whose mail is a part of the caller's own transaction, in a database,
        has nothing to do here or in `commit`.

        :raises OSError: if the disk refuses; a `QueueError` says what to do.

        Guarantee: after it returned, `commit` needs no space and no permission that it does not have; nothing but an
        input/output error is left for it.
        """

    def commit() -> None:
        """Reveal all mails, in order.

        Guarantee: all or none, through a death at any point; durable when it returns; does not fail in normal life.
        """

    def abort() -> None:
        """Remove everything.  Harmless when repeated, and after `commit`."""


class IJob(Interface):
    """A mail that is to be sent in a stream; every lease is one."""

    envelope = Attribute("`Envelope`: the sender, and the recipients to be served.")

    def open() -> BinaryIO:
        """Return the message, as a seekable stream at its beginning; the lease closes it."""

    def intend() -> None:
        """Take note that the last byte is about to go; what this raises stops the transfer."""


class IOrdinaryJob(IJob):
    """A mail of which the text has been read.  Optional; a session may make a shorter way of it."""

    text = Attribute("The message as bytes; None if it has to be opened")


class IJobSource(Interface):
    """Where a session takes the mails of a stream from.

    It may have a method ``let_go()``, which a session that has the attribute ``lets_go`` calls before a mail that may
    take long: what the source keeps back for this session is free for others then, and what it has put off is to be
    done.  And it may have a method ``meanwhile()``, which such a session calls when it has sent a mail that should be
    answered soon: what else is to be done before the next one is done while the relay works.  Neither raises anything.

    Concurrency: called in the thread of the session only.
    """

    def next() -> IJob | None:
        """Return the mail that is to be sent next, or None if there is none for this session now.

        The session may ask while the mail before is with the relay, and may ask again after None.
        """


class ILease(IJob):
    """The right to work on one message, for as long as its owner lives."""

    name = TextLine(title="Name of the message in its queue")
    envelope = Attribute("`Envelope`: the sender, and the recipients that are still to be served.")
    record = Attribute("`Record`: what happened to the message last; a fresh one if nothing did.")
    message_id = TextLine(title="Message-Id without brackets, or the empty string")
    written = Attribute("When the mail was written, seconds since the epoch; None where that is not known")
    size = Attribute(
        "Bytes of the message; None where that is not known.  Not to be asked for after the lease has ended."
    )
    problem = TextLine(title="Why no relay can be asked about the message (its file is damaged), or the empty string")
    inherited = Attribute(
        "`Outcome` that a dead owner of the lease left, or None: unknown, and already written down in `record`; or "
        "accepted, then `record` is sent and is to be settled as it is"
    )

    def open() -> BinaryIO:
        """Return the message without envelope lines, as a stream at its beginning.  May be called again."""

    def told() -> None:
        """Say that what was `inherited` and unknown has been told; until then, the next owner inherits it again."""

    def intend() -> None:
        """Say that the last byte is about to go.

        :raises LeaseLost: if it must not go, since another processor has the message.
        """

    def settle(record: Record) -> None:
        """Write down how the attempt ended; the lease ends.

        A queue may write down that a mail is sent together with what the same processor does next (`ILease.intend` of
        another lease, `IMailQueue.claim`, `IMailQueue.wait` or `IMailQueue.close`), and within a fraction of a second.
        A death in between makes an *unknown* of it, as one before this call does.
        """

    def release() -> None:
        """Give the message back as if nothing had been tried; the lease ends."""

    def park(relay: str, patience: float = inf) -> None:
        """`release`, but this queue object does not claim the message again before `IMailQueue.unpark` of `relay`.

        After `patience` seconds it may be claimed in any case.
        """

    def give_way(relay: str, patience: float = inf) -> bool:
        """`park`, and `IMailQueue.unpark` one message in the place of this one, if one goes before it.

        Of those that are parked for `relay`, that is an older one of the same priority; and one of a higher priority,
        unless this one was unparked itself, as its turn had come.

        :returns: whether that was so.  If not, the lease goes on.
        """


class IFirstAttempts(Interface):
    """The right to make the first attempt at mails, for the process that commits them: that is direct delivery.

    Concurrency: one thread at a time.
    """

    def commit(staged: IStagedMail) -> None:
        """Do as `IStagedMail.commit`; no processor gets the mails before `leave`, `close`, or the end of this process.

        A mail for which that cannot be ensured is the processors' from now on.

        :raises OSError: as `IStagedMail.commit`.

        Guarantee: from now on a death of this process is to these mails what that of a processor is.
        """

    def claim(name: str) -> ILease | None:
        """Return the lease on a mail that was committed here; None: the processors have it."""

    def leave(name: str) -> None:
        """Let processors have a mail that was committed here and not claimed; harmless for any other."""

    def close() -> None:
        """Let processors have what is left; leases that are still open end."""


class IOrdinaryLease(ILease, IOrdinaryJob):
    """A lease on a message of which nothing has to be known but its text: it was never tried, and is small.

    Optional: a queue may give such leases for what most mail is, or for none.  A processor that knows no more than
    `ILease` does nothing wrong with them.
    """

    text = Attribute("The message as bytes; None if the message is not such a one")
    ends_soon = Bool(
        title="Whether `settle_sent` follows the yes to this message within two thousandths of a second, as a rule"
    )

    def accepted() -> None:
        """Note that the relay has the message for all recipients: from now on a death makes nothing unknown.

        `settle_sent` has to follow; where it follows so soon (`ends_soon`), it may be what notes that.
        """

    def settle_sent(together: Sequence[tuple[ILease, Outcome, Record]]) -> None:
        """Do as `ILease.settle` for several such leases of this queue, this one among them, all of them `accepted`.

        Messages are removed soon; before `IMailQueue.wait` and `IMailQueue.close` return, in any case.

        :param together: each lease with how its attempt ended, and with the record that this led to.
        """


class IForeseenLease(IOrdinaryLease):
    """Such a lease of a queue whose `ILease.intend` is a journey that can begin ahead of its time.

    Optional, as `IOrdinaryLease` is.
    """

    def soon() -> None:
        """Take note that the message goes within a few thousandths of a second, if nothing comes between.

        Does not wait, and raises nothing.  From now on a death may leave it unknown, as from `ILease.intend` on.
        """


class IQueuedMail(Interface):
    """One mail as an operator sees it."""

    name = TextLine(title="Name")
    state = Attribute("`State`")
    envelope = Attribute("`Envelope` with all recipients, or None if the file has none that can be read")
    message_id = TextLine(title="Message-Id without brackets, or the empty string")
    since = Float(title="When it was written, seconds since the epoch")
    size = Int(title="Bytes")
    due = Float(title="When it is tried next, seconds since the epoch; 0.0 if that is open")
    history = Attribute("Sequence of `Record`, oldest first")
    relays = Attribute("Names of the relays that are to get what is left of it; empty if no processor has told which")
    blocked = Attribute("``RelayState`` of the relay for which it waits, which cannot be used; else None")
    locked_until = Attribute("Until when a lock of 7.3 or older may keep it, seconds since the epoch; 0.0: none")
    tried = Attribute("Name of the relay at which its last attempt was; empty if no processor has told which")


classImplements(QueuedMail, IQueuedMail)


class IRankedQueue(Interface):
    """A queue that says whether mail goes before other mail.  Optional; every queue of this package is one."""

    def has_before(priority: Priority) -> bool:
        """Return whether mail of a higher priority is known to be due.

        Asked between two mails, so it is no journey: what other processes have committed may not be known yet.
        """


class IMailQueue(Interface):
    """A place where mail waits between commit and relay, as deliveries and processors use it.

    What operators do is in `IMailQueueAdmin`.  Concurrency: everything may be called from any thread and any process at
    any time, also while processors run.
    """

    location = TextLine(title="What names the queue for people: a path, or a URL without its password")
    schedule = Attribute("`Schedule`: when mail of this queue is tried again")
    admin = Attribute("`IMailQueueAdmin` of this queue; it opens nothing before it is used")
    suppressions = Attribute(
        "`ISuppressions` of this queue: which addresses get no mail; opens nothing before it is used"
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
        :returns: a status; what has left the queue is known for a week unless the queue is told otherwise.
        """

    def claim(limit: int = 1, *, ahead: int = 0) -> Sequence[ILease]:
        """Lease messages that are due, oldest first within each priority.

        Those of high priority go first, and none starves: of five messages one is normal and of nine one is low, while
        there is enough of all.  What its sender wants to leave later is not due before.

        While there is work, a queue may give fewer than are due, and not know yet what was committed in the last 0.02
        seconds; an empty list means that nothing is due.

        :param limit: so many leases at most.
        :param ahead: so many further messages the caller will probably claim soon.  A queue for which each claim is a
            journey may reserve them; no other processor gets them before this one claims, waits, closes or dies.
        :returns: leases; an empty list if nothing is due.
        :raises QueueTrouble: if no message of this queue can be worked on now.  Every message stays as due as it is.

        Guarantee: no message is leased twice at a time.  A lease ends by itself within five seconds of its owner's
        death, or within two minutes if the owner was on another host; what the owner had said with `ILease.intend`
        becomes an *unknown* in the history.
        """

    def claim_expired(limit: int = 100) -> Sequence[ILease]:
        """Lease messages that their senders want given up by now (`Terms.expires`), whether or not they are due.

        Those that are held wait for a person.

        :param limit: so many leases at most.
        :returns: leases, as those of `claim`; an empty list if no such message is known.
        """

    def next_expiry() -> float | None:
        """Return the seconds until the next known message is to be given up (0.0: now), or None if none is known."""

    def wait(timeout: float) -> None:
        """Return when there may be something to claim, after `wake`, or after `timeout` seconds.

        Guarantee: a commit in any process that the queue can hear is noticed within a fraction of a second: those of
        this host for a directory, those of every host for a database.
        """

    def wake() -> None:
        """Let `wait` return.  May be called from a signal handler."""

    def next_due() -> float | None:
        """Return the seconds until the next known message is due (0.0: now), or None if none is known."""

    def unpark(relay: str, limit: int) -> int:
        """Let messages that were parked for `relay` be claimed again, oldest first.

        What is parked is known to this object only: to other processors the messages are due.

        :param limit: so many messages at most.
        :returns: how many they were.
        """

    def parked() -> Collection[str]:
        """Return the names of the relays for which messages are parked."""

    def report(state: ProcessorState) -> None:
        """Keep what the processor of this queue object tells operators, in the place of what it told before.

        As well as possible: a disk that refuses is passed over, and nothing depends on it.  What processors that have
        ended told about relays is taken over, so that a word about a relay outlives its processor.
        """

    def probe_asked(relay: str) -> float:
        """Return when an operator asked last that this relay is tried although it is paused.

        :returns: seconds since the epoch; 0.0 for never.  Another number than before is a new request.
        """

    def take_turns(relay: str, rate: float, count: int) -> float:
        """Take the next turns of a relay, of which all processors that the queue can hear of share one row.

        :param relay: names the relay for all of them.
        :param rate: mails a second that all of them may send together.
        :param count: so many turns, each ``1 / rate`` seconds after the one before.
        :returns: the seconds until the first of them.
        :raises QueueTrouble: if that cannot be written down.

        Guarantee: no turn is given twice, but after a crash of a database.  Those that were not taken are lost.
        """

    def close() -> None:
        """Give everything back.  Leases that are still open end."""


class ISuppressions(Interface):
    """The addresses that get no mail of one queue, and why: its suppression list.

    It is looked at when mail is handed over, and when mail is claimed; a recipient that is on it ends as rejected, with
    its reason.  Addresses are the same in whatever case they are written, and whatever form their domains have.
    What fills it (an operator, refusals of relays, bounces, a one-click unsubscribe) uses `add`.

    Concurrency: as `IMailQueue`.
    """

    def among(recipients: Iterable[str]) -> Mapping[str, Suppression]:
        """Return those recipients that get no mail now, each with its entry.

        :param recipients: addresses, as an envelope has them.

        Guarantee: a look into memory; what another process has changed is known after a second at most.
        """

    def add(*entries: Suppression) -> None:
        """Add entries, durably, each in the place of one with the same address.

        :param entries: made with ``Suppression.of``, which refuses what is no address.
        :raises OSError: the queue refuses; nothing was added then.
        """

    def remove(*addresses: str) -> int:
        """Remove addresses, durably.

        :param addresses: as people write them.
        :returns: how many were there.
        :raises InvalidRecipient: one of them is no address; nothing was removed then.
        :raises OSError: the queue refuses.
        """

    def entries() -> Sequence[Suppression]:
        """Return the entries whose time is not over, by address."""


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
        """Yield the mails, oldest first; only those that fit everything that is given.

        ``history`` of what it yields may hold the last record only.

        :param states: they are in one of these; empty: in any.  Staged mail is left out unless it is named here.
        :param sender: their envelope sender; ``<>`` is the null reverse-path.
        :param recipient: one of their recipients; ``@example.org`` is every address there.  Case does not matter.
        :param reply: what they were last told, or why their relay cannot be used: a code such as ``450``, or a part
            of what a relay or we said.
        :param before: they were written before this moment, in seconds since the epoch.
        :param after: they were written at this moment or later.
        :param relay: the name or address of the relay that is to get them, or that was asked last.

        Guarantee: reads one mail at a time, and a file that cannot be read ends nothing.
        """

    def names() -> Iterator[str]:
        """Yield the names of all mails that are not staged, oldest first, without reading any."""

    def these(names: Iterable[str]) -> Iterator[QueuedMail]:
        """Yield the mails of these names that are still there, in this order.

        ``history`` of what it yields may hold the last record only.

        Guarantee: a mail that has gone is left out, and costs no look at the others.
        """

    def examine() -> Iterator[Finding]:
        """Yield what is stuck or strange in the queue, why, and the cure, in plain words.

        Each mail that is held or rejected is a finding with its name and the reason.  Severity *problem*: a person has
        to do something.  Guarantee: changes nothing, and no processor waits for it.
        """

    def unusable() -> Iterator[Finding]:
        """Yield what lies where mail lies, cannot be sent, and needs a person.

        Those are files that cannot be read or that no processor takes; what was set aside as rejected is not among
        them.  Guarantee: costs no more than a look at the mails that are ready.
        """

    def in_doubt() -> Iterator[Finding]:
        """Yield a finding for each staged mail, or group, that no living process can commit any more.

        A part of what `examine` yields, at the price of reading the staged names.
        """

    def show(name: str) -> QueuedMail:
        """Return one mail with its whole history.

        :raises NoSuchMail: if there is none of this name.
        """

    def read(name: str) -> BinaryIO:
        """Return the message of one mail, without envelope lines.

        :raises NoSuchMail: if there is none of this name.
        """

    def hold(name: str) -> None:
        """Do not try this mail until `release`.

        :raises NoSuchMail: if there is none of this name.
        :raises NotPossible: while it is being sent.
        """

    def release(name: str) -> None:
        """End a hold, or reveal a staged mail of which the caller knows that its transaction committed.

        A lock of an older release, of which the caller knows that its process is dead, is taken away.

        :raises NoSuchMail: if there is none of this name.
        :raises NotPossible: if the mail is not held, or its transaction may still end by itself.
        """

    def retry(name: str) -> None:
        """Try the mail now, whatever the schedule says.

        A rejected mail is tried for its rejected recipients, with a new lifetime.

        :raises NoSuchMail: if there is none of this name.
        :raises NotPossible: while it is being sent.
        """

    def remove(name: str) -> None:
        """Delete the mail for good.

        :raises NoSuchMail: if there is none of this name.
        :raises NotPossible: while it is being sent, or while it is staged and its transaction may still commit.
        """

    def reroute(name: str, relay: RelayName | None) -> None:
        """Let another relay have the mail; it is due at once, with the attempts that it has had.

        :param relay: one that the processor of the queue has; None: as its routes say.
        :raises NoSuchMail: if there is none of this name.
        :raises NotPossible: while it is being sent, or if its file is none that can be written anew.
        """

    def give_up(name: str, why: str) -> None:
        """Reject the recipients that were not served; no report is made.  See ``zope.sendmail.queue.nondelivery``.

        :param why: for people.
        :raises NoSuchMail: if there is none of this name.
        :raises NotPossible: while it is being sent.
        """

    def processors() -> Sequence[ProcessorState]:
        """Return what the processors of this queue told, each with whether it lives."""

    def probe(relay: str) -> None:
        """Ask all processors of this queue to try a relay now, although it is paused.

        :raises OSError: if that cannot be written down.
        """

    def forget_keys() -> int:
        """Forget the keys whose time is over; processors do it once an hour.

        :returns: how many they were.
        """

    def expire_rejected(before: float) -> int:
        """Remove the rejected mails that were given up before this moment, in seconds since the epoch.

        :returns: how many they were.
        """


class IMailQueueProcessor(Interface):
    """Drains one queue through one mailer until it is stopped."""

    queuePath = TextLine(title="Queue path", description="Absolute path of the queue directory.", readonly=True)
    pollingInterval = Int(
        title="Polling interval",
        description="Milliseconds between two looks at the queue when nothing wakes the processor.",
        default=3000,
    )
    mailer = Attribute("The `IMailer` that speaks with the relay.")


# --- the way out ----------------------------------------------------------------------------------------------


class IMailer(Interface):
    """Speaks with a relay.  Only `send` is needed; the other two are looked up and left out if absent."""

    def send(fromaddr: str, toaddrs: Sequence[str], message: bytes) -> object:
        """Send one mail now.

        :param fromaddr: the envelope sender, ``""`` for the null reverse-path.
        :param toaddrs: the envelope recipients.
        :param message: the whole message.
        :returns: a dict of the refused recipients, each with code and text, as smtplib has it; anything else means that
            the relay took all of them.
        :raises smtplib.SMTPException: no recipient gets the mail; a subclass says why.
        :raises OSError: the relay was not reached.
        """

    def abort() -> None:
        """Forget what `vote` has prepared: the transaction aborts.  Must not raise."""

    def vote(fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
        """Raise if `send` with the same arguments is likely to fail."""


class ISession(Interface):
    """A conversation with one relay: any number of mails, one after the other.  It is opened by its first use.

    Concurrency: one thread at a time.
    """

    relay = TextLine(title="The relay for people, e.g. ``mail.example.org:25``")

    def verify(envelope: Envelope, message: BinaryIO) -> Outcome:
        """Ask the relay whether it would take this mail from this sender for these recipients, without sending it.

        :returns: the relay's answers; a relay that cannot be used is the outcome's fault.
        """

    def transfer(envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """Send one mail.

        :param message: seekable.
        :param intend: called before the last byte; what it raises stops the transfer.
        :returns: the relay's answers, one for each recipient that something is known about.
        :raises Exception: whatever `intend`, or reading `message`, raises.

        Guarantee: relay, network and TLS trouble is told by the outcome, not raised.
        """

    def rest() -> None:
        """Close what has been idle for too long; called when there is nothing to send for now."""

    def close() -> None:
        """End the conversation.  Never raises."""


class ICollectiveSession(ISession):
    """A session that asks about several mails at once, since a question may cost as much as a mail.  Optional."""

    def verify_together(mails: Sequence[tuple[Envelope, BinaryIO]]) -> list[Outcome | None]:
        """Ask the relay whether it would take these mails, as `ISession.verify` does, in as few questions as possible.

        :param mails: envelopes and messages, which must be seekable.
        :returns: what is known about each mail: an answer for each of its recipients, of which a no may be about the
            others with which it was asked about; None: it has to be asked about alone.
        """


class IStreamingSession(ISession):
    """A session that uses the time for which the relay is awaited for the next mail.  Optional."""

    def stream(jobs: IJobSource) -> Iterator[tuple[IJob, Outcome | Exception]]:
        """Send each job of the source until that gives None; yield it with its outcome, or with what its `IJob.open` or
        `IJob.intend`, or reading it, has raised.

        The source may be asked for the next job while the one before is with the relay: right before the last byte of
        that one if it can ride with it, or while its reply is awaited from a relay that is quick; else it is asked
        after that one's outcome was taken.  The job is opened and read then, and intended in its turn.  What the source
        raises is raised in its turn, too.

        A caller that stops in between closes the iterator.  A job that was taken and not yielded has not been sent
        then, and no relay has it.

        Guarantee: nothing about a job changes the outcome of another one; a job whose envelope rode and was lost with
        the connection is begun anew on another, charged with nothing.
        """


class ISessionMailer(IMailer):
    """A mailer that can keep a conversation open."""

    def open_session() -> ISession:
        """Return a new session; no connection is made yet."""


class ITokenProvider(Interface):
    """Gives tokens in the place of a password (OAuth 2).  Any callable without arguments will do.

    Concurrency: any thread; several connections may ask at once.
    """

    def __call__() -> str:
        """Return a token that should be valid for the next moments.  Called before each login.

        After a refusal it is called again, once; if it gives the same token, that is not tried again.

        :raises RelayError: there is none; anything else that it raises is told as one.  Mail waits then, and loses no
            attempt.
        """


class IRenewableToken(ITokenProvider):
    """A provider that keeps its tokens, and has to be told when one is refused."""

    def renew(refused: str) -> str:
        """Return another token than the one that the relay did not take.  Called once for a refusal.

        :param refused: the token that was refused.
        :raises RelayError: there is none.
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
    """A mailer that speaks LMTP (RFC 2033) with a mail store, which answers for each recipient."""

    hostname = TextLine(title="Hostname", description="Name of the mail store, or the path of its socket.")
    port = Int(title="Port", description="TCP port.", default=24)
    socket = TextLine(title="Socket", description="The path, if it is one.", required=False, readonly=True)


# --- events ---------------------------------------------------------------------------------------------------


class IMailEvent(Interface):
    """Something happened to a mail.

    Guarantee: sent after the commit, in a thread and a transaction of their own; what a subscriber raises is logged.
    """

    messageId = TextLine(title="Message-Id without angle brackets")
    sender = TextLine(title="Envelope sender")
    replies = Attribute("Mapping: recipient -> `Reply`, for the recipients this event is about")
    relay = TextLine(title="The relay that answered, or the empty string")


class IMailSentEvent(IMailEvent):
    """The relay took responsibility for these recipients."""


class IMailErrorEvent(IMailEvent):
    """These recipients will not get the mail."""

    errorMessage = TextLine(title="Why, for people")


class IMailDeferredEvent(IMailEvent):
    """These recipients did not get the mail yet; it will be tried again."""

    due = Float(title="When, seconds since the epoch")


class IMailUnknownEvent(IMailEvent):
    """It cannot be known whether these recipients got the mail: the connection ended before the relay's answer."""


class IMailHandOverEvent(Interface):
    """A mail is being handed over: ``send()`` was called, and nothing has been written.

    Subscribers are called in the thread of the caller.  One that raises an error refuses the mail: ``send()`` raises
    it, which had better be an `InvalidMail`.  One that assigns to an attribute changes the envelope; the message stays.
    """

    sender = TextLine(title="The envelope sender; empty for the null reverse-path")
    recipients = Attribute("Sequence of the envelope recipients")
    message = Attribute(
        "The message as it was passed to ``send()``: ``str``, ``bytes``, or an object; not to be changed"
    )
    delivery = Attribute("The `IMailDelivery`")


class IMailBouncedEvent(Interface):
    """A mail came back, days or seconds after a relay took it; see `zope.sendmail.bounces`.

    A bounce is easily forged, so act on those that are authentic only.
    """

    recipient = TextLine(title="The address that it is about")
    verdict = Attribute(
        "``Verdict``: permanent (there is no such recipient), refused (this mail), temporary, delayed (it is still "
        "tried), or unknown"
    )
    status = TextLine(title="The code of RFC 3463, e.g. ``5.1.1``, or the empty string")
    words = TextLine(title="What was said")
    messageId = TextLine(title="Message-Id of the mail without brackets, or the empty string")
    isAuthentic = Bool(title="Whether it came to a return path that we have signed for this recipient")


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
