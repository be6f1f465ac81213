"""Everything the doctor of a queue can say of its mails and files, one function each.

What it says of the queue as a whole is in `zope.sendmail.queue.queuefindings`.

Written for an operator who has never seen the inside of a queue: what is the matter, why, and what to do.  Pure; what
comes from files is made printable.
"""

from __future__ import annotations

from zope.sendmail.lifecycle.finding import HERE, Finding, Kind, Severity, age, from_to, queue_command, said
from zope.sendmail.lifecycle.outcome import Answer, printable
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.replypattern import pattern_of, pattern_of_words
from zope.sendmail.lifecycle.retry import EXPIRED
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import is_of_list
from zope.sendmail.message.envelope import Envelope

#: The note of a mail that an operator holds.
HELD = "held by an operator"

#: The note of a mail that an operator gave up; its sender was told.
GIVEN_UP = "given up by an operator"

#: Seconds for which a recipient that a relay refused is worth a look; it is every day's business.
_DAY = 86400.0


# --- mails that wait for a person -------------------------------------------------------------------------------


def waits_for_a_person(name: str, envelope: Envelope | None, record: Record | None, *, now: float = 0.0) -> Finding:
    """Return the finding for a mail that is held or rejected.

    :param record: None if the mail was rejected by an older release.
    :param now: seconds since the epoch; what a relay refused long ago needs no person any more.
    """
    if record is not None and record.state is State.HELD:
        return _held(name, envelope, record)
    return _rejected(name, envelope, record, now)


def _held(name: str, envelope: Envelope | None, record: Record) -> Finding:
    severity = Severity.WARNING if record.note == HELD else Severity.PROBLEM
    why = printable(record.note) or "no reason was written down"
    replies = f"; {words}" if (words := said(record)) else ""
    return Finding(
        Kind.HELD,
        severity,
        name,
        f"Mail {from_to(envelope)} is held and will not be sent: {why}{replies}.",
        "Look at it (show), then let it go (release), try it at once (retry), give it up with a report to its sender "
        "(bounce) or delete it (remove).",
        _cause(record),
        tuple(queue_command(each, name) for each in ("show", "release", "retry", "bounce", "remove")),
        _filters(State.HELD, record),
    )


def _rejected(name: str, envelope: Envelope | None, record: Record | None, now: float) -> Finding:
    severity = Severity.PROBLEM
    if record is not None and record.note == GIVEN_UP:
        severity = Severity.NOTE
    elif record is not None and (record.note == EXPIRED or _is_refused(record)):
        severity = Severity.WARNING if now - record.time < _DAY else Severity.NOTE
    if record is None:
        why = "there is no history, so an older release did it; its log says why"
    else:
        why = "; ".join(filter(None, (printable(record.note), said(record)))) or "no reason was written down"
    return Finding(
        Kind.REJECTED,
        severity,
        name,
        f"Mail {from_to(envelope)} is rejected and will not be sent again: {why}.",
        "Tell the sender if it matters, then try it once more (retry) or delete it (remove).",
        "" if record is None else _cause(record),
        tuple(queue_command(each, name) for each in ("show", "retry", "remove")),
        () if record is None else _filters(State.REJECTED, record),
    )


def _is_refused(record: Record) -> bool:
    """Return whether the recipients were refused, as happens every day, and nothing else is the matter.

    Relays refuse them (5xx), or the suppression list does.
    """
    rejected = record.having(Answer.REJECTED).values()
    return (
        not record.note and bool(rejected) and all((reply.code or 0) >= 500 or is_of_list(reply) for reply in rejected)
    )


def _cause(record: Record) -> str:
    """Return what mails with the same fate have in common."""
    if record.note:
        return pattern_of_words(record.note)
    replies = [reply for reply in record.replies.values() if reply.answer is not Answer.ACCEPTED]
    return pattern_of(replies[0]) if replies else ""


def _filters(state: State, record: Record) -> tuple[str, ...]:
    """Return what selects the mails with the same fate; nothing for those of which nothing is known."""
    cause = _cause(record)
    return ("--state", str(state), "--reply", cause) if cause else ()


def set_aside_twice(name: str) -> Finding:
    """Return the finding for a mail of which a copy was set aside."""
    return Finding(
        Kind.LEFTOVER,
        Severity.WARNING,
        name,
        "The mail waits to be sent, and a copy of it was set aside: an older release died while it did that, "
        "or it was copied back.",
        "Once the mail has gone, the copy can be deleted (remove); until then, these verbs mean the mail that waits.",
        commands=(queue_command("show", name),),
    )


# --- mails whose transaction did not end -------------------------------------------------------------------------


def in_doubt(name: str, *, group: bool, written: str, why: str) -> Finding:
    """Return the finding for staged mail whose process is gone."""
    what = "A group of mails" if group else "A mail"
    return Finding(
        Kind.IN_DOUBT,
        Severity.PROBLEM,
        name,
        f"{what} of {written} was staged but never committed: {why}.  It cannot be known whether its transaction "
        "committed elsewhere, so it is kept and never sent.",
        "Look into the application. If the transaction committed, let it go (release); if not, delete it (remove).",
        commands=(queue_command("release", name), queue_command("remove", name)),
    )


def staged_for_long(name: str, *, written: str, pid: int) -> Finding:
    """Return the finding for mail whose transaction is open for long."""
    return Finding(
        Kind.IN_DOUBT,
        Severity.WARNING,
        name,
        f"Mail of {written} is still staged, and process {pid}, which made it, lives: its transaction is open for "
        "more than a day.",
        "Look whether that process hangs; when it has ended, look here again.",
        commands=(("ps", "-o", "pid,stat,etime,args", "-p", str(pid)),),
    )


def committed_group(name: str, count: int, *, alive: bool) -> Finding:
    """Return the finding for a group that is committed and not moved out yet."""
    return Finding(
        Kind.COMMITTED,
        Severity.NOTE,
        name,
        f"The mails of a transaction ({count:,}) are committed but not moved out to new/ yet; for a moment that is "
        "normal.",
        "None is needed: a processor does it at its next look." if alive else "Start a processor; it does the rest.",
    )


# --- files that are no mails -------------------------------------------------------------------------------------


def no_mail(name: str, why: str) -> Finding:
    """Return the finding for a file without envelope lines."""
    return Finding(
        Kind.NO_MAIL,
        Severity.PROBLEM,
        name,
        f"The file cannot be sent: {printable(why)}.  A processor will set it aside as rejected.",
        "Find out which program wrote it, or restore it from a backup; then delete it (remove).",
        commands=(queue_command("show", name, options=("--raw",)), queue_command("remove", name)),
    )


def unreadable(name: str, error: OSError) -> Finding:
    """Return the finding for what the disk or the permissions do not let be read."""
    return Finding(
        Kind.UNREADABLE,
        Severity.PROBLEM,
        name,
        f"It cannot be read: {printable(str(error.strerror or error))}.  What it says or holds does not move.",
        "Give it back to the queue's owner (chown, chmod u+rw), or look after the disk. If only you cannot read it, "
        "ask again as the queue's owner.",
        commands=(("ls", "-ld", HERE + name), ("chmod", "u+rw", HERE + name)) if "/" in name or not name else (),
    )


def foreign(name: str, what: str, severity: Severity) -> Finding:
    """Return the finding for something that no release of this package makes there."""
    harm = "Processors stumble over it again and again." if severity is Severity.PROBLEM else "It does no harm."
    return Finding(
        Kind.FOREIGN,
        severity,
        name,
        f"It is no mail but {what}.  {harm}",
        "Find out which program put it there, and move it out of the queue.",
        commands=(("ls", "-ld", HERE + name),),
    )


def not_trusted(why: str) -> Finding:
    """Return the finding about a path that other users can lead elsewhere; `why` names its part, and the cure."""
    return Finding(
        Kind.OWNER,
        Severity.PROBLEM,
        "",
        f"No mail is put into this queue or taken from it: {why}.",
        "Find out which user made it and look at the mail in it; remove it, then start the processor again.",
        commands=(("ls", "-ld", HERE),),
    )


def long_name(name: str, *, alive: bool) -> Finding:
    """Return the finding for a mail whose file name leaves no room for a lock beside it."""
    return Finding(
        Kind.FOREIGN,
        Severity.NOTE,
        name,
        "The name of this file is too long for a lock beside it; it gets a shorter one before it is sent.",
        "None is needed: a processor does it at its next look." if alive else "Start a processor; it does the rest.",
    )


def somebody_elses(name: str, uid: int, owner: int) -> Finding:
    """Return the finding for a file that the queue's owner may not read."""
    return Finding(
        Kind.OWNER,
        Severity.PROBLEM,
        name,
        f"It belongs to user {uid}, but the queue to user {owner}, whose processor cannot use it.",
        "Give it to the queue's owner (chown).",
        commands=(("chown", str(owner), HERE + name),),
    )


def closed_to_its_owner(name: str, mode: int) -> Finding:
    """Return the finding for a directory of the queue in which its owner cannot do everything."""
    return Finding(
        Kind.OWNER,
        Severity.PROBLEM,
        name,
        f"The queue's owner may not read, write and search it (mode {mode:04o}), so mail does not move.",
        "Let its owner use it (chmod); a processor goes on within seconds.",
        commands=(("chmod", "u+rwx", HERE + name),),
    )


def read_only() -> Finding:
    """Return the finding for a file system that can be read only."""
    return Finding(
        Kind.ROOM,
        Severity.PROBLEM,
        "",
        "The file system of the queue is mounted read-only: no mail can be committed, and none can leave.",
        "Look after the disk (dmesg): most systems mount it so after an error. Then mount it for writing.",
        commands=(("df", HERE),),
    )


# --- files that other programs dropped ---------------------------------------------------------------------------


def not_taken(name: str, why: str) -> Finding:
    """Return the finding for a file in a spool directory that no daemon takes."""
    return Finding(
        Kind.NO_MAIL,
        Severity.PROBLEM,
        name,
        f"The file is not sent: {printable(why)}.",
        "A mail begins with the lines ##To: and ##From:, behind which the message stands. Find out which program "
        "wrote it; then correct it, give it to the spool's owner (chown), or delete it.",
        commands=(("ls", "-l", HERE + name),),
    )


def locked_by_others(name: str, seconds: float, limit: float) -> Finding:
    """Return the finding for a dropped mail whose program is slow, or dead."""
    then = f"The lock is given up in {age(limit - seconds)}." if limit > seconds else "The next look takes the mail."
    return Finding(
        Kind.OLD_LOCK,
        Severity.WARNING,
        name,
        f"The mail is locked for {age(seconds)}: the program that writes it is in a long transaction, or died. "
        + (then if limit else "Such a lock is never given up."),
        "If that program is dead: look whether the file is whole, then remove its lock.",
        commands=(("ls", "-l", HERE + name), ("rm", HERE + name + ".lck")),
    )


def not_looked_at(name: str, seconds: float) -> Finding:
    """Return the finding for a complete mail that lies in a spool directory."""
    return Finding(
        Kind.WAITING,
        Severity.PROBLEM,
        name,
        f"The mail lies in the spool for {age(seconds)}, and no daemon takes it.",
        "Start the daemon: maildrop --config FILE start.",
    )


# --- locks -------------------------------------------------------------------------------------------------------


#: What a dead owner leaves to say, by how far it had come.
_LOST = {
    "intended": "; the last byte may have gone, so the outcome will be recorded as unknown",
    "accepted": "; the relay has it, so it will be removed and not sent again",
}


def orphaned(name: str, phase: str, *, alive: bool) -> Finding:
    """Return the finding for a mail whose processor died."""
    lost = _LOST.get(phase, "")
    return Finding(
        Kind.ORPHANED,
        Severity.NOTE,
        name,
        f"The process that worked on this mail died (it had got as far as: {phase}){lost}.",
        "None is needed: a living processor takes it over within seconds." if alive else "Start a processor.",
    )


def old_lock(name: str, seconds: float, *, orphan: str = "") -> Finding:
    """Return the finding for the lock of an older release: a second name of the message, or of what was one.

    :param orphan: the path of a lock whose mail is gone, within the queue.
    """
    then = f"in {age(seconds)}" if seconds > 0 else "at the next look"
    what = (
        "A lock of an older release is left over; its mail is gone, probably sent"
        if orphan
        else "A processor of zope.sendmail 7.3 or older works on this mail, or died with it"
    )
    return Finding(
        Kind.OLD_LOCK,
        Severity.NOTE,
        name,
        f"{what}.  Such locks are given up after three hours: {then}.",
        "None is needed; it can be deleted."
        if orphan
        else "None is needed; if that processor is dead for certain, take its lock away (release).",
        commands=(("rm", HERE + orphan),) if orphan else (queue_command("release", name),),
    )


def strange_lock(name: str, what: str) -> Finding:
    """Return the finding for something in the place of a lock that no processor can take over."""
    return Finding(
        Kind.FOREIGN,
        Severity.PROBLEM,
        name,
        f"Where the lock of a mail would be there is {what}, so the mail can never be sent.",
        "If no other program needs it, remove it.",
        commands=(("ls", "-ld", HERE + name), ("rm", "-r", HERE + name)),
    )


def leftover(name: str, what: str) -> Finding:
    """Return the finding for something harmless that was left over."""
    return Finding(
        Kind.LEFTOVER, Severity.NOTE, name, f"{what}.  It does no harm.", "None is needed; it can be deleted."
    )


def interrupted_move(count: int, first: str, *, came: bool) -> Finding:
    """Return the finding for mails that were being moved to or from another queue when that ended."""
    way = "from another queue and did not come up here" if came else "to another queue and may not have come up there"
    return Finding(
        Kind.MOVING,
        Severity.PROBLEM,
        first,
        f"Mails that were being moved {way} when 'queue move' ended: {count:,}.  None is lost, and none is sent.",
        "Run the same 'zope-sendmail queue move' again; it finishes what it began.",
    )


def dead_owner(name: str, *, alive: bool) -> Finding:
    """Return the finding for the owner file of a process that ended without cleaning up."""
    return Finding(
        Kind.LEFTOVER,
        Severity.NOTE,
        name,
        "A processor died and left its owner file.",
        f"None is needed: the next processor that starts removes it{', with its leases' if not alive else ''}.",
    )


def torn_history(name: str) -> Finding:
    """Return the finding for a history of which nothing can be used."""
    return Finding(
        Kind.UNREADABLE,
        Severity.WARNING,
        name,
        "No line of this history can be read, so what happened to its mail is not known; it is sent as a new one.",
        "If the mail must not go twice: hold it, and look at the relay's log.",
        commands=(queue_command("hold", name),),
    )
