"""Where everything of one Maildir queue lies.  Pure: makes names, touches nothing.

A message is called by its *name*, the file name it has in ``new/`` or ``cur/``; what belongs to it is named after it.
"""

from __future__ import annotations

import hashlib
import os
from os.path import join

from zope.sendmail.maildir import age_key

SENDING = ".sending-"
REJECTED = ".rejected-"
GROUP = ".group-"
BUNDLE = ".bundle"
PARTS = ".parts"
#: How far the mails of a bundle are that is drained where it lies; and that an operator wants files.
PROGRESS, WANTED = ".progress", ".wanted"
#: The file with which a host says that it makes files of a bundle; its name follows.
SPLITTING = ".splitting-"
#: An owner file without an owner yet.
RESERVE = ".reserve-"
#: A second name of a staged file, for the moment in which it is proved that it could be moved to ``new/``.
PROOF = ".proof-"
#: A file in ``tmp/`` that waits for a mail.
SPARE = ".spare-"
#: Mail that other programs dropped and that waits where it lies, and its directory in keys; see `SpoolLayout`.
TAKEN, IN_PLACE = ".taken-", "drop"
#: A history that is being written anew.
COMPACTED = ".compacted-"
BELL = ".bell"

#: Octets of a file name, less than those with which a mail is set aside; and characters that never have more octets.
LONGEST = 255 - len(REJECTED)
USUAL = LONGEST // 4

#: The seconds in a name of which its age is not told apart from later ones.
_LATEST = 10**20 - 1

#: Directories of ours beside tmp, new and cur.
EXTRA = ("history", "locks", "sent", "processors")


class Layout:
    """The paths below one queue directory."""

    #: The directories of mail that waits, as keys name them.
    places: tuple[str, ...] = ("new", "cur")

    __slots__ = (
        "_prefix",
        "arriving",
        "cur",
        "history_",
        "keys",
        "locks",
        "moved",
        "new",
        "processors",
        "root",
        "sent",
        "spool",
        "suppressed",
        "tmp",
    )

    def __init__(self, root: str) -> None:
        self.root = root
        self._prefix = join(root, "")
        self.tmp = join(root, "tmp")
        self.new = join(root, "new")
        self.cur = join(root, "cur")
        self.history_ = join(root, "history")
        self.locks = join(root, "locks")
        self.sent = join(root, "sent")
        self.processors = join(root, "processors")
        #: Mail that left for another queue, or comes from one; made when it is needed.
        self.moved = join(root, "moved")
        self.arriving = join(root, "arriving")
        self.suppressed = join(root, "suppressed")
        self.keys = join(root, "keys")
        #: The directory in which other programs drop mail; empty if they do not.
        self.spool = ""

    def is_in_place(self, key: str) -> bool:
        """Return whether a message waits where another program has dropped it."""
        return False

    def directory(self, name: str) -> str:
        """Return one of `places`."""
        return join(self.root, name)

    def message(self, key: str) -> str:
        """Return the file of a message that waits."""
        return self._prefix + key

    def sending(self, key: str) -> str:
        """Return the lock beside it."""
        directory, _, name = key.rpartition("/")
        return f"{self._prefix}{directory}/{SENDING}{name}"

    def rejected(self, key: str) -> str:
        """Return the same message, set aside."""
        directory, _, name = key.rpartition("/")
        return f"{self._prefix}{directory}/{REJECTED}{name}"

    def history(self, key: str) -> str:
        """Return what happened to it."""
        return self.history_of(name_of(key))

    def history_of(self, name: str) -> str:
        """Return the same for the message of this name."""
        return f"{self.history_}/{name}"


class SpoolLayout(Layout):
    """The same for a queue within a spool, in which there may be no room for the queue's own directories.

    Mail that was taken and waits all the same has keys that begin with ``drop/``, and the name of its file is its lock.

    :param spool: the directory in which other programs drop mail.
    """

    places = ("new", "cur", IN_PLACE)
    __slots__ = ()

    def __init__(self, spool: str, root: str) -> None:
        super().__init__(root)
        self.spool = spool

    def is_in_place(self, key: str) -> bool:
        """See `Layout.is_in_place`."""
        return key.startswith(IN_PLACE + "/")

    def directory(self, name: str) -> str:
        """See `Layout.directory`."""
        return self.spool if name == IN_PLACE else super().directory(name)

    def message(self, key: str) -> str:
        """See `Layout.message`."""
        if key.startswith(IN_PLACE + "/"):
            return join(self.spool, TAKEN + key[len(IN_PLACE) + 1 :])
        return super().message(key)

    def sending(self, key: str) -> str:
        """See `Layout.sending`."""
        return self.message(key) if self.is_in_place(key) else super().sending(key)

    def rejected(self, key: str) -> str:
        """See `Layout.rejected`.  What is set aside lies in the queue's own directories."""
        return super().rejected("new/" + key[len(IN_PLACE) + 1 :] if self.is_in_place(key) else key)


def by_age(key: str) -> tuple[int, str, str]:
    """Sorts messages by age; see `age_key`."""
    return age_key(key.rpartition("/")[2])


def age_text(key: str) -> str:
    """Sorts as `by_age`, by one text: for very many messages.

    Texts are compared in a fifth of the time, and no other thread of the process runs while a sort compares.
    """
    seconds, last, name = by_age(key)
    return f"{min(seconds, _LATEST):020d}{last}\0{name}"


def second_of(key: str) -> int:
    """Return the first part of `by_age`, by itself."""
    seconds = key.rpartition("/")[2].partition(".")[0]
    return int(seconds) if seconds.isascii() and seconds.isdigit() else 0


def is_too_long(name: str) -> bool:
    """Return whether a file name leaves no room for what is put before it."""
    return len(name) > USUAL and len(os.fsencode(name)) > LONGEST


def shortened(name: str) -> str:
    """Return the name that a file gets whose own is too long: its beginning and a digest, the same in any process."""
    text = os.fsencode(name)
    begin = os.fsdecode(text[: LONGEST // 2]).encode("utf-8", "ignore").decode()
    return f"{begin}.{hashlib.sha256(text).hexdigest()[:24]}"


def is_spare(name: str, size: int) -> bool:
    """Return whether a file in ``tmp/`` waits for a mail; with one in it, it is as any other there."""
    return size == 0 and name.startswith(SPARE)


def name_of(key: str) -> str:
    """Return the name by which people know a message: its file name, without the flags of a Maildir reader."""
    return key.rpartition("/")[2].partition(":")[0]
