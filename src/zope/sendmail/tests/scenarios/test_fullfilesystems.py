"""Full disks with the file systems that want room for more than a file's octets: XFS and btrfs.

XFS keeps a small directory in its inode and wants a block for one more name, and may refuse to make a file while some
blocks are free.  btrfs writes what changes elsewhere, and keeps names apart from octets.  Skipped, with the reason,
where no such disk can be made and mounted (``.ci/mtas.py`` fetches what makes them).
"""

from __future__ import annotations

import errno
import os

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import OK
from zope.sendmail.tests.scenarios import test_fulldisk as fulldisk
from zope.sendmail.tests.support import disks
from zope.sendmail.tests.support.layers import Servers, in_layer


class AFullXFS(fulldisk.AFullDisk):
    file_system = "xfs"


class AnXFSWithoutInodes(fulldisk.ADiskWithoutInodes):
    """There are no more free ones, and no block for others."""

    file_system = "xfs"


class AFullXFSWithoutReserve(fulldisk.AFullDiskWithoutReserve):
    file_system = "xfs"

    def test_is_drained_by_a_processor_that_starts(self) -> None:
        """Every mail leaves, once; nothing is left of its lock."""
        self.put(30)
        self.fill()
        self.assertEqual(self.drained(), sorted(f"{number}@example.org" for number in range(30)))
        self.assertEqual(self.files(), [])

    def test_is_drained_of_few_mails_which_leave_no_room_for_a_lock(self) -> None:
        """A mail goes to ``cur/``, where there is room beside it."""
        for count in (1, 4, 5, 6, 7):
            self.put(count)
            self.fill()
            self.assertEqual(len(self.drained()), count)
            self.empty()

    def test_keeps_a_mail_where_it_was_if_there_is_no_room_elsewhere(self) -> None:
        """Another program has filled ``cur/`` as well."""
        self.put(5)
        for number in range(5):
            name = f"{1_000_000_100 + number}.4711.host.{number}"
            path = os.path.join(self.path, "cur", name)
            Disk().create(path, f"X-Zope-From: s@example.org\nX-Zope-To: c{number}@example.org\n\n".encode())
        before = self.files()
        self.fill()
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.assertEqual(self.drained(), [])
        self.assertEqual(self.files(), before)
        self.empty()
        self.assertEqual(len(self.drained()), 10)


class AFullSpoolOnXFS(fulldisk.AFullSpoolWithoutReserve):
    file_system = "xfs"

    def test_is_drained_by_a_processor_that_starts(self) -> None:
        """Every mail leaves, once; nothing is left of it, and then the spool is as any other."""
        self.put(30)
        self.fill()
        self.assertEqual(self.drained(), sorted(f"{number}@example.org" for number in range(30)))
        self.empty()
        self.put(1)
        self.assertEqual(self.drained(), ["0@example.org"])
        self.assertEqual(self.files(), [".queue"])


class CommandsOnXFS(fulldisk.Commands):
    file_system = "xfs"
    left_in_bundle = 1

    def test_maildrop_starts(self) -> None:
        """It sends what is due although there is no room for its pid file, and says why it does not go on."""
        self.open_spool()
        self.drop(self.spool, 9)
        self.fill()
        done = self.maildrop("start")
        self.assertEqual(len(self.relay.mails), 9)
        self.assertIn("No space left on device", done.stderr)


class CommandsForANewSpoolOnXFS(fulldisk.CommandsForANewSpool):
    file_system = "xfs"

    def test_maildrop_starts_and_stops(self) -> None:
        """It sends what is due although there is no room for its pid file, and says why it does not go on."""
        self.drop(self.spool, 30)
        self.fill()
        done = self.maildrop("start")
        self.assertEqual(len(self.relay.mails), 30)
        self.assertIn("No space left on device", done.stderr)


class OctetsOnly(fulldisk.AFullDisk):
    """btrfs: there is no room for octets, not even in the place of others, and some for names."""

    file_system = "btrfs"

    def fill(self) -> None:
        """Leave no room for an octet."""
        disks.append_all(os.path.join(self.ballast, "bytes"))


class AFullBtrfs(OctetsOnly):
    def test_does_not_stop_a_processor_that_was_there_before(self) -> None:
        """How far it is with a mail is written in the place of what was there."""
        self.put(5)
        processor, mailer = self.processor(lambda who: OK)
        assert processor.queue is not None
        [lease] = processor.queue.claim(1)
        lease.release()
        self.fill()
        processor.run(forever=False)
        self.assertEqual(len(mailer.sent), 5)


class AFullBtrfsWithoutReserve(fulldisk.AFullDiskWithoutReserve):
    """The system does not say that no other host has it, so what a death left waits for a while."""

    file_system = "btrfs"
    is_own = False

    def fill(self) -> None:
        """Leave no room for an octet."""
        disks.append_all(os.path.join(self.ballast, "bytes"))


class CommandsOnBtrfs(fulldisk.Commands):
    file_system = "btrfs"

    def fill(self) -> None:
        """Leave no room for an octet."""
        disks.append_all(os.path.join(self.ballast, "bytes"))

    def test_what_needs_room_says_what_does_not(self) -> None:
        """Giving up needs none here."""


class CommandsForANewSpoolOnBtrfs(fulldisk.CommandsForANewSpool):
    file_system = "btrfs"

    def fill(self) -> None:
        """Leave no room for an octet."""
        disks.append_all(os.path.join(self.ballast, "bytes"))


class AUsedUpQuotaGroup(fulldisk.FullDiskTest):
    """EDQUOT as a kernel says it: btrfs refuses each new name, each rename, and what is written in place as well."""

    file_system = "btrfs"

    def mount(self) -> None:
        super().mount()
        disks.limit(self.root, 2 << 20)

    def fill(self) -> None:
        """Leave no room for an octet of the group, on a disk that has enough."""
        with open(os.path.join(self.ballast, "bytes"), "ab", 0) as stream:
            with self.assertRaises(OSError) as caught:
                while True:
                    stream.write(b"x" * 4096)
            self.assertEqual(caught.exception.errno, errno.EDQUOT)
            os.fsync(stream.fileno())

    def empty(self) -> None:
        """Make room again, which counts from the next commit of the file system on."""
        os.unlink(os.path.join(self.ballast, "bytes"))
        os.sync()

    def tree(self) -> dict[str, bytes]:
        """Return all files of the queue that are mail, or may become some."""
        found = {}
        for place, _, names in os.walk(self.path):
            directory = os.path.relpath(place, self.path)
            for name in names if directory in ("tmp", "new", "cur", "history") else ():
                with open(os.path.join(place, name), "rb") as stream:
                    found[f"{directory}/{name}"] = stream.read()
        return found

    def test_refuses_mail_before_anything_is_written(self) -> None:
        """The first mail of a transaction and a later one: nothing of it stays, and what was there is as it was."""
        self.put(3)
        queue = self.queue()
        staged = queue.stage()
        staged.add(Envelope("s@example.org", ("a@example.org",)), b"Subject: s\n\ntext\n")
        self.fill()
        for _ in range(2):
            with self.assertRaises(OSError) as caught:
                staged.add(Envelope("s@example.org", ("b@example.org",)), b"Subject: s\n\n" + b"text\n" * 2000)
            self.assertEqual(caught.exception.errno, errno.EDQUOT)
            staged.abort()
            staged = queue.stage()
        self.assertEqual(len(self.tree()), 3)
        self.empty()
        self.assertEqual(self.drained(), [f"{number}@example.org" for number in range(3)])

    def test_keeps_all_mail_until_there_is_room(self) -> None:
        """Nothing can be locked; the log says why, the mail is as it was, and leaves once, at its first attempt."""
        self.put(5)
        before = self.tree()
        self.fill()
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.assertEqual(self.drained(), [])
        self.assertIn("Disk quota exceeded", logs.output[0])
        self.assertEqual(self.tree(), before)
        self.empty()
        self.assertEqual(self.drained(), [f"{number}@example.org" for number in range(5)])
        self.assertEqual(self.queue().admin.count(), {})

    def test_lets_mail_leave_that_was_locked_before(self) -> None:
        """What the relay takes is removed: that needs no room."""
        self.put(5)
        queue = self.queue()
        leases = queue.claim(5)
        for lease in leases:
            lease.open().close()
            lease.intend()
        self.fill()
        for lease in leases:
            lease.settle(Record(state=State.SENT))
        self.assertEqual([name for name in self.tree() if not name.startswith("history/")], [])
        queue.close()

    def test_used_up_in_the_middle_of_a_mail_sends_it_once(self) -> None:
        """Its last byte does not go without a word about it; it waits, with all others, for room."""
        self.put(5)
        processor, mailer = self.processor()

        def fill(_: Envelope) -> None:
            mailer.before = lambda _: None
            self.fill()

        mailer.before = fill
        with self.assertLogs("QueueProcessorThread", "WARNING"):
            processor.run(forever=False)
        self.empty()
        self.clock.advance(3600)
        sent = [who for mail in mailer.sent for who in mail[1]]
        self.assertEqual(sorted(sent + self.drained()), [f"{number}@example.org" for number in range(5)])
        self.assertEqual(self.queue().admin.count(), {})


del OctetsOnly


load_tests = in_layer(Servers)
