"""Mail that other programs drop into a spool directory."""

from __future__ import annotations

import errno
import os
import tempfile
import time
import unittest
from collections import Counter
from typing import Any, BinaryIO
from unittest import mock

from zope.sendmail.interfaces import NoSuchMail, NotPossible, QueueError
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.spool.dropbox import Dropped
from zope.sendmail.queue.spool.multiple import SeveralSpools, open_spool
from zope.sendmail.queue.spool.queue import SpoolQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, NEVER, OK, SCHEDULE, ManualClock, envelope

MAIL = b"##To:one@example.org\n##From:sender@example.org\nSubject: one\n\nText\n\n"
TEXT = b"Subject: one\n\nText\n\n"


class SpoolTest(unittest.TestCase):
    """A spool directory, and a queue over it."""

    def setUp(self) -> None:
        self.spool = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "spool")
        os.mkdir(self.spool)
        self.clock = ManualClock(time.time() + 10.0)
        self.queue = self.open()

    def open(self, **options: Any) -> SpoolQueue:
        queue = SpoolQueue(self.spool, schedule=SCHEDULE, clock=self.clock, **options)
        self.addCleanup(queue.close)
        return queue

    def path(self, name: str) -> str:
        return os.path.join(self.spool, name)

    def drop(self, text: bytes = MAIL, name: str = "123456", *, age: float = 60.0, spool: str = "") -> str:
        """Put a file there that was written so many seconds ago."""
        path = os.path.join(spool or self.spool, name)
        with open(path, "wb") as file:
            file.write(text)
        os.utime(path, (self.clock.wall - age, self.clock.wall - age))
        return path

    def claim(self, limit: int = 10) -> list[MaildirLease]:
        """What is due after a new look at the directory."""
        self.clock.mono += 60.0
        return self.queue.claim(limit)

    def envelopes(self) -> list[Envelope]:
        return [lease.envelope for lease in self.claim()]

    def dropped(self) -> list[str]:
        """The names that still lie in the spool."""
        return sorted(name for name in os.listdir(self.spool) if name != ".queue")


class DroppedMail(SpoolTest):
    def test_a_file_of_2_3_is_read_byte_for_byte(self) -> None:
        """Envelope and message, with the line end that 2.3 put behind each message."""
        self.drop(b"##To:one@example.org,Two <two@example.org>\n##From:Me <me@example.org>\n" + TEXT)
        [lease] = self.claim()
        self.assertEqual(lease.envelope, envelope("one@example.org", "two@example.org", sender="me@example.org"))
        self.assertEqual(lease.open().read(), TEXT)

    def test_the_lines_may_come_in_either_order_with_others_between(self) -> None:
        """Documented since 2.0: any program may write such a file."""
        self.drop(b"##From:sender@example.org\r\n##X-Job:7\n##To:one@example.org\r\n" + TEXT)
        [lease] = self.claim()
        self.assertEqual((lease.envelope, lease.open().read()), (envelope(), TEXT))

    def test_no_text_of_a_message_changes_its_envelope(self) -> None:
        """The lines end with the one by which both are known; 2.3 went on reading."""
        evil = b"##To:evil@example.org\n##From:evil@example.org\n\n"
        self.drop(b"##To:one@example.org\n##From:sender@example.org\n" + evil)
        self.drop(b"##From:sender@example.org\n##To:one@example.org\n" + evil, "2")
        leases = self.claim()
        self.assertEqual([(lease.envelope, lease.open().read()) for lease in leases], [(envelope(), evil)] * 2)

    def test_lines_that_nobody_knows_are_no_part_of_the_message(self) -> None:
        """2.3 dropped them before, between and behind the two; what looks like an envelope again is text."""
        lines = b"##To:one@example.org\n##From:sender@example.org\n"
        evil = b"##To:evil@example.org\n##X-Job:9\n\n"
        for number, (text, message) in enumerate(
            (
                (b"##X-Job:7\n##Priority: 1\n" + TEXT, TEXT),
                (b"##X-Job:7\n" + evil, evil),
                (b"##\n" + TEXT, b"##\n" + TEXT),
                (b"# one\n" + TEXT, b"# one\n" + TEXT),
            )
        ):
            self.drop(lines + text, str(number))
            [lease] = self.claim()
            with lease.open() as stream:
                self.assertEqual(stream.read(), message)
            self.assertEqual(lease.envelope.recipients, ("one@example.org",))
        self.drop(lines + b"##X-Job:7\n", "none")
        self.assertEqual(self.claim(), [])

    def test_the_empty_sender_is_the_null_reverse_path(self) -> None:
        """Programs that report failures use it."""
        self.drop(b"##To:one@example.org\n##From:\n" + TEXT)
        self.assertEqual(self.envelopes(), [envelope(sender="")])

    def test_local_names_are_the_relays(self) -> None:
        """Programs of the host write them, as in 2.3; the relay knows what they mean, or refuses them."""
        self.drop(b"##To:root, Jane <jane.doe>, a@x.org\n##From:www-data\n" + TEXT)
        self.assertEqual(self.envelopes(), [Envelope("www-data", ("root", "jane.doe", "a@x.org"))])

    def test_a_malformed_recipient_costs_only_itself(self) -> None:
        """The others get the mail."""
        self.drop(b"##To:one@example.org,two@\n##From:\n" + TEXT)
        self.assertEqual(self.envelopes(), [Envelope("", ("one@example.org",), ("two@",))])

    def test_names_are_free(self) -> None:
        """Blanks, line ends, bytes that are no UTF-8; and dots in the middle."""
        names = ["a b", "line\nend", os.fsdecode(b"caf\xe9"), "mail.2026.txt", "-rf", "new:1,S", "x" * 200]
        for name in names:
            self.drop(name=name)
        self.assertEqual(len(self.envelopes()), len(names))
        self.assertEqual(self.dropped(), [])

    def test_the_oldest_goes_first(self) -> None:
        """2.3 took them as the directory gave them."""
        for number, age in enumerate((30.0, 90.0, 60.0)):
            self.drop(MAIL.replace(b"one@", b"%d@" % number), str(9 - number), age=age)
        self.assertEqual([each.recipients[0][0] for each in self.envelopes()], ["1", "2", "0"])

    def test_the_name_tells_where_a_mail_came_from(self) -> None:
        """For who reads the log."""
        self.drop(name="report of monday")
        self.assertIn("report_of_monday", self.claim()[0].name)

    def test_operators_see_it_before_any_daemon_did(self) -> None:
        """Counted and listed, with the time at which it was written."""
        self.drop(age=600.0)
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})
        self.assertAlmostEqual(next(self.queue.admin.mails()).since, self.clock.wall - 600.0, delta=1.0)

    def test_it_is_retried_and_set_aside_like_any_other(self) -> None:
        """One recipient has it, one is deferred, one rejected: nobody is lost, nobody gets it twice."""
        self.drop(b"##To:a@example.org,b@example.org,c@example.org\n##From:\n" + TEXT)
        [lease] = self.claim()
        said = dict(zip(lease.envelope.recipients, (OK, LATER, NEVER), strict=True))
        outcome = Outcome("relay", said)
        lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=self.clock.wall, chance=0.5))
        self.clock.wall += 60.0
        self.assertEqual([each.recipients for each in self.envelopes()], [("b@example.org",)])

    def test_it_is_sent_by_the_survivor_of_a_death(self) -> None:
        """Whoever had it dies; it is not lost, and what was intended is unknown."""
        self.drop()
        [lease] = self.claim()
        lease.intend()
        self.queue._owner.forget()  # as the kernel does it
        self.queue = self.open()
        [taken] = self.claim()
        self.assertEqual((taken.name, taken.record.unknowns), (lease.name, 1))

    def test_two_daemons_never_have_the_same(self) -> None:
        """Each file is taken by one."""
        for number in range(20):
            self.drop(name=str(number))
        other = self.open()
        leases = [lease for queue in (self.queue, other) * 2 for lease in queue.claim(7)]
        self.assertEqual(len({lease.name for lease in leases}), 20)
        self.assertEqual(len(leases), 20)

    def test_what_was_taken_is_private(self) -> None:
        """Nobody else can reach it in its new place."""
        self.drop()
        self.claim()
        self.assertEqual(os.stat(self.path(".queue")).st_mode & 0o777, 0o700)

    def test_the_private_directory_may_be_removed(self) -> None:
        """It is made again, and mail goes on."""
        self.drop()
        self.claim()[0].release()
        import shutil

        shutil.rmtree(self.path(".queue"))
        self.drop(name="2")
        self.assertEqual(self.envelopes(), [envelope()])


class LookingAtDroppedMail(SpoolTest):
    """Before any daemon came."""

    def setUp(self) -> None:
        super().setUp()
        self.drop(MAIL.replace(b"Subject", b"Message-Id: <one@example.org>\nSubject"), age=600.0)
        self.drop(MAIL.replace(b"one@", b"two@"), "younger")
        self.drop(b"", "empty", age=600.0)

    def name(self) -> str:
        return next(self.queue.admin.names())

    def test_changes_nothing(self) -> None:
        """Nothing is moved or made, and nothing logged."""
        with self.assertNoLogs("zope.sendmail", "WARNING"):
            self.queue.admin.count(), self.queue.admin.oldest(), self.queue.status("one@example.org")
            for each in (self.queue.admin.mails, self.queue.admin.names, self.queue.admin.examine):
                list(each())
            self.queue.admin.show(self.name())
            self.queue.admin.read(self.name()).close()
        self.assertEqual(sorted(os.listdir(self.spool)), ["123456", "empty", "younger"])

    def test_shows_what_will_be_sent(self) -> None:
        """State, age, envelope, Message-Id and text, oldest first; what is no mail is not among it."""
        first, second = self.queue.admin.mails()
        self.assertEqual((first.state, first.message_id), (State.READY, "one@example.org"))
        self.assertEqual([second.envelope], self.envelopes()[1:])
        with self.open().admin.read(first.name) as stream:
            self.assertTrue(stream.read().startswith(b"Message-Id: <one@example.org>\n"))

    def test_selects(self) -> None:
        """As among mail that was taken in."""
        self.assertEqual(len(list(self.queue.admin.mails(recipient="two@example.org"))), 1)
        self.assertEqual(list(self.queue.admin.mails([State.REJECTED])), [])
        self.assertEqual(len(list(self.queue.admin.mails(before=self.clock.wall - 300.0))), 1)

    def test_tells_the_name_that_it_keeps(self) -> None:
        """So that it can be held, shown and found in the log by the name that was seen."""
        names = list(self.queue.admin.names())
        self.assertEqual([lease.name for lease in self.claim()], names)
        self.assertEqual(list(self.open().admin.names()), names)

    def test_never_breaks_a_lock(self) -> None:
        """A program that looks does not know for how long locks count on this site."""
        lock = self.drop(b"locked", "123456.lck", age=1e6)
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})
        self.assertTrue(os.path.exists(lock))

    def test_holding_one_takes_it_in(self) -> None:
        """And only that one; no daemon sends it then."""
        self.queue.admin.hold(self.name())
        self.assertEqual(self.queue.admin.count(), {State.READY: 1, State.HELD: 1})
        self.assertEqual(self.dropped(), ["empty", "younger"])
        self.assertEqual([each.recipients for each in self.envelopes()], [("two@example.org",)])

    def test_removing_one_deletes_the_file(self) -> None:
        """As for every other mail."""
        self.queue.admin.remove(self.name())
        self.assertEqual(self.dropped(), ["empty", "younger"])
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})

    def test_what_is_taken_in_between_is_seen_once(self) -> None:
        """A daemon comes after the look outside and before the one inside."""

        class Racing(Disk):
            def names(self, path: str) -> list[str]:
                if path.endswith("/new"):
                    daemon.claim()
                return super().names(path)

        daemon = self.queue
        daemon.claim()
        looking = self.open(disk=Racing())
        for count, look in ((3, looking.admin.names), (4, looking.admin.mails)):
            self.drop(name=str(count), age=10.0)
            self.clock.mono += 60.0
            self.assertEqual(len(list(look())), count)
            self.assertNotIn(str(count), self.dropped())

    def test_what_was_taken_in_this_moment_is_shown_from_inside(self) -> None:
        """Whoever lists it a moment later asks for it by the same name."""

        class Racing(Disk):
            def open(self, path: str) -> BinaryIO:
                opened[path] += 1
                if opened[path] == 2:
                    daemon.claim()
                return super().open(path)

        daemon, opened = self.queue, Counter[str]()
        name = self.name()
        looking = self.open(disk=Racing())
        self.clock.mono += 60.0
        self.assertEqual(looking.admin.show(name).message_id, "one@example.org")
        self.assertEqual(self.dropped(), ["empty"])

    def test_what_cannot_be_taken_in_is_not_said_to_be_gone(self) -> None:
        """The error tells what to do."""

        class Refusing(Disk):
            def rename(self, old: str, new: str) -> None:
                raise PermissionError(errno.EACCES, "Permission denied")

        self.assertRaisesRegex(NotPossible, "let this user write", self.open(disk=Refusing()).admin.hold, self.name())

    def test_what_was_locked_meanwhile_is_left_alone(self) -> None:
        """Its writer is at it again."""
        name = self.name()
        self.drop(b"locked", "123456.lck")
        self.assertRaises(NoSuchMail, self.queue.admin.hold, name)
        self.assertIn("123456", self.dropped())

    def test_two_files_never_get_one_name(self) -> None:
        """Of one second, with names that look the same in the queue; nor does a file that got the number of another."""
        status = os.stat(self.path("younger"))

        def name(file: str, **changed: int) -> str:
            values = {"st_ino": 7, "st_mtime_ns": 10**18, "st_ctime_ns": 10**18, **changed}
            return Dropped(self.path(file), mock.Mock(spec=status, **values)).name

        self.assertEqual(name("a b"), name("a_b"))
        self.assertNotEqual(name("a b"), name("a_b", st_ino=8))
        self.assertNotEqual(name("x" * 70 + "1"), name("x" * 70 + "2", st_ino=8))
        self.assertNotEqual(name("a"), name("a", st_ctime_ns=10**18 + 1000))


class LockedMail(SpoolTest):
    def lock(self, age: float) -> None:
        self.drop(age=age)
        self.drop(b"locked", "123456.lck", age=age)

    def test_it_is_left_alone_until_the_lock_is_gone(self) -> None:
        """Then it is taken at the next look."""
        self.lock(5.0)
        self.assertEqual(self.envelopes(), [])
        os.remove(self.path("123456.lck"))
        self.assertEqual(self.envelopes(), [envelope()])

    def test_a_lock_that_came_between_is_seen(self) -> None:
        """The lock counts at the moment of the move, not at that of the listing."""
        test = self

        class Racing(Disk):
            def names(self, path: str) -> list[str]:
                names = super().names(path)
                if path == test.spool and "123456.lck" not in names:
                    test.drop(b"locked", "123456.lck", age=0.0)
                return names

        self.drop()
        self.queue = self.open(disk=Racing())
        self.assertEqual(self.envelopes(), [])
        self.assertEqual(self.dropped(), ["123456", "123456.lck"])

    def test_one_of_a_dead_writer_is_reported(self) -> None:
        """After an hour: once in the log, and always by the doctor."""
        self.lock(4000.0)
        with self.assertLogs("QueueProcessorThread", "ERROR") as logged:
            self.claim()
            self.claim()
        self.assertEqual(len(logged.output), 1)
        [finding] = [each for each in self.queue.admin.examine() if each.name == "../123456"]
        self.assertIn("is locked for 1h", finding.text)

    def test_one_that_is_too_old_is_given_up(self) -> None:
        """After a day the mail is taken, the lock removed, and the log says so."""
        self.lock(86401.0)
        with self.assertLogs("QueueProcessorThread", "WARNING"):
            self.assertEqual(self.envelopes(), [envelope()])
        self.assertEqual(self.dropped(), [])

    def test_it_can_count_for_ever(self) -> None:
        """If a site wants that."""
        self.queue = self.open(lock_age=0.0)
        self.lock(10 * 86400.0)
        self.assertEqual(self.envelopes(), [])

    def test_a_lock_without_mail_is_told(self) -> None:
        """Its writer died before it wrote."""
        self.drop(b"locked", "7.lck", age=7200.0)
        self.assertEqual(self.envelopes(), [])
        self.assertIn("../7.lck", [finding.name for finding in self.queue.admin.examine()])


class WhatIsNoMail(SpoolTest):
    def test_it_is_not_touched(self) -> None:
        """Hidden files, what editors leave, directories, links, other files stay, and the doctor tells of them."""
        for name in (".hidden", "mail~", "#mail#"):
            self.drop(name=name)
        self.drop(b"Dear diary\n", "notes")
        os.mkdir(self.path("directory"))
        os.symlink("/etc/passwd", self.path("link"))
        names = self.dropped()
        self.assertEqual(self.envelopes(), [])
        self.assertEqual(self.dropped(), names)
        told = {finding.name for finding in self.queue.admin.examine() if finding.name.startswith("../")}
        self.assertEqual(told, {f"../{name}" for name in names})

    def test_poison_harms_nobody(self) -> None:
        """What killed the daemon of 2.3 stays where it is, is told of once, and other mail flows."""
        poison = {
            "no-colon": b"##To:a@example.org\n##oops\n##From:b@example.org\n\n",
            "colon": b"##To\n##From:a@example.org\n\n",
            "no-message": b"##To:a@example.org\n##From:b@example.org\n",
            "no-from": b"##To:a@example.org\nSubject: x\n\n",
            "no-recipient": b"##To:\n##From:b@example.org\n\n",
            "sender": b"##To:a@example.org\n##From:b b b\n\n",
            "empty": b"",
            "zeros": bytes(5000),
        }
        for name, text in poison.items():
            self.drop(text, name, age=120.0)
        self.drop()
        with self.assertLogs("QueueProcessorThread", "ERROR") as logged:
            self.assertEqual(self.envelopes(), [envelope()])
            self.assertEqual(self.envelopes(), [])
        self.assertEqual(self.dropped(), sorted(poison))
        self.assertEqual(len(logged.output), len(poison))

    def test_what_is_being_written_without_a_lock_is_waited_for(self) -> None:
        """No word is lost on it, and it is taken when it is whole."""
        self.drop(b"##To:one@example.org\n##Fr", age=1.0)
        with self.assertNoLogs("QueueProcessorThread", "ERROR"):
            self.assertEqual(self.envelopes(), [])
        self.drop(age=0.0)
        self.clock.mono += 1.0
        self.assertEqual([lease.envelope for lease in self.queue.claim()], [envelope()])

    def test_a_file_that_vanishes_is_no_trouble(self) -> None:
        """Another daemon, or its writer, was faster; 2.3 died."""

        class Vanishing(Disk):
            def rename(self, old: str, new: str) -> None:
                if old.endswith("/123456"):
                    os.remove(old)
                super().rename(old, new)

        self.queue = self.open(disk=Vanishing())
        self.drop()
        with self.assertNoLogs("QueueProcessorThread", "WARNING"):
            self.assertEqual(self.envelopes(), [])

    def test_a_file_that_cannot_be_taken_away_is_never_sent(self) -> None:
        """Else it would be sent again and again.  It is told once; other mail flows."""

        class Refusing(Disk):
            def rename(self, old: str, new: str) -> None:
                if old.endswith("/mine"):
                    raise PermissionError(13, "Permission denied", old)
                super().rename(old, new)

        self.queue = self.open(disk=Refusing())
        self.drop(name="mine")
        self.drop(name="yours")
        with self.assertLogs("QueueProcessorThread", "ERROR") as logged:
            self.assertEqual(self.envelopes(), [envelope()])
            self.assertEqual(self.envelopes(), [])
        self.assertEqual(len(logged.output), 1)
        self.assertEqual(self.dropped(), ["mine"])


class MessageIds(SpoolTest):
    def text(self, text: bytes) -> bytes:
        self.drop(b"##To:one@example.org\n##From:\n" + text)
        [lease] = self.claim()
        with lease.open() as stream:
            sent = stream.read()
        with lease.open() as stream:
            self.assertEqual(stream.read(), sent)
        lease.release()
        [again] = self.claim()
        with again.open() as stream:
            self.assertEqual(stream.read(), sent)
        self.assertTrue(not again.message_id or again.message_id.encode() in sent)
        self.addCleanup(again.release)
        return sent

    def test_a_message_without_one_gets_one_that_stays(self) -> None:
        """The same at each attempt; 2.3 made a new one each time."""
        self.queue = self.open(add_message_id=True)
        body = b"x" * 3_000_000 + b"\n"
        first, rest = self.text(b"Subject: x\n\n" + body).split(b"\n", 1)
        self.assertRegex(first, rb"^Message-Id: <.*123456.*@.*>$")
        self.assertEqual(rest, b"Subject: x\n\n" + body)

    def test_a_message_never_has_two(self) -> None:
        """A given one is kept, and one that is none as well."""
        self.queue = self.open(add_message_id=True)
        for text in (b"Message-ID: <1@example.org>\n\n", b"Message-ID: nothing that is one\n\n"):
            self.assertEqual(self.text(text), text)

    def test_nothing_is_added_unless_wanted(self) -> None:
        """ADD_MESSAGEID=0."""
        self.assertEqual(self.text(TEXT), TEXT)


class SeveralDirectories(SpoolTest):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.spool + "-2"
        os.mkdir(self.other)
        location = f" {self.spool} ;{self.other}; "
        self.several = open_spool(location, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(self.several.close)

    def test_all_are_read_and_the_first_is_written(self) -> None:
        """As the list in the configuration says."""
        self.drop()
        self.drop(spool=self.other)
        staged = self.several.stage()
        name = staged.add(envelope(), TEXT)
        staged.prepare()
        staged.commit()
        self.assertIn(name, os.listdir(self.path(".queue/new")))
        self.assertEqual(len(self.several.claim(5)), 3)

    def test_one_in_trouble_does_not_keep_the_others(self) -> None:
        """What can be sent is sent; then the trouble is told."""
        assert isinstance(self.several, SeveralSpools)
        os.rmdir(self.other)
        self.drop(name="spool-2", spool=os.path.dirname(self.spool))
        self.drop()
        self.assertEqual([lease.envelope for lease in self.several.claim(5)], [envelope()])
        self.assertRaises((OSError, ValueError), self.several.claim, 5)

    def test_a_list_without_directories_is_refused(self) -> None:
        """With what to write."""
        self.assertRaisesRegex(QueueError, "spool:/path", open_spool, " ; ")


class StrangePlaces(SpoolTest):
    """Everybody may make names in ``/tmp``, where 2.3 had its spool."""

    def setUp(self) -> None:
        super().setUp()
        self.common = self.enterContext(tempfile.TemporaryDirectory())
        os.chmod(self.common, 0o1777)

    def test_a_symbolic_link_there_is_not_followed(self) -> None:
        """Somebody may have made it to get at mail, or at files."""
        os.symlink(self.spool, self.common + "/maildrop")
        queue = SpoolQueue(self.common + "/maildrop/spool")
        self.assertRaisesRegex(QueueError, "symbolic link", queue.stage)
        self.assertEqual(os.listdir(self.spool), [])

    def test_who_holds_a_mail_does_not_follow_it_either(self) -> None:
        """Operators are asked for no less than daemons."""
        with tempfile.TemporaryDirectory() as theirs:
            os.chmod(self.spool, 0o1777)
            for name in ("tmp", "new", "cur"):
                os.mkdir(os.path.join(theirs, name))
            os.symlink(theirs, self.path(".queue"))
            self.drop()
            self.assertRaises(QueueError, self.queue.admin.hold, next(self.queue.admin.names()))
            self.assertEqual(os.listdir(os.path.join(theirs, "new")), [])

    def test_a_directory_of_our_own_there_is_used(self) -> None:
        """So the old default goes on to work."""
        queue = SpoolQueue(self.common + "/maildrop/spool")
        self.addCleanup(queue.close)
        self.assertEqual(queue.claim(), [])
        self.assertEqual(os.stat(self.common + "/maildrop").st_mode & 0o777, 0o700)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give files away")
    def test_somebody_elses_directory_there_is_not_used(self) -> None:
        """They could read and change what is in it."""
        os.mkdir(self.common + "/maildrop")
        os.chown(self.common + "/maildrop", 12345, 12345)
        queue = SpoolQueue(self.common + "/maildrop")
        self.assertRaisesRegex(QueueError, "user 12345", queue.claim)
