"""Every line the log can say, one function each.

Written for an operator at night: which message, which recipient, what the relay answered, when it is tried next.
Never the body, never a password.  What comes from outside is made printable first.
"""

from __future__ import annotations

import datetime
import logging

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.reporting.printablelog import PrintableFilter

#: The names of 7.3, which sites have in their logging configuration.
processor_log = logging.getLogger("QueueProcessorThread")
transaction_log = logging.getLogger("MailDataManager")


processor_log.addFilter(PrintableFilter())
transaction_log.addFilter(PrintableFilter())


def started(location: str, relay: str) -> None:
    """Log that a processor begins."""
    processor_log.info("Draining %s through %s.", location, relay)


def stopped(location: str) -> None:
    """Log that a processor ends."""
    processor_log.info("No longer draining %s.", location)


def did_not_end(location: str, seconds: float) -> None:
    """Log that a processor is busy at the end of the process."""
    processor_log.warning("The processor of %s did not end within %.0f s; a message is cut off.", location, seconds)


#: Marks the sentences about single recipients, which a log of attempts has already.
_ANSWER = {"is_answer": True}


def answered(*, name: str, message_id: str, sender: str, recipient: str, reply: Reply, relay: str) -> None:
    """Log what the relay said about one recipient."""
    level = logging.INFO if reply.answer in (Answer.ACCEPTED, Answer.DEFERRED) else logging.ERROR
    if not processor_log.isEnabledFor(level):  # the words cost more than all the rest of a quick mail's log
        return
    processor_log.log(
        level,
        "Mail %s <%s> from <%s> to <%s>: %s by %s: %s",
        name,
        message_id,
        sender,
        recipient,
        reply.answer,
        relay or "us",
        reply,
        extra=_ANSWER,
    )


def deferred(name: str, attempts: int, due: float) -> None:
    """Log that the message is tried again."""
    processor_log.info("Mail %s: attempt %d did not end it; next attempt at %s.", name, attempts, _moment(due))


def held(name: str, why: str) -> None:
    """Log that the message waits for a person."""
    processor_log.error("Mail %s is held: %s. Use 'release', 'retry' or 'remove'.", name, why)


def set_aside(name: str, why: object) -> None:
    """Log that a file in the queue cannot be sent."""
    processor_log.error("Mail %s is set aside as .rejected-%s: %s.", name, name, why)


def skipped(name: str, why: object, seconds: float) -> None:
    """Log that a file in the queue cannot be read now."""
    processor_log.error("Mail %s cannot be read and is left alone for %.0f s: %s.", name, seconds, why)


def not_taken(path: str, why: str) -> None:
    """Log that a file in a spool directory is no mail, or not whole, or not ours to take."""
    processor_log.error("The file %s stays where it is: %s.", path, why)


def lock_given_up(path: str, seconds: float) -> None:
    """Log that another program's lock was too old."""
    processor_log.warning(
        "The mail %s was taken although it is locked: its lock is %.0f hours old.", path, seconds / 3600
    )


def relay_down(relay: str, fault: Reply, seconds: float | None) -> None:
    """Log that the relay cannot be used; mail waits without losing an attempt.

    :param seconds: until the relay is asked again; None: the processor ends
    """
    if seconds is None:
        processor_log.warning("Relay %s cannot be used (%s); mail waits.", relay, fault)
    else:
        text = "Relay %s cannot be used (%s); mail waits. While this program runs, it is asked again in %.0f s."
        processor_log.warning(text, relay, fault, seconds)


def relay_left_out(relay: str, fault: Reply, seconds: float) -> None:
    """Log that one of several relays cannot be used; mail goes to the others."""
    processor_log.warning("Relay %s cannot be used (%s); it is left out for %.0f s.", relay, fault, seconds)


def bounced(recipient: str, verdict: str, words: str, *, authentic: bool) -> None:
    """Log what a bounce says."""
    doubt = "" if authentic else "; nothing shows that it is genuine"
    processor_log.info("Mail to %s has bounced (%s): %s%s", recipient, verdict, words or "without a word", doubt)


def bounce_left(name: str, error: BaseException) -> None:
    """Log that a message in a Maildir of bounces cannot be handled now."""
    processor_log.warning("The bounce %s stays where it is: %s: %s", name, type(error).__name__, error)


def key_missing(domain: str) -> None:
    """Log that mail from a domain is not signed, because no key speaks for it."""
    processor_log.warning("Mail from %s is not signed: no DKIM key is for this domain. This is told once.", domain)


def key_unreadable(why: str) -> None:
    """Log that the file of a key has changed, and not to a key."""
    processor_log.warning("The former DKIM key is used: %s", why)


def not_signed(message_id: str, why: str) -> None:
    """Log that a message goes out as it is, because it cannot be signed."""
    processor_log.warning("Mail %s is not signed: %s", message_id or "without a Message-Id", why)


def relay_up(relay: str) -> None:
    """Log that the relay can be used again."""
    processor_log.info("Relay %s can be used again.", relay)


def expired(count: int, seconds: float) -> None:
    """Log that rejected mail was removed."""
    processor_log.info("Rejected mails that were kept for %.1f days were removed: %d.", seconds / 86400, count)


def relay_probed(relay: str) -> None:
    """Log that a relay is tried before its pause has ended."""
    processor_log.info("Relay %s is tried now: an operator asked for it, or its settings have changed.", relay)


def state_not_reported(location: str, error: BaseException) -> None:
    """Log that operators cannot be told how the relays are."""
    processor_log.warning(
        "What is known of the relays cannot be written beside %s (%s); nothing else depends on it.",
        location,
        error,
    )


def fewer_connections(relay: str, count: int, why: Reply) -> None:
    """Log that the relay does not want so many connections."""
    processor_log.info("Relay %s gets no more than %d connections for a while: %s.", relay, count, why)


def fewer_mails(relay: str, rate: float | None, why: Reply) -> None:
    """Log that the relay wants less mail at a time.

    :param rate: mails a second from now on; None: that is not known yet
    """
    if rate is None:
        processor_log.warning("Relay %s wants less mail at a time (%s); mail waits for some seconds.", relay, why)
    else:
        processor_log.info("Relay %s gets about %.3g mails a minute for now: %s.", relay, rate * 60, why)


def departures_failed(directory: str, error: OSError) -> None:
    """Log that it cannot be written down which mails leave."""
    processor_log.warning(
        "It cannot be written down in %s which mails are sent (%s); nothing else depends on that.", directory, error
    )


def suppressing_failed(location: str, error: Exception) -> None:
    """Log that a recipient that does not exist could not be put on the suppression list."""
    processor_log.warning(
        "It cannot be written down in %s that a recipient does not exist (%s); it is noted when a relay says it again.",
        location,
        error,
    )


def lease_lost(name: str, why: object) -> None:
    """Log that another processor took the message."""
    processor_log.warning("Mail %s: %s.", name, why)


def group_stuck(group: str, error: OSError) -> None:
    """Log that the mails of a committed transaction cannot be moved out of their directory."""
    processor_log.error(
        "The mails in %s are committed but cannot be moved to new/ yet (%s); this is tried at every look.",
        group,
        error,
    )


def report_failed(sender: str, error: Exception) -> None:
    """Log that a delivery status notification cannot be queued."""
    processor_log.error("A report to <%s> about rejected recipients cannot be made: %s.", sender, error)


def settling_failed(name: str, error: OSError) -> None:
    """Log that an outcome cannot be written down; the message stays locked until it can."""
    processor_log.error(
        "Mail %s: its outcome cannot be written down yet (%s); it stays locked and will not be sent again.", name, error
    )


def in_doubt(location: str, name: str, text: str, cure: str) -> None:
    """Tell of a staged mail, or of those of a transaction, that no living process can commit."""
    processor_log.warning("In the queue %s, %s: %s %s", location, name, text, cure)


def more_in_doubt(location: str, count: int) -> None:
    """Tell of more staged mail that no living process can commit."""
    processor_log.warning("In the queue %s, %d more are in doubt: see 'zope-sendmail queue doctor'.", location, count)


def not_noted(name: str, error: OSError) -> None:
    """Log that there is no room to write down that a mail was deferred, which nothing depends on."""
    processor_log.warning("Mail %s is deferred, and there is no room to write down why (%s).", name, error)


def not_settled(name: str, error: BaseException) -> None:
    """Log that something unexpected failed after an attempt."""
    processor_log.error(
        "Mail %s: an unexpected error after its attempt (%s: %s). If the outcome is not written down, the mail stays "
        "locked, and its outcome is unknown to the next processor.",
        name,
        type(error).__name__,
        error,
    )


def unlocking_failed(name: str, error: OSError) -> None:
    """Log that a lock cannot be removed; its owner removes it at the next look."""
    processor_log.warning("Mail %s: its lock cannot be removed yet: %s.", name, error)


def beat_failed(location: str, error: BaseException) -> None:
    """Log that a processor could not say that it lives; the next beat follows at once."""
    processor_log.warning(
        "The queue %s: the beat of this processor did not reach the database; after four seconds others take over: %s",
        location,
        error,
    )


def queue_trouble(location: str, error: BaseException, seconds: float) -> None:
    """Log that the queue itself cannot be worked on."""
    processor_log.error(
        "Trouble with the queue %s, mail waits, looked at again every %.0f s at most: %s: %s",
        location,
        seconds,
        type(error).__name__,
        error,
        exc_info=error,
    )


def queue_usable(location: str) -> None:
    """Log that the trouble with the queue is over."""
    processor_log.warning("The queue %s can be worked on again.", location)


def mails_left(location: str, count: int) -> None:
    """Log at the end of a program that mail is left in its queue."""
    processor_log.warning(
        "%d %s in %s and %s with the next start.",
        count,
        "mail waits" if count == 1 else "mails wait",
        location,
        "leaves" if count == 1 else "leave",
    )


def mailer_broken(name: str, error: BaseException) -> None:
    """Log that the mailer raised what no mailer should; the message is deferred."""
    processor_log.error("Mail %s: the mailer failed: %s: %s", name, type(error).__name__, error, exc_info=error)


def finish_failed(what: str, error: BaseException) -> None:
    """Log that something failed in the second phase of a commit, where nothing may be raised."""
    transaction_log.error("Failed in tpc_finish: %s: %s: %s", what, type(error).__name__, error, exc_info=error)


def abort_failed(what: str, error: BaseException) -> None:
    """Log that something failed while a transaction was aborted."""
    transaction_log.error("Failed in abort: %s: %s: %s", what, type(error).__name__, error, exc_info=error)


def transaction_unended(what: str, count: int, seconds: float) -> None:
    """Log that a transaction with mail has neither been committed nor aborted for long, or up to the program's end."""
    transaction_log.warning(
        "%d mail(s) have not left (%s): the transaction that they follow has neither been committed nor aborted for "
        "%.0f s. Commit it; or, if another manager's transaction is committed, let the mail follow that: "
        "delivery.bind(request.tm), MailSender.bind(request.tm).",
        count,
        what,
        seconds,
    )


def transaction_lost(what: str, count: int) -> None:
    """Log that a transaction with mail is gone, with its thread or request, and was neither committed nor aborted."""
    transaction_log.error(
        "%d mail(s) do not leave (%s): the transaction that they followed is gone, and was neither committed nor "
        "aborted. Commit it; or, if another manager's transaction is committed, let the mail follow that: "
        "delivery.bind(request.tm), MailSender.bind(request.tm).",
        count,
        what,
    )


def left_to_processors(name: str, error: BaseException) -> None:
    """Log that direct delivery does not make the first attempt at a mail, although it may: a processor does."""
    transaction_log.warning(
        "Mail %s is left to the processor of its queue: it cannot be locked here (%s: %s).",
        name,
        type(error).__name__,
        error,
    )


def unattended(location: str) -> None:
    """Log that mail was committed to a queue on which no processor is at work; told once in a process."""
    transaction_log.warning(
        "No processor is at work on the queue %s, so its mail waits: start one (zope.sendmail.startup.start(), "
        "start='database' in ZCML, zope-sendmail --daemon). This is told once.",
        location,
    )


def from_missing(message_id: str) -> None:
    """Log that a mail from a program has no From field (RFC 5322, 3.6); told once in a process."""
    transaction_log.warning(
        "Mail <%s> has no From field, which every mail must have; many relays refuse or hide it. Add one to the "
        "message, such as From: Shop <shop@example.org>; the sender that send() is given is for bounces. Further such "
        "mails are not told of.",
        message_id,
    )


def direct_answered(*, message_id: str, sender: str, recipient: str, reply: Reply, relay: str) -> None:
    """Log what the relay said to direct delivery in the second phase."""
    level = {Answer.ACCEPTED: logging.INFO, Answer.DEFERRED: logging.WARNING}.get(reply.answer, logging.ERROR)
    transaction_log.log(
        level,
        "Mail <%s> from <%s> to <%s>: %s by %s: %s",
        message_id,
        sender,
        recipient,
        reply.answer,
        relay,
        reply,
    )


def subscriber_failed(event: object, error: BaseException) -> None:
    """Log that a subscriber to a mail event raised; no mail is concerned."""
    processor_log.error(
        "A subscriber to %s failed: %s: %s", type(event).__name__, type(error).__name__, error, exc_info=error
    )


def observer_failed(observer: object, error: BaseException) -> None:
    """Log that an observer of attempts raised; no mail is concerned."""
    processor_log.error(
        "An observer of attempts, %s, failed: %s: %s",
        type(observer).__name__,
        type(error).__name__,
        error,
        exc_info=error,
    )


def events_lost(count: int) -> None:
    """Log that subscribers are too slow or hang."""
    processor_log.error(
        "%d mail events are waiting for subscribers that do not return; further ones are dropped.", count
    )


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
