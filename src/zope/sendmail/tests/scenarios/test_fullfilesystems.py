"""Full disks with the file systems that want room for more than a file's octets: XFS and btrfs.

XFS keeps a small directory in its inode and wants a block for one more name, and may refuse to make a file while some
blocks are free.  btrfs writes what changes elsewhere, and keeps names apart from octets.  Skipped, with the reason,
where no such disk can be made and mounted (``.ci/mtas.py`` fetches what makes them).
"""

from __future__ import annotations

import os

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

    def fill(self) -> None:
        """Leave no room for an octet."""
        disks.append_all(os.path.join(self.ballast, "bytes"))

    def unknowns_after(self, *steps: str, with_room: bool) -> int:
        """See `fulldisk.WithoutReserveTest`."""
        self.put(1)
        self.fill()
        self.die(*steps)
        if with_room:
            self.empty()
        queue = self.queue()
        self.addCleanup(queue.close)
        self.assertEqual(queue.claim(1), [])
        self.clock.advance(80)
        [lease] = queue.claim(1)
        return lease.record.unknowns


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


del OctetsOnly


load_tests = in_layer(Servers)
