"""What stands in an owner file: whose it is, and how far its owner is with each message.  Pure but for `boot_id`.

Lines of one length: the first names host, process and boot of the owner; each further one is a *slot* for a lease, and
says how far the owner has come with it.  There is room for some leases from the start, so that a full disk can be
drained.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from zope.sendmail.system.hostname import host_name

#: How an owner file begins; a message cannot begin like this, and the links of older releases are messages.
HEADER = b"zope.sendmail owner: "

#: The length of a line, and how many slots there are from the start.
SLOT, FIRST_SLOTS = 512, 15


class Phase(StrEnum):
    """How far an owner has come with a message."""

    CLAIMED = "claimed"
    OPENED = "opened"
    INTENDED = "intended"
    #: The relay has it for all recipients; the message is only to be removed.
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a dead owner had written about a message: how far it was, in the attempt after so many others."""

    phase: Phase
    attempts: int


#: It is not known what the dead owner did, whatever attempts the history tells of.
UNKNOWN = Inherited(Phase.INTENDED, sys.maxsize)


@dataclass(frozen=True, slots=True)
class Identity:
    """The host of an owner, and the time since that was started."""

    host: bytes
    boot: bytes

    @classmethod
    def of(cls, text: bytes) -> Identity | None:
        """Return whose file begins with this text; None if it is no owner file."""
        if not text.startswith(HEADER):
            return None
        words = text[len(HEADER) : SLOT].split()
        if len(words) < 5 or words[0] != b"host" or words[4] != b"boot":
            return None
        return cls(words[1], words[5] if len(words) > 5 else b"")

    @classmethod
    def here(cls) -> Identity:
        """Return our own."""
        return cls(os.fsencode(host_name()), boot_id())


def boot_id() -> bytes:
    """Return what names the time since the machine was started; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as stream:
            return stream.read().strip()
    except OSError:
        return b""


def header(boot: bytes) -> bytes:
    """Return the first line of our owner file; `boot` is that of what it tells of."""
    return line(b"%shost %s pid %d boot %s" % (HEADER, os.fsencode(host_name()), os.getpid(), boot))


def slot(phase: Phase, attempts: int, lock: str) -> bytes:
    """Return the line about a lease; `lock` is the file name of the lock.

    One that ends with a blank, as other programs may call a mail, has a slash behind it, which no name has.
    """
    text = os.fsencode(f"{phase} {attempts} {lock}")
    return line(text + _END if text[-1:].isspace() else text)


def line(text: bytes) -> bytes:
    """Return a whole line."""
    return text[: SLOT - 1].ljust(SLOT - 1) + b"\n"


#: A slot that tells of nothing.
EMPTY = line(b"")

#: Ends a name in a slot that has blanks at its end.
_END = b"/"


def used_slots(text: bytes) -> Iterator[tuple[int, str, bytes]]:
    """Yield number, name of the lock and phase with attempts of each slot that tells of something."""
    for start in range(SLOT, len(text), SLOT):
        phase, _, rest = text[start : start + SLOT].rstrip().partition(b" ")
        attempts, _, name = rest.partition(b" ")
        if name:
            yield start // SLOT, os.fsdecode(name.removesuffix(_END)), phase + b" " + attempts


def read_slot(text: bytes, lock: str) -> Inherited:
    """Return how far a dead owner had come with the message of a lock.

    After a power loss its slots cannot be trusted, for they were never synced: what it had locked is unknown then.
    """
    boot = text[:SLOT].rstrip().rpartition(b" boot ")[2]
    if boot != boot_id():
        return UNKNOWN
    for _, name, said in used_slots(text):
        if name == lock:
            phase, _, attempts = said.partition(b" ")
            words = {each.encode(): each for each in Phase}
            return Inherited(words[phase], int(attempts)) if phase in words and attempts.isdigit() else UNKNOWN
    return Inherited(Phase.CLAIMED, 0)


def phase_of(text: bytes, lock: str) -> Phase | None:
    """Return how far the owner whose file has this text has come with a message; None if it is no owner file.

    An empty file is what a power loss left of one.
    """
    if not text:
        return Phase.INTENDED
    return read_slot(text, lock).phase if text.startswith(HEADER) else None
