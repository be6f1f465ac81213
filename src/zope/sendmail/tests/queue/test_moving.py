"""Mail moves from any queue to any other: whole, once, and whenever the move is killed."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import shutil
import sys
import tempfile
import time
import unittest
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from zope.sendmail.cli.queuecommands import main
from zope.sendmail.errors import KeyTaken, QueueError
from zope.sendmail.lifecycle.mailstatus import Standing
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.moving import move, rehearse, transits_of
from zope.sendmail.queue.transit import Traveller
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import programs, shared_server

_LATER = Record(
    State.DEFERRED,
    attempts=2,
    time=1_700_000_000.0,
    due=4_000_000_000.0,
    spent=60.0,
    relay="relay:25",
    replies={
        "b@example.org": Reply(Answer.DEFERRED, "greylisted", 450, "4.7.1"),
        "c@example.org": Reply(Answer.ACCEPTED, "ok", 250),
    },
)
_NO = Record(
    State.REJECTED, attempts=1, time=1_700_000_000.0, replies={"b@example.org": Reply(Answer.REJECTED, "no", 550)}
)


class Fixture(unittest.TestCase):
    """Queues of every kind."""

    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self._count = itertools.count()

    def place(self, kind: str) -> str:
        """Return the location of a new queue."""
        path = os.path.join(self.directory, f"{kind}{next(self._count)}")
        if kind == "maildir":
            return path
        if kind == "spool":
            os.mkdir(path)
            return f"spool:{path}"
        programs()  # skips
        server = shared_server()
        if kind == "postgresql":
            return server.url()
        from zope.sendmail.queue.postgresql.upkeep import migrate

        url = server.url("q", server.create_database())
        migrate(url)
        return url

    def open(self, location: str, clock: Clock | None = None) -> Any:
        """Return a queue for the length of a block."""
        return contextlib.closing(open_queue(location, **({"clock": clock} if clock else {})))

    def put(self, location: str, count: int, text: bytes = b"text") -> None:
        with self.open(location) as queue:
            put(queue, [Envelope("", ("b@example.org",))] * count, text)

    def names(self, location: str) -> list[str]:
        with self.open(location) as queue:
            return list(queue.admin.names())

    def move(self, source: str, target: str) -> list[Any]:
        with self.open(source) as one, self.open(target) as other:
            return list(move(transits_of(one, source), transits_of(other, target)[0]))

    def seen(self, location: str) -> list[Any]:
        """What an operator sees: everything but the names."""
        found = []
        with self.open(location) as queue:
            for mail in map(queue.admin.show, queue.admin.names()):
                with queue.admin.read(mail.name) as stream:
                    told = (mail.state, mail.envelope, mail.message_id, int(mail.since), mail.due, tuple(mail.history))
                    found.append((stream.read(), *told))
        return sorted(found, key=lambda each: each[0])


class AMove(Fixture):
    """Of mails in every state."""

    def fill(self, location: str) -> None:
        with self.open(location) as queue:
            self.fill_queue(queue)

    def fill_queue(self, queue: Any) -> None:
        envelopes = [
            Envelope("a@example.org", ("b@example.org",), trace=f"00-{'a' * 32}-{'b' * 16}-01"),
            Envelope("", ("b@example.org", "c@example.org"), (), RelayName(hostname="relay.example.org", port=26)),
            Envelope(
                "ä@example.org",
                ("b@example.org",),
                (),
                RelayName(mailer="bulk"),
                terms=Terms(expires=4_000_000_000.0, priority=Priority.HIGH),
            ),
            Envelope("a@example.org", ("b@example.org",)),
        ]
        for number, envelope in enumerate(envelopes):
            put(queue, [envelope], f"Message-Id: <{number}@example.org>\n\nX-Zope-To: é{number}".encode() + b"\xff" * 9)
        leases = queue.claim(4)
        leases[1].intend()
        leases[1].settle(Record(State.READY, attempts=1, time=1_600_000_000.0))
        for lease in (leases[0], *leases[2:]):
            lease.release()
        for lease in queue.claim(4):
            with lease.open() as stream:
                number = stream.read(14)[-1:].decode()
            if number in "02":
                lease.release()
            else:
                lease.intend()
                lease.settle(_LATER if number == "1" else _NO)
        queue.admin.hold(next(mail.name for mail in queue.admin.mails() if mail.message_id[:1] == "2"))

    def goes(self, one: str, other: str) -> None:
        source, target = self.place(one), self.place(other)
        self.fill(source)
        before = self.seen(source)
        moved = self.move(source, target)
        self.assertEqual([each.error for each in moved], [""] * 4)
        self.assertEqual(self.seen(source), [])
        self.assertEqual(self.seen(target), before)
        there = {each.there.partition(",")[0] for each in moved}
        self.assertEqual(there, {name.partition(",")[0] for name in self.names(target)})
        with self.open(target) as queue:
            self.assertEqual(len(queue.claim(9)), 1)

    def test_from_a_maildir_to_another(self) -> None:
        """With its name."""
        self.goes("maildir", "maildir")

    def test_from_a_maildir_to_a_spool_and_back(self) -> None:
        """In either direction."""
        self.goes("maildir", "spool")
        self.goes("spool", "maildir")

    def test_from_a_maildir_to_a_database_and_back(self) -> None:
        """In either direction."""
        self.goes("maildir", "postgresql")
        self.goes("postgresql", "maildir")
        self.goes("spool", "postgresql")

    def test_from_a_database_to_another(self) -> None:
        """And from one queue to another one in the same."""
        self.goes("postgresql", "other")
        self.goes("postgresql", "postgresql")

    def test_of_a_mail_that_leaves_later(self) -> None:
        """It leaves when its sender wanted that, wherever it is."""
        later = Envelope("", ("b@example.org",), terms=Terms(not_before=4_000_000_000.0))
        for one, other in (("maildir", "postgresql"), ("postgresql", "maildir"), ("maildir", "maildir")):
            source, target = self.place(one), self.place(other)
            with self.open(source) as queue:
                put(queue, [later], b"text")
            self.move(source, target)
            with self.open(target) as queue:
                self.assertEqual((queue.claim(), queue.admin.count()), ([], {State.SCHEDULED: 1}))

    def test_of_what_programs_have_dropped(self) -> None:
        """Which is taken in on its way."""
        source, target = self.place("spool"), self.place("maildir")
        path = source.partition(":")[2]
        with open(os.path.join(path, "dropped"), "w", encoding="ascii") as file:
            file.write("##To:b@example.org\n##From:a@example.org\ntext")
        self.move(source, target)
        self.assertEqual([each[0] for each in self.seen(target)], [b"text"])

    def test_of_a_large_mail(self) -> None:
        """In pieces."""
        source, between, target = self.place("maildir"), self.place("postgresql"), self.place("maildir")
        message = b"Subject: large\n\n" + bytes(range(256)) * 5000
        self.put(source, 1, message)
        self.move(source, between)
        self.move(between, target)
        self.assertEqual([each[0] for each in self.seen(target)], [message])

    def test_leaves_what_is_being_sent(self) -> None:
        """And says so; nothing of it is in the other queue."""
        for one, other in (("maildir", "postgresql"), ("postgresql", "maildir")):
            source, target = self.place(one), self.place(other)
            self.put(source, 2)
            with self.open(source) as queue:
                [lease] = queue.claim(1)
                lease.intend()
                moved = self.move(source, target)
                self.assertEqual(Counter("is being sent" in each.error for each in moved), {True: 1, False: 1})
                self.assertEqual(len(self.seen(target)), 1)
                lease.settle(Record(State.SENT))
            self.assertEqual((self.move(source, target), self.seen(source)), ([], []))

    def test_refuses_to_go_nowhere(self) -> None:
        """To the same queue, whatever it is called; from or to the memory of a program."""
        for kind in ("maildir", "postgresql"):
            source = self.place(kind)
            self.put(source, 1)
            other = f"{source}/../{os.path.basename(source)}" if kind == "maildir" else f"{source}&connect_timeout=9"
            with self.assertRaisesRegex(QueueError, "same queue"):
                self.move(source, other)
            with self.assertRaisesRegex(QueueError, "cannot be moved"):
                self.move(source, "memory:")
            self.assertEqual(len(self.seen(source)), 1)


class AMoveThatIsInterrupted(Fixture):
    """The disk refuses one call of one queue; what a kill at any moment leaves is in `AMoveThatIsKilled`."""

    kind = "maildir"

    def setUp(self) -> None:
        super().setUp()
        self.places = [self.place(self.kind), self.place(self.kind)]
        self.put(self.places[0], 3)

    def between(self) -> tuple[int, int]:
        """Return how many mails have left the one queue for another, and have arrived in the other, unseen."""
        return _files(self.places[0], "moved"), _files(self.places[1], "arriving")

    def interrupted(self, refusing: str) -> None:
        """Begin a move whose source or target refuses this."""
        with self.open(self.places[0]) as one, self.open(self.places[1]) as other:
            source, target = one.transits[0], other.transits[0]
            mine = source if refusing in {"leave", "forget"} else target
            self.enterContext(mock.patch.object(mine, refusing, side_effect=OSError(errno.EIO, "the disk refuses")))
            with self.assertRaisesRegex(OSError, "the disk refuses"):
                list(move([source], target))

    def counts(self) -> list[int]:
        return [len(self.names(place)) for place in self.places]

    def test_is_finished_by_the_next_one(self) -> None:
        """Each mail comes up once, and nothing else is left of it in either queue."""
        for refusing in ("arrive", "leave", "appear", "forget"):
            with self.subTest(refusing):
                self.setUp()
                self.interrupted(refusing)
                has_left = refusing in {"appear", "forget"}
                self.assertEqual(self.counts(), [0 if has_left else 3, 3 if refusing == "forget" else 0])
                moved = self.move(*self.places)
                self.assertEqual(sorted(each.there for each in moved), self.names(self.places[1]))
                self.assertEqual((self.counts(), self.move(*self.places)), ([0, 3], []))
                self.assertEqual(self.between(), (0, 0))

    def test_is_rehearsed_with_what_has_left(self) -> None:
        """That is where it would go on."""
        self.interrupted("appear")
        with self.open(self.places[0]) as one, self.open(self.places[1]) as other:
            found = list(rehearse(one.transits, other.transits[0]))
        self.assertEqual([bool(each.there) for each in found], [True] * 3)

    def test_leaves_nothing_of_what_was_sent_meanwhile(self) -> None:
        """It arrived in the other queue and never left its own one: what arrived is thrown away."""
        self.interrupted("leave")
        with self.open(self.places[0]) as queue:
            [lease] = queue.claim(1)
            lease.settle(Record(State.SENT))
        self.assertEqual(len(self.move(*self.places)), 2)
        self.assertEqual((self.counts(), self.between()), ([0, 2], (0, 0)))

    def test_is_left_alone_by_one_from_another_queue(self) -> None:
        """What has arrived says where it came from."""
        self.interrupted("leave")
        other = self.place(self.kind)
        self.put(other, 2)
        self.move(other, self.places[1])
        self.assertEqual(self.between(), (0, 3))
        self.move(*self.places)
        self.assertEqual(self.counts(), [0, 5])

    def test_is_told_by_both_doctors(self) -> None:
        """When no process can be at work on it any more; how many mails, and what to do."""
        self.interrupted("leave")
        clock = _Tomorrow()
        for place, directory in ((self.places[1], "arriving"), (self.places[0], "moved")):
            with self.open(place) as queue:
                self.assertEqual([each.kind for each in queue.admin.examine()], [])
            with self.open(place, clock) as queue:
                found = [each for each in queue.admin.examine() if each.name.startswith(directory)]
                self.assertEqual(len(found), 1)
                self.assertIn(": 3.", found[0].text)
            if directory == "arriving":
                self.move(*self.places)
                self.put(self.places[0], 3)
                self.interrupted("appear")


class AMoveWithinADatabaseThatIsInterrupted(AMoveThatIsInterrupted):
    """The database refuses."""

    kind = "postgresql"

    def between(self) -> tuple[int, int]:
        """As the doctor counts them."""
        with self.open(self.places[0]) as one, self.open(self.places[1]) as other:
            arrived = list(other.transits[0].arrived(one.transits[0].origin))
            return len(list(one.transits[0].traces())), len(arrived)

    def test_is_told_by_both_doctors(self) -> None:
        """How many mails, and what to do."""
        self.interrupted("leave")
        self.is_told(self.places[1])
        self.move(*self.places)
        self.put(self.places[0], 3)
        self.interrupted("appear")
        self.is_told(self.places[0])

    def is_told(self, place: str) -> None:
        with self.open(place) as queue:
            [found] = [each for each in queue.admin.examine() if each.kind == "moving"]
        self.assertIn(": 3.", found.text)


class AMailThatMoves(Fixture):
    """One of several."""

    def test_goes_with_others_as_many_as_can_be_locked_together(self) -> None:
        """The next ones go when these have."""
        source, target = self.place("maildir"), self.place("maildir")
        self.put(source, 5)
        names = self.names(source)
        with mock.patch("zope.sendmail.queue.maildir.transit._AT_ONCE", 2):
            self.assertEqual([each.name for each in self.move(source, target)], names)
        self.assertEqual(self.names(target), names)

    def test_may_be_sent_before_its_turn_comes(self) -> None:
        """It goes nowhere, and is nothing to be told of."""
        source, target = self.place("maildir"), self.place("maildir")
        self.put(source, 3)
        with self.open(source) as one, self.open(target) as other:
            names, source_transit = list(one.admin.names()), one.transits[0]
            with mock.patch.object(source_transit, "names", return_value=[names[0], "1.2.gone.3", *names[1:]]):
                moved = list(move([source_transit], other.transits[0]))
        self.assertEqual([each.name for each in moved], names)

    def test_that_was_set_aside_stays_so_without_its_history(self) -> None:
        """That was lost; it is not to be tried again by the other queue."""
        source, target = self.place("maildir"), self.place("maildir")
        self.put(source, 1)
        with self.open(source) as queue:
            [lease] = queue.claim(1)
            lease.settle(_NO)
            [name] = queue.admin.names()
        os.unlink(os.path.join(source, "history", name))
        self.move(source, target)
        with self.open(target) as queue:
            self.assertEqual(queue.admin.count(), {State.REJECTED: 1})

    def test_stays_if_a_maildir_cannot_keep_it(self) -> None:
        """What would be read there is no envelope, or another one."""
        with self.open(self.place("maildir")) as queue:
            [transit] = queue.transits
            for recipients, why in (
                (("a\nX-Zope-To: b@example.org",), "has an envelope that a Maildir cannot keep"),
                ((), "cannot be written to a Maildir"),
            ):
                envelope = Envelope("", recipients)
                mail = Traveller("1.2.three.4", 1.0, State.READY, [], envelope, 4, lambda: io.BytesIO(b"text"))
                self.assertIn(why, transit.refusal(mail, "elsewhere"))

    def test_is_not_told_by_a_doctor_that_comes_as_the_move_ends(self) -> None:
        """Between the look at the directory and that at the mail."""
        location = self.place("maildir")
        self.put(location, 1)
        arriving = os.path.join(location, "arriving")
        os.makedirs(arriving)
        with open(os.path.join(arriving, "1.2.three.4"), "wb"), self.open(location, _Tomorrow()) as queue:
            self.assertIn("moving", [each.kind for each in queue.admin.examine()])
            real = Disk.stat

            def stat(disk: Disk, path: str) -> os.stat_result:
                if os.path.dirname(path) == arriving:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                return real(disk, path)

            with mock.patch.object(Disk, "stat", stat):
                self.assertNotIn("moving", [each.kind for each in queue.admin.examine()])

    def test_stays_if_a_database_cannot_keep_it(self) -> None:
        """CPSMailAccess has written the login of its relay into it; the others go."""
        source, target = self.place("maildir"), self.place("postgresql")
        self.put(source, 2)
        path = os.path.join(source, "new", self.names(source)[0])
        with open(path, "w", encoding="ascii") as file:
            file.write("X-Zope-From: \nX-Zope-To: b@example.org\nX-Zope-Hostname: relay\nX-Zope-Port: 25\n")
            file.write("X-Zope-Username: me\nX-Zope-Password: S3cret\n\ntext")
        moved = self.move(source, target)
        self.assertEqual(sorted("has a login in it" in each.error for each in moved), [False, True])
        self.assertEqual((len(self.names(source)), len(self.names(target))), (1, 1))

    def test_stays_if_it_is_in_the_database_already(self) -> None:
        """A copy of the Maildir was moved there before."""
        source, copy, target = self.place("maildir"), self.place("maildir"), self.place("postgresql")
        self.put(source, 1)
        shutil.copytree(source, copy)
        self.move(copy, target)
        [moved] = self.move(source, target)
        self.assertIn("in the other queue already", moved.error)
        self.assertEqual((len(self.names(source)), len(self.names(target))), (1, 1))

    def test_stays_if_there_is_one_of_its_name_in_the_other_queue(self) -> None:
        """It may be the same, or another; either way a person has to look."""
        source, target = self.place("maildir"), self.place("maildir")
        self.put(source, 1)
        shutil.copytree(source, target)
        [moved] = self.move(source, target)
        self.assertIn("in the other queue already", moved.error)
        self.assertEqual((len(self.names(source)), len(self.names(target))), (1, 1))


class WhatIsKnown(Fixture):
    """Which keys are taken, and what has left, goes along."""

    def fill(self, location: str) -> None:
        """Send a mail that has a key; its relay says something."""
        with self.open(location) as queue:
            keyed = Envelope("", ("b@example.org",), terms=Terms(key="order 17", key_until=time.time() + 3600.0))
            put(queue, [keyed], b"Message-Id: <1@example.org>\n\ntext")
            [lease] = queue.claim()
            lease.open().read()
            lease.intend()
            replies = {"b@example.org": Reply(Answer.ACCEPTED, "ok as 4711", 250)}
            lease.settle(Record(State.SENT, attempts=1, time=time.time(), relay="relay:25", replies=replies))

    def is_known(self, location: str) -> None:
        with self.open(location) as queue:
            status = queue.status("1@example.org")
            self.assertEqual((status.standing, status.relay), (Standing.SENT, "relay:25"))
            self.assertEqual(status.replies["b@example.org"].text, "ok as 4711")
            self.assertEqual(len(list(transits_of(queue, location)[0].departures())), 1)
            self.assertEqual(self.taken_by(queue), "1@example.org")

    def taken_by(self, queue: Any) -> str:
        """The Message-Id of the mail that has the key."""
        keyed = Envelope("", ("b@example.org",), terms=Terms(key="order 17", key_until=time.time() + 3600.0))
        staged = queue.stage()
        try:
            staged.add(keyed, b"Message-Id: <2@example.org>\n\ntext")
            staged.prepare()
        except KeyTaken as error:
            return error.message_id
        finally:
            staged.abort()
        return ""

    def goes(self, one: str, other: str) -> None:
        source, target = self.place(one), self.place(other)
        self.fill(source)
        for _ in range(2):
            self.move(source, target)
            self.is_known(target)
        self.is_known(source)

    def test_between_directories(self) -> None:
        """A spool is one, too."""
        self.goes("maildir", "spool")
        self.goes("spool", "maildir")

    def test_into_a_database_and_out_of_it(self) -> None:
        """In either direction, and from one to another."""
        self.goes("maildir", "postgresql")
        self.goes("postgresql", "spool")
        self.goes("postgresql", "other")

    def test_there_and_back(self) -> None:
        """Nothing is noted twice."""
        for kind in ("spool", "postgresql"):
            source, target = self.place("maildir"), self.place(kind)
            self.fill(source)
            self.move(source, target)
            self.move(target, source)
            self.is_known(source)

    def test_of_a_key_that_is_in_use_there_is_left_to_its_user(self) -> None:
        """The transaction there began before the move; of both mails one has the key in its queue."""
        for kind in ("maildir", "postgresql"):
            source, target = self.place("maildir"), self.place(kind)
            self.fill(source)
            with self.open(target) as queue:
                staged = queue.stage()
                terms = Terms(key="order 17", key_until=time.time() + 3600.0)
                staged.add(Envelope("", ("b@example.org",), terms=terms), b"Message-Id: <3@example.org>\n\ntext")
                staged.prepare()
                self.move(source, target)
                staged.commit()
                self.assertEqual(self.taken_by(queue), "3@example.org")

    def test_of_a_key_whose_time_is_over_is_free(self) -> None:
        """It is not brought along."""
        for kind in ("maildir", "postgresql"):
            source, target = self.place("maildir"), self.place(kind)
            self.fill(source)
            with self.open(source, _Tomorrow()) as queue, self.open(target) as other:
                list(move(transits_of(queue, source), transits_of(other, target)[0]))
                self.assertEqual(self.taken_by(other), "")


class TheCommand(Fixture):
    """``zope-sendmail queue move``."""

    def call(self, *arguments: str) -> tuple[int, str, str]:
        out, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of what other tests have left to the collector
            status = main(["move", *arguments])
        return status, out.getvalue(), complaints.getvalue()

    def test_says_what_it_did(self) -> None:
        """First what it would do."""
        source, target = self.place("maildir"), self.place("maildir")
        self.put(source, 3)
        self.assertEqual(self.call(source, target, "--dry-run"), (0, "3 mails would be moved; nothing was done\n", ""))
        self.assertFalse(os.path.exists(target))
        self.assertEqual(self.call(source, target), (0, "3 mails moved\n", ""))
        status, _, complaints = self.call(source, f"{source}/../{os.path.basename(source)}")
        self.assertEqual(status, 2)  # the command line is wrong, not the disk
        self.assertIn("are the same queue; name another one", complaints)
        self.assertEqual(self.call(source, target), (0, "0 mails moved\n", ""))
        self.assertEqual(len(self.seen(target)), 3)

    def test_says_what_stays(self) -> None:
        """What is being sent, and what is staged."""
        source, target = self.place("maildir"), self.place("maildir")
        self.put(source, 2)
        with self.open(source) as queue:
            _lease = queue.claim(1)
            staged = queue.stage()
            staged.add(Envelope("", ("b@example.org",)), b"staged")
            status, out, complaints = self.call(source, target)
        self.assertEqual(status, 1)
        self.assertIn("1 mail moved, 1 not\n1 mail of transactions", out)
        self.assertIn("it is being sent", complaints)
        staged.abort()

    def test_refuses_what_is_no_queue(self) -> None:
        """Nothing is moved."""
        source = self.place("maildir")
        self.put(source, 1)
        for target in ("memory:", self.directory, __file__, "spool:"):
            self.assertEqual(self.call(source, target)[0], 78, target)
        self.assertEqual(self.call(source, "postgresql://u:secret@h/d")[0], 78)
        self.assertNotIn("secret", "".join(map(str, self.call(source, "postgresql://u:secret@h/d"))))
        self.assertEqual(len(self.seen(source)), 1)


class AMoveThatIsKilled(Fixture):
    """At any of its system calls and statements; what is left is told, and finished by the next move."""

    def killed(self, source: str, target: str, step: int) -> bool:
        """Let a process move, and die at a step; return whether it died."""
        child = os.fork()
        if child == 0:
            try:
                _die_at(step)
                queue, other = open_queue(source), open_queue(target)
                list(move(transits_of(queue, source), transits_of(other, target)[0]))
                os._exit(0)
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.assertIn(status, (0, 9))
        return status == 9

    def drained(self, location: str) -> list[bytes]:
        """Send everything; return what was sent."""
        sent = []
        with self.open(location) as queue:
            while leases := queue.claim(9):
                for lease in leases:
                    sent.append(lease.open().read())
                    lease.intend()
                    lease.settle(Record(State.SENT))
        return sent

    def each_step(self, one: str, other: str, stride: int = 1) -> Iterator[tuple[str, str, int]]:
        for step in itertools.count(1, stride):
            source, target = self.place(one), self.place(other)
            self.put(source, 1)
            self.put(source, 1, b"another")
            with self.open(source) as queue:
                name = next(queue.admin.names())
                queue.admin.hold(name)
                queue.admin.release(name)  # so that there is a history
            if not self.killed(source, target, step):
                self.assertGreater(step, 10)
                return
            yield source, target, step

    def is_restarted(self, one: str, other: str, stride: int = 2) -> None:
        for source, target, step in self.each_step(one, other, stride):
            self.move(source, target)
            self.assertEqual(self.seen(source), [], step)
            found = [(each[0], len(each[-1])) for each in self.seen(target)]
            self.assertEqual(found, [(b"another", 0), (b"text", 2)], step)
            self.assertEqual(self.told(source) + self.told(target), [], step)

    def told(self, location: str) -> list[str]:
        """What the doctor says about moves, tomorrow."""
        with self.open(location, _Tomorrow()) as queue:
            return [finding.cure for finding in queue.admin.examine() if finding.kind == "moving"]

    def sends_once(self, one: str, other: str) -> None:
        """Processors of both queues are at work after the death, before the move goes on."""
        for source, target, step in self.each_step(one, other, 5):
            sent = self.drained(source) + self.drained(target)
            self.move(source, target)
            sent += self.drained(target)
            self.assertEqual(sorted(sent), [b"another", b"text"], step)
            self.assertEqual(self.seen(source) + self.seen(target), [], step)

    def test_between_maildirs(self) -> None:
        """Each mail arrives, once."""
        self.is_restarted("maildir", "maildir", 1)
        self.sends_once("maildir", "maildir")

    def test_into_a_database(self) -> None:
        """Each mail arrives, once."""
        self.is_restarted("maildir", "postgresql")
        self.sends_once("maildir", "postgresql")

    def test_out_of_a_database(self) -> None:
        """Each mail arrives, once."""
        self.is_restarted("postgresql", "maildir")
        self.sends_once("postgresql", "maildir")

    def test_between_databases(self) -> None:
        """Each mail arrives, once."""
        self.is_restarted("postgresql", "postgresql")
        self.sends_once("postgresql", "postgresql")

    def test_brings_what_is_known_once(self) -> None:
        """Which keys are taken and what has left, whenever it was killed."""
        known = WhatIsKnown()
        for one, other in (("maildir", "maildir"), ("maildir", "postgresql"), ("postgresql", "maildir")):
            for step in itertools.count(1, 2):
                source, target = self.place(one), self.place(other)
                known.fill(source)
                if not self.killed(source, target, step):
                    self.assertGreater(step, 4)
                    break
                self.move(source, target)
                known.is_known(target)

    def test_is_told_by_both_doctors(self) -> None:
        """What is between two queues, with the cure."""
        told: set[tuple[str, bool, bool]] = set()
        for one, other in (("maildir", "postgresql"), ("postgresql", "maildir")):
            for source, target, _ in self.each_step(one, other, 7):
                for kind, location in ((one, source), (other, target)):
                    told.update((kind, location == source, "queue move' again" in cure) for cure in self.told(location))
        self.assertEqual(told, {(kind, here, True) for kind in ("maildir", "postgresql") for here in (True, False)})


def _files(*path: str) -> int:
    """Return how many files there are in a directory, if there is one."""
    return len(os.listdir(os.path.join(*path))) if os.path.isdir(os.path.join(*path)) else 0


class _Tomorrow(Clock):
    """Nothing is so young any more that a move may be at work on it."""

    def time(self) -> float:
        """See `Clock`."""
        return super().time() + 86400.0


def _die_at(step: int) -> None:
    """Let this process die, as by SIGKILL, before or behind a call that changes a disk or a database."""
    count = itertools.count(1)

    def tick() -> None:
        if next(count) == step:
            os._exit(9)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.utime"):
            tick()

    sys.addaudithook(audit)
    with contextlib.suppress(ImportError):
        import psycopg

        for name in ("execute", "executemany", "copy"):
            setattr(psycopg.Cursor, name, _counted(getattr(psycopg.Cursor, name), tick))


def _counted(call: Callable[..., Any], tick: Callable[[], None]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        tick()
        result = call(*arguments, **options)
        tick()
        return result

    return counted


load_tests = in_layer(Databases)
