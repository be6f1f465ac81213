"""What the doctor of a queue can say of the queue as a whole, of its relays, and of where it lies.

As in `zope.sendmail.queue.diagnosis`, which is about mails and files.  Pure; what comes from files is made printable.
"""

from __future__ import annotations

from zope.sendmail.lifecycle.cures import cure_of
from zope.sendmail.lifecycle.finding import HERE, Finding, Kind, Severity, age, queue_command
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.lifecycle.relaystate import RelayState, fault_words, waiting_words
from zope.sendmail.lifecycle.replypattern import pattern_of

#: Seconds after which a relay that is down does not come back by itself, most likely.
_DOWN = 300.0

#: Seconds for which mail may be due without a processor before that is a problem; after a pass that left it behind.
_UNATTENDED, _LEFT_BEHIND = 300.0, 600.0

#: A pass may have missed mail that was due so many seconds before it ended.
_MISSED = 60.0


def relay_down(relay: RelayState, count: int, first: str, now: float) -> Finding:
    """Return the finding for a relay that cannot be used, for which `count` mails wait."""
    lasting = relay.since and now - relay.since >= _DOWN
    mails = f"{count:,} {'mail waits' if count == 1 else 'mails wait'}" if count else "No mail waits"
    severity = Severity.NOTE if not count else Severity.PROBLEM if lasting else Severity.WARNING
    fault = relay.fault
    return Finding(
        Kind.RELAY,
        severity,
        first,
        f"{mails}: {waiting_words(relay, now)}.",
        (cure_of(fault) if fault is not None else "") + " Then try it at once (flush), or send the mail through "
        "another relay (reroute).",
        pattern_of(fault) if fault is not None else fault_words(relay),
        (queue_command("flush", relay.name), queue_command("relays")),
    )


def relay_left_out(relay: RelayState, member: RelayState, now: float) -> Finding:
    """Return the finding for one of several relays that cannot be used; its mail goes through the others."""
    fault = member.fault
    return Finding(
        Kind.RELAY,
        Severity.WARNING if member.since and now - member.since >= _DOWN else Severity.NOTE,
        "",
        f"No mail waits, because another relay of {printable(relay.title, 200)} gets it: {waiting_words(member, now)}.",
        cure_of(fault) if fault is not None else "",
        pattern_of(fault) if fault is not None else "",
        (queue_command("flush", member.name),),
    )


def unattended(count: int, seconds: float, first: str, since_pass: float | None) -> Finding:
    """Return the finding for mail that is due while no processor lives.

    :param seconds: for which the first mail is due.
    :param since_pass: seconds since the last pass ended, where the next one may be expected; else None.
    """
    if since_pass is not None and seconds <= max(_LEFT_BEHIND, since_pass + _MISSED):
        return between_passes(count, seconds, first, since_pass)
    return nobody_at_work(count, seconds, first, long=seconds > _UNATTENDED)


def nobody_at_work(count: int, seconds: float, first: str, *, long: bool) -> Finding:
    """Return the finding for mail that is due while no processor lives."""
    return Finding(
        Kind.WAITING,
        Severity.PROBLEM if long else Severity.WARNING,
        first,
        f"Mails that are due: {count:,}, the first for {age(seconds)}, and no processor of this release is at work.",
        "Start one: the application with its processor thread, 'zope-sendmail --daemon', or a pass from cron.",
        commands=(queue_command("relays"),),
    )


def between_passes(count: int, seconds: float, first: str, ended: float) -> Finding:
    """Return the finding for mail that is due while no processor lives, but the next pass may be expected.

    :param ended: seconds since the last pass ended.
    """
    return Finding(
        Kind.WAITING,
        Severity.NOTE,
        first,
        f"Mails that are due: {count:,}, the first for {age(seconds)}.  No processor is at work; the last pass ended "
        f"{age(ended)} ago.",
        "None is needed if passes come from cron: the next one sends them. If none comes, start a processor.",
        commands=(queue_command("relays"),),
    )


def nothing_moves(count: int, seconds: float, first: str, *, long: bool) -> Finding:
    """Return the finding for mail that is due for long although a processor lives."""
    return Finding(
        Kind.WAITING,
        Severity.PROBLEM if long else Severity.WARNING,
        first,
        f"Mails that are due: {count:,}, the first for {age(seconds)}, although a processor is at work: its relay is "
        "too slow, or there is more mail than it can send.",
        "See how many leave in a minute (relays), and read the processor's log.",
        commands=(queue_command("relays"),),
    )


def open_to_others(name: str, mode: int, count: int, *, writable: bool) -> Finding:
    """Return the finding for directories or files with bits that only the owner should have."""
    more = f", and {count - 1} more" if count > 1 else ""
    can = "change or add" if writable else "read"
    return Finding(
        Kind.PERMISSIONS,
        Severity.PROBLEM if writable else Severity.WARNING,
        name,
        f"Other users of this machine can {can} it (mode {mode:04o}{more}); mail is private.",
        "Take these rights away from them (chmod).",
        commands=(("chmod", "-R", "go-w" if writable else "go-rwx", HERE),),
    )


def no_room(free: str, *, scarce: bool) -> Finding:
    """Return the finding for a file system without room."""
    return Finding(
        Kind.ROOM,
        Severity.WARNING if scarce else Severity.PROBLEM,
        "",
        f"The file system of the queue has {free} left; without room no transaction that sends mail can commit.",
        "Make room on it, or move the queue.",
        commands=(
            ("df", HERE),
            queue_command("remove", options=("--state", "rejected", "--older-than", "30d", "--dry-run")),
        ),
    )


def large_list(name: str, size: int) -> Finding:
    """Return the finding for a file of `size` octets where a list of sent mail is.

    :param name: its path within the queue.
    """
    return Finding(
        Kind.ROOM,
        Severity.WARNING,
        name,
        f"It has {size // 2**20:,} MiB, and is read whenever the status of a mail is asked for that has left.",
        "If so much mail was sent, find out whether it should have been; the file goes after a week. If it is no list "
        "of sent mail, find out which program writes it. Without it, what became of that day's mail is unknown.",
        commands=(("ls", "-l", HERE + name),),
    )


def from_the_future(name: str, count: int) -> Finding:
    """Return the finding for records or names later than now."""
    more = f", and {count - 1} more" if count > 1 else ""
    return Finding(
        Kind.CLOCK,
        Severity.WARNING,
        name,
        f"It was written more than ten minutes in the future{more}: a clock was set back, or another host's is ahead.",
        "Look after the clocks (NTP). Mail does not wait longer than planned because of it.",
    )
