"""What the doctor of a Maildir queue sees, and that it changes nothing."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import tempfile
import unittest
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, BinaryIO
from unittest import mock

from zope.sendmail.lifecycle.finding import Finding, age, moment
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record, write_record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import unique_name
from zope.sendmail.message.envelope import Envelope, envelope_lines
from zope.sendmail.queue.maildir.layout import COMPACTED, RESERVE
from zope.sendmail.queue.maildir.liveness import Liveness, Origin
from zope.sendmail.queue.maildir.ownertext import Phase
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import LATER, NEVER, SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk, RecordingDisk

ENVELOPE = Envelope("sender@example.org", ("one@example.org",))
MESSAGE = b"Message-Id: <1@example.org>\n\nText\n"
FILE = envelope_lines(ENVELOPE, MESSAGE) + MESSAGE
DAY = 86400.0

#: The name of an older release's mail, and its time.
OLD, OLD_TIME = "1600000000.1.old.12345", 1600000000.0


class QuietDisk(RecordingDisk):
    """Has much room, whatever the machine of the test has."""

    #: A directory in which nothing is seen.
    hidden = "/"
    free = 10 * 2**30
    total = 100 * 2**30
    inodes = 1000
    flags = 0

    def names(self, path: str) -> list[str]:
        return [] if os.path.basename(path) == self.hidden else super().names(path)

    def room(self, path: str) -> Any:
        return SimpleNamespace(
            f_bavail=self.free,
            f_frsize=1,
            f_blocks=self.total,
            f_files=10_000,
            f_favail=self.inodes,
            f_flag=self.flags,
        )


class DoctorTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "my queue")
        self.disk = QuietDisk(self.path)
        self.clock = ManualClock(float(unique_name().partition(".")[0]))
        self.queue = self.open(self.disk)

    def open(self, disk: Disk | None = None) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def put(self, count: int = 1) -> list[str]:
        staged = self.queue.stage()
        names = [staged.add(ENVELOPE, MESSAGE) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names

    def file(self, path: str, content: bytes = FILE, modified: float | None = None) -> str:
        """A file in the queue that somebody else wrote."""
        self.queue.stage()  # makes the directories
        full = os.path.join(self.path, path)
        Disk().create(full, content)
        seconds = self.clock.time() if modified is None else modified
        os.utime(full, (seconds, seconds))
        return full

    def settle(self, lease: Any, reply: Reply) -> None:
        outcome = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, reply))
        now = self.clock.time()
        lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=now, chance=0.5))

    def die(self, work: Callable[[MaildirQueue], object]) -> int:
        """Let a process do `work` with the queue and die without cleaning up; return its number."""
        child = os.fork()
        if not child:
            try:
                work(MaildirQueue(self.path, schedule=SCHEDULE))
            finally:
                os._exit(9)
        os.waitpid(child, 0)
        return child

    def snapshot(self) -> dict[str, Any]:
        """Everything about every file."""
        tree = {}
        for directory, _, files in os.walk(self.path):
            for path in [directory, *(os.path.join(directory, name) for name in files)]:
                status = os.lstat(path)
                content = Disk().read(path) if stat.S_ISREG(status.st_mode) else b""
                tree[path] = (status.st_ino, status.st_mode, status.st_nlink, status.st_mtime_ns, content)
        return tree

    def examine(self) -> list[Finding]:
        """What the doctor finds; whatever it is, nothing changes."""
        before = self.snapshot()
        self.disk.ops.clear()
        found = list(self.queue.admin.examine())
        self.assertEqual(self.disk.ops, [])
        self.assertEqual(self.snapshot(), before)
        for finding in found:
            self.assertTrue(finding.text.endswith(".") and finding.cure.endswith("."), finding)
        return found

    def one(self, kind: str, severity: str, name: str) -> Finding:
        """The only finding."""
        found = self.examine()
        self.assertEqual([(each.kind, each.severity, each.name) for each in found], [(kind, severity, name)], found)
        return found[0]

    def assertHealthy(self) -> None:
        self.assertEqual(self.examine(), [])


class AHealthyQueue(DoctorTest):
    def test_that_was_never_used_is_left_alone(self) -> None:
        """There is nothing, and nothing is made."""
        self.assertHealthy()
        self.assertFalse(os.path.exists(self.path))

    def test_has_mail_that_waits_for_its_time(self) -> None:
        """Fresh, deferred, and staged by a process that lives."""
        self.put(3)
        self.settle(self.queue.claim()[0], LATER)
        self.queue.stage().add(ENVELOPE, MESSAGE)
        self.assertHealthy()

    def test_has_processors_at_work(self) -> None:
        """A living lease is no finding."""
        self.put()
        self.queue.claim()
        self.assertHealthy()


class StagedMail(DoctorTest):
    def test_of_a_dead_process_is_in_doubt(self) -> None:
        """It needs a person, who finds the command in the cure."""
        child = self.die(lambda queue: queue.stage().add(ENVELOPE, MESSAGE))
        [name] = os.listdir(os.path.join(self.path, "tmp"))
        found = self.one("in-doubt", "problem", f"tmp/{name}")
        self.assertIn(f"process {child}, which made it, is dead", found.text)
        self.assertIn(moment(float(name.partition(".")[0])), found.text)
        self.follow(found)
        self.assertEqual([lease.name for lease in self.queue.claim()], [name])

    def test_of_one_transaction_is_told_together(self) -> None:
        """The cure reveals all of its mails."""

        def stage_two(queue: MaildirQueue) -> None:
            staged = queue.stage()
            staged.add(ENVELOPE, MESSAGE)
            staged.add(ENVELOPE, MESSAGE)

        self.die(stage_two)
        [group] = os.listdir(os.path.join(self.path, "tmp"))
        self.follow(self.one("in-doubt", "problem", f"tmp/{group}"))
        self.assertEqual(len(self.queue.claim(9)), 2)

    def test_of_a_large_transaction_as_well(self) -> None:
        """Its bundle is in the same group, and each mail is counted."""

        def stage_many(queue: MaildirQueue) -> None:
            staged = queue.stage()
            for _ in range(20):
                staged.add(ENVELOPE, MESSAGE)

        self.die(stage_many)
        [group] = os.listdir(os.path.join(self.path, "tmp"))
        self.assertEqual(self.queue.admin.count(), {State.STAGED: 20})
        self.follow(self.one("in-doubt", "problem", f"tmp/{group}"))
        found = self.one("committed", "note", f"new/.group-{group}")
        self.assertIn("(20) are committed", found.text)
        self.assertEqual(len(self.queue.claim(30)), 20)

    def follow(self, finding: Finding) -> None:
        """Do what the cure says for a transaction that committed."""
        program, queue, verb, location, name = shlex.split(finding.command_lines(self.path)[0])
        self.assertEqual((program, queue, verb, location), ("zope-sendmail", "queue", "release", self.path))
        self.queue.admin.release(name)

    def test_of_another_host_is_in_doubt_after_a_day(self) -> None:
        """Before, nobody here can tell."""
        name = f"{self.clock.time():.0f}.1.elsewhere.example.org.5"
        self.file(f"tmp/{name}")
        self.assertHealthy()
        self.clock.advance(DAY + 1)
        self.assertIn("host elsewhere.example.org", self.one("in-doubt", "problem", f"tmp/{name}").text)

    def test_of_a_number_that_was_given_again_is_in_doubt(self) -> None:
        """After a reboot another process has it."""
        if not os.path.exists("/proc/self/stat"):
            self.skipTest("only Linux tells when a process was started")
        name = unique_name().replace(unique_name().partition(".")[0], "1600000000", 1)
        self.assertEqual(Origin.of(name), Origin(1600000000.0, os.getpid(), os.uname().nodename))
        self.file(f"tmp/{name}")
        self.one("in-doubt", "problem", f"tmp/{name}")

    def test_of_a_living_process_is_told_after_a_day(self) -> None:
        """Its transaction hangs."""
        name = self.queue.stage().add(ENVELOPE, MESSAGE)
        self.clock.advance(DAY + 600)  # the name has the time of the machine, which may be slow
        self.assertIn(f"process {os.getpid()}", self.one("in-doubt", "warning", f"tmp/{name}").text)

    def test_of_other_programs_is_told_after_a_day(self) -> None:
        """It does no harm; neither does the empty group of a dead process."""
        self.file("tmp/README")
        self.assertHealthy()
        self.clock.advance(DAY + 1)
        self.one("foreign", "note", "tmp/README")
        os.mkdir(os.path.join(self.path, "tmp", OLD))
        self.assertEqual([each.kind for each in self.examine()], ["leftover", "foreign"])

    def test_names_tell_who_made_them(self) -> None:
        """Process and host; foreign names tell nothing."""
        maker = Origin.of(unique_name())
        assert maker is not None
        self.assertEqual((maker.pid, maker.liveness), (os.getpid(), Liveness.ALIVE))
        self.assertEqual(Origin(1.0, 99999999999999999999, maker.host).liveness, Liveness.DEAD)
        for name in ("", "1", "1.2", "1.2.x", "x.2.host.3", "1.y.host.3", "README.md"):
            self.assertIsNone(Origin.of(name), name)


class ACommittedGroup(DoctorTest):
    def setUp(self) -> None:
        super().setUp()
        staged = self.queue.stage()
        names = [staged.add(ENVELOPE, MESSAGE) for _ in range(2)]
        staged.prepare()
        [group] = (name for name in os.listdir(os.path.join(self.path, "tmp")) if name not in names)
        self.group = f"new/.group-{group}"
        os.rename(os.path.join(self.path, "tmp", group), os.path.join(self.path, self.group))

    def test_heals_by_itself(self) -> None:
        """For a moment it is normal."""
        found = self.one("committed", "note", self.group)
        self.assertIn("(2) are committed", found.text)
        self.assertIn("Start a processor", found.cure)

    def test_needs_nothing_while_a_processor_lives(self) -> None:
        """It will look."""
        self.open()._open()
        self.assertIn("None is needed", self.one("committed", "note", self.group).cure)

    def test_waits_like_other_mail(self) -> None:
        """If nobody is at work for long, that is the problem."""
        self.clock.advance(4000)
        self.assertEqual(
            [(each.kind, each.severity) for each in self.examine()], [("committed", "note"), ("waiting", "problem")]
        )


class MailThatWaitsForAPerson(DoctorTest):
    def test_is_held_by_an_operator(self) -> None:
        """Who knows it, so it is a warning only."""
        [name] = self.put()
        self.queue.admin.hold(name)
        self.queue.close()
        self.assertIn("held by an operator", self.one("held", "warning", name).text)

    def test_is_held_because_it_kills_its_workers(self) -> None:
        """The reason is told."""
        [name] = self.put()
        for _ in range(3):
            worker = self.open()
            worker.claim()[0].open()
            worker.close()
        [lease] = self.queue.claim()
        self.assertEqual(lease.record.state, State.HELD)
        lease.release()
        self.queue.close()
        self.assertIn("its worker died 3 times", self.one("held", "problem", name).text)

    def test_is_rejected_in_the_relays_words(self) -> None:
        """From whom, to whom, why; after a day it is no alarm any more."""
        [name] = self.put()
        self.settle(self.queue.claim()[0], NEVER)
        text = self.one("rejected", "warning", name).text
        for words in ("from sender@example.org to one@example.org", "one@example.org: 550 no such user"):
            self.assertIn(words, text)
        self.clock.advance(DAY + 1)
        self.one("rejected", "note", name)

    def test_has_a_cause_in_common_with_others(self) -> None:
        """However the relay names the recipients."""
        for address in "one@example.org", "two@example.org":
            self.put()
            [lease] = self.queue.claim()
            self.settle(lease, Reply(Answer.REJECTED, f"<{address}> no such user", 550, "5.1.1"))
        self.assertEqual({each.cause for each in self.examine()}, {"550 5.1.1 * no such user"})

    def test_was_rejected_by_an_older_release(self) -> None:
        """Without history; its log says why."""
        self.file(f"new/.rejected-{OLD}")
        self.assertIn("an older release did it", self.one("rejected", "problem", OLD).text)

    def test_was_rejected_and_waits_as_well(self) -> None:
        """An older release died between two steps (fault A9 of 7.3)."""
        [name] = self.put()
        new = os.path.join(self.path, "new")
        os.link(os.path.join(new, name), os.path.join(new, f".rejected-{name}"))
        self.one("leftover", "warning", name)

    def test_cannot_do_anything_to_a_terminal(self) -> None:
        """The text is one line without control characters."""
        [name] = self.put()
        self.queue.claim()[0].settle(
            Record(State.HELD, note="a\x1b[2Jb\nc", replies={"x\x07@y": Reply(Answer.DEFERRED, "d\x1be")})
        )
        self.assertNotRegex(self.one("held", "problem", name).text, r"[\x00-\x1f\x7f-\x9f]")


class LocksOfMails(DoctorTest):
    def lock_of_7_3(self, name: str, age: float) -> None:
        """A second name of the message, with the time of the attempt."""
        path = os.path.join(self.path, "new", name)
        os.link(path, os.path.join(self.path, "new", f".sending-{name}"))
        os.utime(path, (self.clock.time() - age,) * 2)

    def test_of_older_releases_age_out(self) -> None:
        """Within three hours; the mail is not said to wait for a processor."""
        [name] = self.put()
        self.lock_of_7_3(name, 3600)
        self.assertIn("given up after three hours: in 2h", self.one("old-lock", "note", name).text)
        self.clock.advance(7201)
        self.assertIn("at the next look", self.one("old-lock", "note", name).text)

    def test_of_older_releases_without_mail_are_left_over(self) -> None:
        """The mail was sent, and 7.3 died before it removed the lock (fault A11)."""
        self.file(f"new/.sending-{OLD}")
        found = self.one("old-lock", "note", OLD)
        self.assertIn("its mail is gone, probably sent", found.text)
        self.assertEqual(found.command_lines(""), [f"rm '{self.path}/new/.sending-{OLD}'"])

    def test_of_older_releases_may_come_from_the_future(self) -> None:
        """Then they do not age."""
        [name] = self.put()
        self.lock_of_7_3(name, -7200)
        self.assertEqual([each.kind for each in self.examine()], ["old-lock", "clock"])

    def test_of_dead_processes_are_taken_over(self) -> None:
        """How far it was is told; only a processor is needed."""
        said = {"claimed": "as far as: claimed).", "intended": "recorded as unknown", "accepted": "not sent again"}
        for phase, words in said.items():
            with self.subTest(phase):
                [name] = self.put()
                self.die(lambda queue, phase=phase: self.work(queue, phase))  # type: ignore[misc]  # bound in this round
                found = {str(each.kind): each for each in self.examine()}
                self.assertEqual(set(found), {"leftover", "orphaned"})
                self.assertEqual((found["orphaned"].name, found["orphaned"].severity), (name, "note"))
                self.assertIn(words, found["orphaned"].text)
                self.assertIn("Start a processor", found["orphaned"].cure)
                self.queue.admin.remove(name)
                self.queue.close()

    def work(self, queue: MaildirQueue, phase: str) -> None:
        [lease] = queue.claim()
        if phase != "claimed":
            lease.open()
            lease.intend()
        if phase == "accepted":
            lease.lock.note(Phase.ACCEPTED, 0)

    def test_of_dead_processes_may_outlive_their_mail(self) -> None:
        """The next look removes them."""
        [name] = self.put()
        self.die(lambda queue: queue.claim())
        os.unlink(os.path.join(self.path, "new", name))
        self.assertEqual(
            [(each.kind, each.severity) for each in self.examine()], [("leftover", "note"), ("leftover", "note")]
        )

    def test_of_nobody_stop_a_mail_for_ever(self) -> None:
        """A directory or a link where a lock would be."""
        [name] = self.put()
        lock = f"new/.sending-{name}"
        os.mkdir(os.path.join(self.path, lock))
        self.assertIn("a directory", self.one("foreign", "problem", lock).text)
        os.rmdir(os.path.join(self.path, lock))
        os.symlink("nowhere", os.path.join(self.path, lock))
        self.assertIn("a symbolic link", self.one("foreign", "problem", lock).text)


class TheDirectoryOfLocks(DoctorTest):
    def test_keeps_the_owner_file_of_a_dead_process(self) -> None:
        """The next processor removes it; the doctor does not stop that."""
        self.die(lambda queue: queue.claim(0))
        names = [each for each in os.listdir(os.path.join(self.path, "locks")) if not each.startswith(RESERVE)]
        self.one("leftover", "note", f"locks/{min(names, key=len)}")
        self.queue.claim(0)
        self.assertFalse(set(names) & set(os.listdir(os.path.join(self.path, "locks"))))

    def test_keeps_what_a_dead_process_had_begun(self) -> None:
        """Further names of its owner file, bells without owner, unfinished owner files."""
        self.die(lambda queue: queue.claim(0))
        locks = os.path.join(self.path, "locks")
        owner = min((each for each in os.listdir(locks) if not each.startswith(RESERVE)), key=len)
        os.link(os.path.join(locks, owner), os.path.join(locks, f".proof-{owner}"))
        os.mkfifo(os.path.join(locks, "1.2.host.3.bell"))
        self.file("locks/.new-1.2.host.3", b"")
        self.assertEqual(len(self.examine()), 2)  # the other two may be of a processor that starts
        self.clock.advance(300)
        names = sorted(each.name for each in self.examine() if (each.kind, each.severity) == ("leftover", "note"))
        self.assertEqual(
            names, sorted(f"locks/{each}" for each in (owner, f".proof-{owner}", "1.2.host.3.bell", ".new-1.2.host.3"))
        )

    def test_may_have_other_things_in_it(self) -> None:
        """They do no harm."""
        self.file("locks/README", b"text")
        os.mkdir(os.path.join(self.path, "locks", "attic"))
        self.assertEqual(
            [(each.kind, each.severity) for each in self.examine()], [("foreign", "note"), ("foreign", "note")]
        )


class FilesThatAreNoMail(DoctorTest):
    def test_are_directories_links_and_fifos(self) -> None:
        """A processor cannot do anything with them."""
        self.queue.stage()
        new = os.path.join(self.path, "new")
        for make, words in (
            (os.mkdir, "a directory"),
            (lambda path: os.symlink("/etc/passwd", path), "a symbolic link"),
            (os.mkfifo, "a FIFO"),
        ):
            path = os.path.join(new, "thing")
            make(path)
            self.assertIn(words, self.one("foreign", "problem", "new/thing").text)
            os.rename(path, os.path.join(self.path, words))

    def test_are_empty_or_without_envelope(self) -> None:
        """The reason is told."""
        self.file(f"new/{OLD}", b"")
        self.assertIn("it is empty", self.one("no-mail", "problem", OLD).text)
        self.file("cur/2.1.host.3:2,S", b"Subject: no envelope\n\n")
        self.assertIn("first line does not begin", self.examine()[0].text)

    def test_cannot_be_read(self) -> None:
        """Permission denied, or the disk is broken."""
        [name, _] = self.put(2)

        class Broken(QuietDisk):
            def open(self, path: str) -> BinaryIO:
                if path.endswith(name):
                    raise PermissionError(errno.EACCES, "Permission denied", path)
                return super().open(path)

        self.disk = Broken(self.path)
        self.queue = self.open(self.disk)
        self.assertIn("Permission denied", self.one("unreadable", "problem", f"new/{name}").text)

    def test_belong_to_somebody_else(self) -> None:
        """Root copied them; whoever looks may be root as well."""
        [name] = self.put()

        class Shared(QuietDisk):
            def stat(self, path: str) -> os.stat_result:
                values = list(super().stat(path))
                values[stat.ST_UID] = 0 if path.endswith(name) else 1234
                return os.stat_result(values)

        self.disk = Shared(self.path)
        self.queue = self.open(self.disk)
        [command] = self.one("owner", "problem", f"new/{name}").command_lines(self.path)
        self.assertEqual(shlex.split(command), ["chown", "1234", f"{self.path}/new/{name}"])

    def test_have_hidden_names(self) -> None:
        """Nobody reads them; NFS makes some itself."""
        self.file("new/.DS_Store", b"x")
        self.file("new/.nfs0001", b"x")
        self.one("foreign", "note", "new/.DS_Store")


class MailThatDoesNotMove(DoctorTest):
    def test_waits_for_a_processor(self) -> None:
        """That is told as soon as a pass would have begun, and is a standstill after minutes; the first is named."""
        names = self.put(3)
        self.clock.advance(3)
        self.assertHealthy()
        self.clock.advance(60)  # the mails may have the next second in their names
        found = self.one("waiting", "warning", names[0])
        self.assertIn("due: 3, the first for 1m", found.text)
        self.assertIn("no processor", found.text)
        self.assertFalse(found.is_standstill)
        self.clock.advance(300)
        self.assertTrue(self.one("waiting", "problem", names[0]).is_standstill)

    def test_waits_for_a_processor_although_others_have_the_queue_open(self) -> None:
        """An operator's console, and an application that sends directly: they lock mails, and send none that waits."""
        name, other = self.put(2)
        self.open().admin.remove(other)
        attempts = self.open().first_attempts()
        self.addCleanup(attempts.close)
        staged = self.queue.stage()
        staged.add(ENVELOPE, MESSAGE)
        staged.prepare()
        attempts.commit(staged)
        self.assertFalse(self.queue.is_attended())
        self.clock.advance(400)
        found = self.one("waiting", "problem", name)
        self.assertIn("no processor", found.text)

    def test_does_not_wait_where_a_processor_could_not_make_a_bell(self) -> None:
        """On a file system without FIFOs it tells of itself all the same."""
        self.put()
        with mock.patch("os.mkfifo", side_effect=PermissionError):
            self.queue.claim(0)
        self.queue.report(ProcessorState(os.getpid(), "here", written=self.clock.time()))
        self.assertTrue(self.queue.is_attended())
        self.clock.advance(400)
        self.assertHealthy()

    def test_waits_for_the_next_pass(self) -> None:
        """Where passes come from cron, nothing is wrong in between; if they stop coming, that is told."""
        [name] = self.put()
        self.queue.report(ProcessorState(1, "here", written=self.clock.time(), ended=self.clock.time(), forever=False))
        self.assertHealthy()
        self.clock.advance(300)
        found = self.one("waiting", "note", name)
        self.assertIn("No processor is at work; the last pass ended 5m ago", found.text)
        self.clock.advance(590)
        self.one("waiting", "note", name)
        self.clock.advance(10)
        self.one("waiting", "problem", name)

    def test_was_left_behind_by_passes(self) -> None:
        """They come, and do not send it."""
        [name] = self.put()
        self.clock.advance(700)
        now = self.clock.time()
        self.queue.report(ProcessorState(1, "here", written=now, ended=now - 60, forever=False))
        self.one("waiting", "problem", name)

    def test_waits_for_its_relay(self) -> None:
        """The finding is about the relay, in its words, and says how many wait and what to do."""
        names = self.put(3)
        self.report_down(Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8"))
        found = self.one("relay", "warning", names[0])
        self.assertIn("3 mails wait: relay default", found.text)
        self.assertIn("535 5.7.8 authentication failed", found.text)
        self.assertIn("correct username and password", found.cure)
        self.clock.advance(400)
        self.assertTrue(self.one("relay", "problem", names[0]).is_standstill)

    def test_waits_for_its_relay_and_for_a_processor(self) -> None:
        """Both are told when the processor that saw the relay down is gone."""
        self.put()
        self.report_down(Reply(Answer.DEFERRED, "refused"))
        self.queue.close()
        self.clock.advance(400)
        self.assertEqual({each.kind for each in self.examine()}, {"relay", "waiting"})

    def report_down(self, fault: Reply) -> None:
        now = self.clock.time()
        relay = RelayState("default", "relay:25", fault=fault, since=now, probe=now + 5, asked=now)
        self.queue.claim(0)
        self.queue.report(ProcessorState(os.getpid(), "here", written=now, relays=(relay,)))

    def test_waits_although_a_processor_lives(self) -> None:
        """Then it is too slow, or its relay is."""
        [name] = self.put()
        self.open()._open()
        self.clock.advance(4000)
        self.assertIn("its relay is too slow", self.one("waiting", "problem", name).text)

    def test_is_not_mail_that_is_not_due(self) -> None:
        """Deferred mail waits for its time, and then counts from there."""
        [name] = self.put()
        self.settle(self.queue.claim()[0], LATER)
        self.queue.close()
        self.clock.advance(59)
        self.assertHealthy()
        self.clock.advance(121)
        self.assertIn("the first for 2m", self.one("waiting", "warning", name).text)


class Histories(DoctorTest):
    def test_may_outlive_their_mail(self) -> None:
        """Somebody removed it by hand."""
        self.file(f"history/{OLD}", write_record(Record(State.DEFERRED)))
        self.one("leftover", "note", f"history/{OLD}")

    def test_may_be_torn(self) -> None:
        """Then nobody knows what happened."""
        [name] = self.put()
        self.file(f"history/{name}", b'{"state":"defer')
        self.one("unreadable", "warning", name)

    def test_may_be_something_else(self) -> None:
        """A directory stops the mail."""
        [name] = self.put()
        os.mkdir(os.path.join(self.path, "history", name))
        self.assertEqual({each.kind for each in self.examine()}, {"unreadable", "foreign"})


class Permissions(DoctorTest):
    def chmod(self, path: str, mode: int) -> None:
        os.chmod(os.path.join(self.path, path), mode)

    def test_of_files_do_not_matter_in_a_private_queue(self) -> None:
        """Nobody else comes there."""
        [name] = self.put()
        self.chmod(f"new/{name}", 0o666)
        self.chmod("new", 0o777)
        self.assertHealthy()

    def test_that_let_others_read(self) -> None:
        """As 7.3 made its directories; told once, with the number."""
        [name] = self.put()
        self.chmod("", 0o755)
        self.one("permissions", "warning", "")
        self.chmod("new", 0o755)
        self.chmod(f"new/{name}", 0o644)
        found = self.one("permissions", "warning", f"new/{name}")
        self.assertIn("mode 0644, and 2 more", found.text)

    def test_that_let_others_write(self) -> None:
        """Who could send mail in our name."""
        self.put()
        self.chmod("", 0o777)
        self.one("permissions", "problem", "")

    def test_that_keep_the_owner_out(self) -> None:
        """Then nothing moves: whatever cannot be read, made or found there."""
        if os.geteuid() != 0:
            self.skipTest("only root can compare what is there before and after")
        self.put()
        self.queue.claim(0)
        for directory in ("new", "cur", "tmp", "locks", "history", "processors"):
            for mode in (0o500, 0o600, 0o300):
                with self.subTest(directory, mode=mode):
                    self.chmod(directory, mode)
                    found = self.one("owner", "problem", directory)
                    self.assertTrue(found.is_standstill)
                    self.assertIn(f"mode {mode:04o}", found.text)
                    [command] = found.command_lines(self.path)
                    self.assertEqual(shlex.split(command), ["chmod", "u+rwx", f"{self.path}/{directory}"])
            self.chmod(directory, 0o700)
        self.assertHealthy()

    def test_that_another_user_gave(self) -> None:
        """As after a restoration by root; a directory that a group shares is no trouble."""
        if os.geteuid() != 0:
            self.skipTest("only root can give a directory away")
        self.put()
        os.chown(os.path.join(self.path, "new"), 1234, -1)
        self.assertIn("user 1234", self.one("owner", "problem", "new").text)
        self.chmod("new", 0o770)
        self.assertHealthy()


class WhatIsInTheWay(DoctorTest):
    """Of the queue's own directories and names."""

    def test_is_a_file_where_a_directory_should_be(self) -> None:
        """No mail can be made there."""
        self.put()
        for name in ("history", "tmp"):
            with self.subTest(name):
                path = os.path.join(self.path, name)
                os.rename(path, path + "-away")
                Disk().create(path)
                found = [each for each in self.examine() if each.name == name]
                self.assertEqual([(each.kind, each.severity) for each in found[:1]], [("foreign", "problem")])
                os.unlink(path)
                os.rename(path + "-away", path)

    def test_is_the_mode_of_the_queue_itself(self) -> None:
        """As seen by its owner, who may not be able to look into it."""
        if os.geteuid() != 0:
            self.skipTest("only root can compare what is there before and after")
        self.put()
        self.queue.claim(0)
        self.chmod("", 0o500)
        self.assertTrue(self.one("owner", "problem", ".").is_standstill)

        class Closed(QuietDisk):
            def names(self, path: str) -> list[str]:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        self.disk = Closed(self.path)
        self.queue = self.open(self.disk)
        self.one("owner", "problem", ".")

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(os.path.join(self.path, path), mode)

    def test_is_a_name_that_leaves_no_room_for_a_lock(self) -> None:
        """The next processor shortens it."""
        self.file("new/" + "x" * 250)
        found = [each for each in self.examine() if each.name == "new/" + "x" * 250]
        self.assertEqual(len(found), 1, found)

    def test_is_no_history_that_is_being_compacted(self) -> None:
        """Nor one that a death has left of that; of a mail that is gone it is in the way."""
        [name] = self.put()
        self.settle(self.queue.claim()[0], LATER)
        self.file(f"history/{COMPACTED}{name}", b"")
        self.assertHealthy()
        self.file(f"history/{COMPACTED}1.2.gone.3", b"")
        self.one("leftover", "note", f"history/{COMPACTED}1.2.gone.3")

    def test_is_a_history_of_another_user(self) -> None:
        """Root wrote it; the processor cannot read it."""
        [name] = self.put()
        self.settle(self.queue.claim()[0], LATER)

        class Shared(QuietDisk):
            def stat(self, path: str) -> os.stat_result:
                values = list(super().stat(path))
                values[stat.ST_UID] = 0 if "/history/" in path else 1234
                return os.stat_result(values)

        self.disk = Shared(self.path)
        self.queue = self.open(self.disk)
        self.assertIn(f"history/{name}", [each.name for each in self.examine() if each.kind == "owner"])

    def test_is_nothing_while_a_transaction_begins_its_group(self) -> None:
        """There is no mail in it yet; and its process lives."""
        staged = self.queue.stage()
        staged.add(ENVELOPE, MESSAGE)
        staged.add(ENVELOPE, MESSAGE)
        [group] = os.listdir(os.path.join(self.path, "tmp"))
        self.disk.hidden = group
        self.assertHealthy()
        staged.abort()

    def test_is_nothing_of_a_group_that_is_being_unfolded(self) -> None:
        """Its last mail has left it in this moment."""
        self.queue.stage()
        os.mkdir(os.path.join(self.path, "new", ".group-1.2.host.3"), 0o700)
        self.assertHealthy()


class LocksWithoutOwnerFile(DoctorTest):
    """As they are made on a full disk: a mark in the time stamp of the mail says how far its processor was."""

    def lock(self, name: str, digits: int = 888_883_000) -> str:
        path = os.path.join(self.path, "new", name)
        os.utime(path, ns=(int(self.clock.time()) * 10**9 + digits,) * 2)
        os.link(path, os.path.join(self.path, "new", ".sending-" + name))
        return path

    def test_of_dead_processes_are_taken_over(self) -> None:
        """It is told how far they were."""
        [name] = self.put()
        self.lock(name)
        self.clock.advance(700)
        found = {str(each.kind): each for each in self.examine()}
        self.assertIn("recorded as unknown", found["orphaned"].text)

    def test_of_living_processes_are_no_findings(self) -> None:
        """They have the mail locked."""
        [name] = self.put()
        with self.disk.locked(self.lock(name)):
            self.assertHealthy()


class RelaysOfOne(DoctorTest):
    def test_that_cannot_be_used_are_told_though_no_mail_waits(self) -> None:
        """Another one has its mail; when that fails, there is none."""
        self.put()
        self.queue.claim(0)
        now = self.clock.time()
        down = RelayState("b", "b:25", fault=Reply(Answer.DEFERRED, "refused"), since=now, probe=now + 5, asked=now)
        whole = RelayState("default", "a:25", asked=now, members=(RelayState("a", "a:25", asked=now), down))
        self.queue.report(ProcessorState(os.getpid(), "here", written=now, relays=(whole,)))
        found = self.examine()
        self.assertEqual([each.kind for each in found], ["relay"])
        self.assertIn("b", found[0].text)


class Room(DoctorTest):
    def test_is_short(self) -> None:
        """Below 1 GiB somebody should look, below 64 MiB or without inodes no mail can be committed."""
        self.put()
        self.disk.free = 2**29
        self.assertIn("512 MiB", self.one("room", "warning", "").text)
        self.disk.free = 2**20
        self.assertIn("1 MiB", self.one("room", "problem", "").text)
        self.disk.inodes = 0
        self.assertIn("no inodes", self.one("room", "problem", "").text)

    def test_is_not_short_because_the_file_system_is_small_or_large(self) -> None:
        """Of a small one a share counts, not octets that it never had; 1 % of a large one is much."""
        self.put()
        for total, free, severity in (
            (100 * 2**20, 60 * 2**20, ""),
            (100 * 2**20, 4 * 2**20, "warning"),
            (100 * 2**20, 2**20, "problem"),
            (2**40, 2**31, ""),
            (2**40, 2**29, "warning"),
            (2**40, 2**25, "problem"),
        ):
            self.disk.total, self.disk.free = total, free
            with self.subTest(total=total, free=free):
                if severity:
                    self.one("room", severity, "")
                else:
                    self.assertHealthy()

    def test_is_taken_by_a_list_of_sent_mail_that_is_none(self) -> None:
        """A file of gigabytes, which each question for the status of a mail reads."""
        self.put()
        sent = os.path.join(self.path, "sent")
        os.makedirs(sent, exist_ok=True)
        with open(os.path.join(sent, "2026-11-30"), "wb") as file:
            file.truncate(2**30)
        self.assertHealthy()
        os.truncate(os.path.join(sent, "2026-11-30"), 3 * 2**30)
        self.assertIn("3,072 MiB", self.one("room", "warning", "sent/2026-11-30").text)

    def test_cannot_be_written_to(self) -> None:
        """A file system that was mounted read-only after an error: nothing moves."""
        self.put()
        self.disk.flags = os.ST_RDONLY
        found = self.one("room", "problem", "")
        self.assertTrue(found.is_standstill)
        self.assertIn("read-only", found.text)


class Clocks(DoctorTest):
    def test_that_were_set_back(self) -> None:
        """Names and records from the future are told once."""
        self.put(2)
        self.clock.wall -= 1000
        self.assertIn("and 1 more", self.examine()[0].text)
        self.assertEqual([(each.kind, each.severity) for each in self.examine()], [("clock", "warning")])


class AQueueThatCannotBeRead(DoctorTest):
    def test_is_a_finding(self) -> None:
        """The doctor does not fail."""
        Disk().create(self.path, b"a file")
        found = list(self.queue.admin.examine())
        self.assertEqual([(each.kind, each.severity) for each in found], [("unreadable", "problem")])

    def test_is_told_whatever_the_disk_refuses(self) -> None:
        """Each call in turn: all the rest is still seen."""
        self.put(2)
        self.queue.admin.hold(self.put()[0])
        self.die(lambda queue: queue.stage().add(ENVELOPE, MESSAGE))
        self.die(lambda queue: queue.claim())
        self.file(f"new/.rejected-{OLD}")
        self.queue.close()
        counting = FaultyDisk()
        whole = len(list(self.open(counting).admin.examine()))
        for number in range(1, counting.calls + 1):
            found = list(self.open(FaultyDisk(number, errno.EACCES)).admin.examine())
            with self.subTest(number):
                self.assertTrue(any(each.kind == "unreadable" for each in found))
        self.assertGreater(whole, 4)

    def test_may_change_while_it_is_read(self) -> None:
        """What vanishes is no finding."""
        self.put(2)
        self.settle(self.queue.claim()[0], LATER)
        counting = FaultyDisk()
        list(self.open(counting).admin.examine())
        for number in range(1, counting.calls + 1):
            found = list(self.open(FaultyDisk(number, errno.ENOENT)).admin.examine())
            with self.subTest(number):
                self.assertNotIn("problem", [each.severity for each in found])


class Durations(unittest.TestCase):
    def test_have_two_units(self) -> None:
        """The two largest."""
        for seconds, text in {-5: "0s", 0: "0s", 59: "59s", 60: "1m", 3600 + 720: "1h 12m", 86405: "1d"}.items():
            self.assertEqual(age(seconds), text)
        self.assertEqual(age(200 * DAY + 3600), "200d")

    def test_moments_may_be_impossible(self) -> None:
        """A foreign name can say anything."""
        self.assertEqual(moment(1e300), "an impossible time")


if __name__ == "__main__":
    unittest.main()
