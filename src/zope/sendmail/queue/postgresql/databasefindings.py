"""What only the doctor of a database queue can say, one function each.  Pure."""

from __future__ import annotations

from zope.sendmail.lifecycle.finding import Finding, Kind, Severity, age, moment, queue_command
from zope.sendmail.lifecycle.outcome import printable


def in_doubt(name: str, since: float, made_by: str) -> Finding:
    """Staged for more than an hour."""
    return Finding(
        Kind.IN_DOUBT,
        Severity.PROBLEM,
        name,
        f"A mail of {moment(since)} was staged by {printable(made_by) or 'an unknown process'} and never committed.  "
        "It cannot be known whether its transaction committed elsewhere, so it is kept and never sent.",
        "Look into the application, and whether that process lives; then let it go if its transaction committed "
        "(release), or delete it (remove).",
        commands=(queue_command("release", name), queue_command("remove", name)),
    )


def is_a_copy() -> Finding:
    """Return the finding for a database that is not the one in which the queue was made."""
    return Finding(
        Kind.DATABASE,
        Severity.PROBLEM,
        "",
        "The database was restored or copied from another one, whose mail may have been sent there; no processor "
        "claims anything here.",
        "Remove or hold what must not be sent again, then adopt the queue.",
        commands=(queue_command("list"), queue_command("adopt")),
    )


def pinned(what: str, seconds: float | None) -> Finding:
    """Return the finding for a long transaction that keeps dead rows."""
    since = f" for {age(seconds)}" if seconds is not None else ""
    return Finding(
        Kind.DATABASE,
        Severity.WARNING,
        "",
        f"{printable(what).capitalize()} keeps a snapshot{since}, so that rows of mails that have gone cannot be "
        "cleaned away; claims become slower.",
        "End it, or let that program commit more often.",
    )


def not_durable(setting: str) -> Finding:
    """Return the finding for a server that may forget what it has committed."""
    return Finding(
        Kind.DATABASE,
        Severity.PROBLEM,
        "",
        f"The server has {setting} = off: after a crash committed mail may be gone, and mail that was sent may come "
        "back.",
        f"Set {setting} = on for the server, or for the user and the database of the queue.",
    )


def not_synchronous(count: int) -> Finding:
    """Return the finding for standby servers that may lack the last second at a failover."""
    return Finding(
        Kind.DATABASE,
        Severity.WARNING,
        "",
        f"Standby servers: {count}, and commits wait for none of them: if one takes over, mail that was committed "
        "last is lost, and mail that a dead processor sent last is sent again without a record.",
        "Set synchronous_standby_names, if that must not be.",
    )
