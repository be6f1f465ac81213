"""Mail from any Python program, with a relay for each message."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import types
import unittest
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import transaction
from transaction.interfaces import NoTransaction

from zope.sendmail import startup
from zope.sendmail.errors import QueueNotWritable
from zope.sendmail.interfaces import IMailSentEvent, InvalidMail, InvalidRelay, InvalidSettings
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor import shutdown
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.memory import MemoryQueue, forget_shared_memory
from zope.sendmail.sender import MailReader, MailSender, MailWriter, make_routes
from zope.sendmail.system.greenthreads import GreenThreads
from zope.sendmail.testing.contracts import MESSAGE
from zope.sendmail.testing.relay import Hang, Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.layers import Processes, in_layer
from zope.sendmail.tests.support.subscribing import subscribe
from zope.sendmail.transports.redirect import RedirectMailer

SENDER = "sender@example.org"


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.addCleanup(self.end_all)

    def end_all(self) -> None:
        """A thread that ends a moment later than the test would make files where its directory is being removed."""
        for thread in shutdown.running():
            if thread.queuePath == self.path:
                thread.stop()
                thread.join(300)

    def relay(self) -> Relay:
        return self.enterContext(Relay())

    def files(self) -> list[bytes]:
        texts = []
        for name in sorted(os.listdir(os.path.join(self.path, "new"))):
            with open(os.path.join(self.path, "new", name), "rb") as file:
                texts.append(file.read())
        return texts


class TwoSendersOfOneQueue(Fixture):
    """Each mail leaves through the one that takes it first."""

    def setUp(self) -> None:
        super().setUp()
        self.first = MailSender(self.path, "one.example.org", relays=["two.example.org:25"])
        self.enterContext(self.first)

    def other(self, directory: str = "", hostname: str = "two.example.org", **options: Any) -> MailSender:
        return MailSender(
            directory or self.path, hostname, relays=["one.example.org:25", "two.example.org:25"], **options
        )

    def begin(self, sender: MailSender | MailReader) -> None:
        self.addCleanup(sender.stop, 60.0)
        sender.start()
        self.assertTrue(getattr(sender, "reader", sender).running())

    def test_have_one_relay(self) -> None:
        """Also where the queue has another name."""
        os.symlink(self.path, f"{self.path}-too")
        for directory in self.path, f"{self.path}-too":
            with self.assertRaisesRegex(InvalidSettings, "has a sender in this process already, whose relay differs"):
                self.begin(self.other(directory))

    def test_may_look_at_it(self) -> None:
        """A second one whose relay is of no interest tells what waits, while the first one sends."""
        self.assertEqual(MailSender(self.path).queue.admin.count(), {})

    def test_know_the_same_relays(self) -> None:
        """Else one would set aside what is meant for a relay of the other."""
        with self.assertRaisesRegex(InvalidSettings, "whose relays or routes differ"):
            self.begin(MailSender(self.path, "one.example.org"))

    def test_may_do_the_same(self) -> None:
        """As a second one with other times, or through a mailer of which it is not known where it sends."""
        self.begin(self.other(hostname="one.example.org", interval=60.0))
        routes = make_routes(["one.example.org:25", "two.example.org:25"])
        self.begin(MailReader(self.path, mailer=ScriptedMailer(), routes=routes))

    def test_are_compared_as_long_as_they_send(self) -> None:
        """What has stopped sends nothing."""
        self.assertTrue(self.first.stop(60.0))
        self.begin(self.other())

    def test_is_refused_before_anything_is_written(self) -> None:
        """When it begins, or is given a mail."""
        other = self.other()
        for send in other.send, other.bind(transaction.TransactionManager()).send:
            self.assertRaises(InvalidSettings, send, SENDER, "a@example.org", MESSAGE)
        for begin in other.start, other.reader.start, other.reader.send_waiting:
            self.assertRaises(InvalidSettings, begin)
        self.assertEqual(self.files(), [])

    def test_have_different_queues(self) -> None:
        """In another directory, and in memory."""
        self.begin(self.other(f"{self.path}-too"))
        with MailSender("memory:", "one.example.org"):
            self.begin(MailSender("memory:", "two.example.org"))

    def test_are_known_by_their_queue_where_that_is_given(self) -> None:
        """The place need not be one then."""
        one, two = MemoryQueue(), MemoryQueue()
        self.begin(MailReader("", "one.example.org", queue=one))
        self.begin(MailReader("", "two.example.org", queue=two))
        with self.assertRaisesRegex(InvalidSettings, "whose relay differs"):
            self.begin(MailReader("", "two.example.org", queue=one))


class AWriter(Fixture):
    def writer(self, **options: Any) -> MailWriter:
        return MailWriter(self.path, routes=make_routes(["relay.example:26", ("other.example", 25)]), **options)

    def test_writes_at_once(self) -> None:
        """When send() returns, the mail is there for a reader, whatever becomes of a transaction."""
        message_id = self.writer().send(SENDER, ["a@example.org", "b@example.org"], MESSAGE)
        transaction.abort()
        self.assertEqual(message_id, "1@example.org")
        self.assertEqual(len(self.files()), 1)

    def test_names_the_relay(self) -> None:
        """As hostname and port, with 25 as default, or as relay; in lines of the queue file."""
        writer = self.writer()
        writer.send(SENDER, "a@example.org", MESSAGE, "relay.example", 26)
        writer.send(SENDER, "a@example.org", MESSAGE, hostname="Other.example")
        writer.send(SENDER, "a@example.org", MESSAGE, relay="relay.example:26")
        relays = [b"".join(text.splitlines(keepends=True)[2:4]) for text in self.files()]
        first, second = (
            b"X-Zope-Hostname: %s.example\nX-Zope-Port: %d\n" % each for each in ((b"relay", 26), (b"other", 25))
        )
        self.assertEqual(relays, [first, second, first])

    def test_follows_a_transaction_that_it_is_given(self) -> None:
        """Nothing stays of an abort."""
        manager = transaction.TransactionManager()
        writer = self.writer(transaction_manager=manager)
        writer.send(SENDER, "a@example.org", MESSAGE)
        manager.abort()
        writer.send(SENDER, "b@example.org", MESSAGE)
        self.assertEqual(self.files(), [])
        manager.commit()
        self.assertIn(b"b@example.org", self.files()[0])

    def test_refuses_before_anything_is_written(self) -> None:
        """Relays that may not be named, things that are none, things said twice, bad addresses."""
        writer = self.writer()
        for relay in (
            {"hostname": "evil.example"},
            {"hostname": "relay.example", "port": 25},
            {"hostname": "relay.example", "port": "smtp"},
            {"hostname": "relay.example\nX-Zope-To: evil@example.org", "port": 26},
            {"port": 25},
            {"hostname": "relay.example", "port": 26, "relay": "relay.example:26"},
        ):
            with self.subTest(relay=relay):
                self.assertRaises(InvalidRelay, writer.send, SENDER, "a@example.org", MESSAGE, **relay)
        self.assertRaises(InvalidMail, writer.send, SENDER, ["a@example.org\n"], MESSAGE)
        self.assertRaises(InvalidMail, writer.send, ["Name <a@example.org>"], "a@example.org", MESSAGE)
        self.assertRaises(InvalidRelay, make_routes, ["relay.example"])
        self.assertFalse(os.path.exists(self.path) and self.files())

    def test_knows_one_mailer_by_a_name(self) -> None:
        """Nobody is called like the one that gets what names none, or like nothing."""
        for name in "default", "", "two\nlines":
            with self.subTest(name=name):
                self.assertRaises(InvalidRelay, make_routes, mailers={name: SMTPMailer()})

    def test_routes_whatever_the_case(self) -> None:
        """Of the pattern and of the address."""
        routes = make_routes(mailers={"news": SMTPMailer()}, recipient_routes={"@News.Example": "news"})
        parts = routes.parts(Envelope(SENDER, ("a@nEWS.example",)))
        self.assertEqual(list(parts), [RelayName(mailer="news")])

    def test_says_by_the_return_path_whom_a_bounce_is_about(self) -> None:
        """One mail for each recipient, all or none."""
        self.writer().send("list@example.org", ["a@example.com", "b@example.net"], MESSAGE, verp=True)
        senders = [text.partition(b"\n")[0] for text in self.files()]
        self.assertEqual(
            senders,
            [b"X-Zope-From: list+a=example.com@example.org", b"X-Zope-From: list+b=example.net@example.org"],
        )

    def test_has_one_address_for_bounces(self) -> None:
        """If it is given one."""
        self.writer(envelope_sender="bounces@example.org").send(SENDER, "a@example.org", MESSAGE)
        self.assertTrue(self.files()[0].startswith(b"X-Zope-From: bounces@example.org\n"))


class WhatAMessageSays(Fixture):
    """The injections that CPSMailAccess was open to."""

    EVIL = (
        b"X-Zope-Hostname: evil.example\nX-Zope-Port: 99\nX-Zope-Username: u\nX-Zope-Password: p\n"
        b"X-Zope-To: evil@example.org\nMessage-Id: <1@example.org>\nDate: now\nSubject: x\n\n"
        b"X-Zope-Hostname: evil.example\nbcc this line is text\nX-Zope-Envelope: end\n"
    )

    def test_chooses_no_relay_and_nothing_of_it_is_removed(self) -> None:
        """Neither in its headers nor in its body, with and without a relay of the envelope."""
        for relay in None, RelayName(hostname="good.example", port=25):
            with self.subTest(relay=relay):
                writer = MailWriter(self.path, routes=make_routes(["good.example:25"]))
                writer.send(SENDER, "a@example.org", self.EVIL, relay=None if relay is None else str(relay))
                [lease] = writer.queue.claim(9)
                self.assertEqual((lease.envelope.relay, lease.envelope.recipients), (relay, ("a@example.org",)))
                self.assertEqual(lease.open().read(), self.EVIL)
                writer.queue.close()
                writer.queue.admin.remove(lease.name)

    def test_arrives_as_it_was(self) -> None:
        """At the relay of the envelope."""
        relay = self.relay()
        with MailSender(self.path, relay.host, relay.port) as sender:
            sender.send(SENDER, "a@example.org", self.EVIL)
            self.assertTrue(sender.reader.wait_until_empty(120))
        self.assertEqual([mail.data.replace(b"\r\n", b"\n") for mail in relay.mails], [self.EVIL])


class ASender(Fixture):
    def test_three_relays_one_of_them_down_for_a_while(self) -> None:
        """3000 mails: each at its relay, once."""
        servers = [self.relay() for _ in range(3)]
        second = servers[1]
        second.stop()
        addresses = [(each.host, each.port) for each in servers]
        sender = MailSender(self.path, *addresses[0], relays=addresses[1:])
        recipients = [f"{number}@example.org" for number in range(3000)]
        manager = transaction.TransactionManager()
        bulk = MailSender(self.path, *addresses[0], relays=addresses[1:], transaction_manager=manager).writer
        for number, recipient in enumerate(recipients):
            hostname, port = addresses[number % 3]
            bulk.send(SENDER, recipient, MESSAGE, hostname, port)
        manager.commit()
        sender.reader.send_waiting()
        self.assertEqual([len(each.mails) for each in servers], [1000, 0, 1000])
        self.assertEqual(sender.queue.admin.count(), {State.READY: 1000})
        second.start()
        with sender:
            self.assertTrue(sender.reader.wait_until_empty(120))
        for number, server in enumerate(servers):
            got = Counter(mail.recipients[0] for mail in server.mails)
            self.assertEqual(got, Counter(recipients[number::3]))

    def test_uses_the_password_of_the_relay(self) -> None:
        """That of the mailer which is registered for it; the queue never sees it."""
        relay = self.enterContext(Relay(users={"u": "secret"}))
        mailer = SMTPMailer(
            hostname=relay.host, port=relay.port, username="u", password="secret", allow_clear_password=True
        )
        sender = MailSender(self.path, "127.0.0.1", 9, mailers={"private": mailer})
        for options in {"relay": "private"}, {"hostname": relay.host, "port": relay.port}:
            sender.writer.send(SENDER, "a@example.org", MESSAGE, **options)
        self.assertNotIn(b"secret", b"".join(self.files()))
        sender.reader.send_waiting()
        self.assertEqual([mail.user for mail in relay.mails], ["u", "u"])

    def test_logs_in_at_its_own_relay(self) -> None:
        """Over verified TLS only; the login of a mailer is the mailer's."""
        sender = MailSender(
            self.path, "relay.example", 587, username="u", password="secret", relays=["other.example:25"]
        )
        settings = sender.reader._mailer.relay_settings()
        self.assertEqual((str(settings), settings.username, settings.password), ("relay.example:587", "u", "secret"))
        self.assertTrue(settings.must_encrypt and settings.must_verify)
        with self.assertRaisesRegex(ValueError, "give it to the mailer"):
            MailSender(self.path, mailer=ScriptedMailer(), username="u", password="secret")

    def test_starts_with_the_first_mail_and_again_after_a_stop(self) -> None:
        """Any number of times."""
        relay = self.relay()
        sender = MailSender(self.path, relay.host, relay.port)
        self.assertTrue(sender.stop())
        for number in range(1, 3):
            self.assertFalse(sender.running())
            sender.send(SENDER, "a@example.org", MESSAGE)
            self.assertTrue(sender.running())
            self.assertTrue(sender.reader.wait_until_empty(120))
            self.assertEqual(len(relay.mails), number)
            self.assertTrue(sender.stop())

    def test_two_threads_start_one_reader(self) -> None:
        """A web application has many; a second reader would not hear of the stop."""
        reader = MailReader(self.path)
        make, made, both = reader._make, [], threading.Barrier(2)

        def slow() -> QueueProcessorThread:
            made.append(make())
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.2)
            return made[-1]

        with mock.patch.object(reader, "_make", slow):
            threads = [threading.Thread(target=reader.start) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertTrue(reader.stop())
        self.assertEqual([each.is_alive() for each in made], [False])

    def test_starts_again_while_the_last_message_of_a_stop_is_in_hand(self) -> None:
        """Who sends right after a stop() has not to wait for a further start()."""
        relay = self.relay()
        hang = relay.on("DOT", Hang("250 ok"), nth=1)
        with MailSender(self.path, relay.host, relay.port) as sender:
            sender.send(SENDER, "a@example.org", MESSAGE)
            self.assertTrue(hang.reached.wait(300))
            self.assertFalse(sender.stop(0.0))
            sender.send(SENDER, "b@example.org", MESSAGE)
            hang.release()
            relay.wait_until(lambda: len(relay.mails) == 2)

    def test_mail_that_was_left_is_sent_at_the_next_start(self) -> None:
        """Without a new mail."""
        relay = self.relay()
        MailWriter(self.path).send(SENDER, "a@example.org", MESSAGE)
        with MailReader(self.path, relay.host, relay.port) as reader:
            self.assertTrue(reader.wait_until_empty(120))
        self.assertEqual(len(relay.mails), 1)

    def test_from_asyncio(self) -> None:
        """Through a thread, many at a time."""
        relay = self.relay()

        async def main(sender: MailSender) -> None:
            await asyncio.gather(
                *(asyncio.to_thread(sender.send, SENDER, f"{n}@example.org", MESSAGE) for n in range(20))
            )

        with MailSender(self.path, relay.host, relay.port) as sender:
            asyncio.run(main(sender))
            self.assertTrue(sender.reader.wait_until_empty(120))
        self.assertEqual({mail.recipients[0] for mail in relay.mails}, {f"{n}@example.org" for n in range(20)})

    def test_a_folder_of_cpsmailaccess_is_read(self) -> None:
        """Relays from the list are used, others set aside; passwords of such files are not used by default."""
        relay = self.relay()
        sender = MailSender(self.path, "127.0.0.1", 9, relays=[(relay.host, relay.port)])
        sender.writer.send(SENDER, "a@example.org", MESSAGE)
        [name] = sender.queue.admin.names()
        new = os.path.join(self.path, "new")
        os.unlink(os.path.join(new, name))
        text = "X-Zope-From: a@example.org\nX-Zope-To: b@example.org, c@example.org\nX-Zope-Hostname: {}\n"
        text += "X-Zope-Port: {}\nX-Zope-Username: u\nX-Zope-Password: p\nSubject: old\n\ntext\n"
        for number, hostname in enumerate((relay.host, "evil.example")):
            with open(os.path.join(new, f"113480000{number}.4711.host"), "w", encoding="ascii") as file:
                file.write(text.format(hostname, relay.port))
        sender.reader.send_waiting()
        [mail] = relay.mails
        self.assertEqual((mail.recipients, mail.user), (("b@example.org", "c@example.org"), ""))
        self.assertEqual(mail.data, b"Subject: old\r\n\r\ntext\r\n")
        self.assertEqual(sender.queue.admin.count(), {State.REJECTED: 1})


class AReader(Fixture):
    def test_refuses_settings_of_its_relay_at_once(self) -> None:
        """Not when the first mail waits for them."""
        wrong: list[tuple[Any, str]] = [
            ({"timeout": 0}, "the timeout connect is 0"),
            ({"keyfile": "key.pem"}, "keyfile is given without certfile"),
            ({"force_tls": True, "no_tls": True}, "contradict each other"),
            ({"local_hostname": "a b"}, "local_hostname 'a b'"),
        ]
        for options, why in wrong:
            for kind in (MailReader, MailSender):
                with self.subTest(why, kind=kind), self.assertRaisesRegex(InvalidSettings, why):
                    kind(self.path, "mail.example.org", **options)

    def test_refuses_a_directory_that_is_no_queue(self) -> None:
        """As what callers catch, with the cure."""
        os.mkdir(self.path)
        with open(os.path.join(self.path, "letter.txt"), "wb"):
            pass
        with self.assertRaisesRegex(QueueNotWritable, "is not a Maildir folder"):
            MailReader(self.path)
        with self.assertRaisesRegex(QueueNotWritable, "name too long.*make the directory, or correct the queue's path"):
            MailReader(os.path.join(self.path, 300 * "x"))

    def test_refuses_options_of_its_thread_as_what_callers_catch(self) -> None:
        """An `InvalidSettings` is an ``SMTPException`` and a `ValueError`."""
        self.assertRaises(InvalidSettings, MailReader, self.path, interval=0)
        self.assertRaises(InvalidSettings, MailSender, self.path, concurrency=0)


class AQueueInMemory(Fixture):
    def sender(self, relay: Relay, **options: Any) -> MailSender:
        sender = MailSender("memory:", relay.host, relay.port, **options)
        self.addCleanup(sender.stop)
        return sender

    def test_sends(self) -> None:
        """Writer and reader have the same one; no directory is made."""
        relay = self.relay()
        with self.sender(relay) as sender:
            message_id = sender.send(SENDER, ["a@example.org"], MESSAGE)
        self.assertEqual([mail.recipients for mail in relay.mails], [("a@example.org",)])
        self.assertEqual(sender.status(message_id).standing, "sent")
        self.assertFalse(os.path.exists("memory:"))

    def test_is_one_for_each_sender(self) -> None:
        """Two of them in a program have nothing to do with each other."""
        one, other = self.relay(), self.relay()
        first, second = self.sender(one), self.sender(other)
        first.writer.send(SENDER, ["a@example.org"], MESSAGE)
        second.reader.send_waiting()
        self.assertEqual((len(one.mails), len(other.mails), first.queue.admin.count()), (0, 0, {State.READY: 1}))

    def test_keeps_what_it_is_told_about_retries(self) -> None:
        """Also of a reader that is made later."""
        sender = self.sender(self.relay(), schedule=Schedule(first=7.0))
        self.assertEqual(sender.queue.schedule.first, 7.0)

    def test_is_sent_by_the_parent_after_a_fork(self) -> None:
        """Not by each child once more; a child's own mail is the child's."""
        relay = self.relay()
        program = """
import os, sys
from zope.sendmail.sender import MailSender
sender = MailSender("memory:", sys.argv[1], int(sys.argv[2]))
sender.writer.send("s@example.org", ["parent@example.org"], "From: s\\nSubject: x\\n\\n")
if os.fork() == 0:
    with sender:
        sender.send("s@example.org", ["child@example.org"], "From: s\\nSubject: x\\n\\n")
    os._exit(0)
os.wait()
with sender:
    pass
"""
        arguments = [sys.executable, "-c", program, relay.host, str(relay.port)]
        subprocess.run(arguments, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        self.assertEqual([mail.recipients[0] for mail in relay.mails], ["child@example.org", "parent@example.org"])

    def test_is_shared_by_writers_and_readers(self) -> None:
        """Of one process, wherever they are made; tests begin with a new one."""
        relay = self.relay()
        self.addCleanup(forget_shared_memory)
        MailWriter("memory:").send(SENDER, ["a@example.org"], MESSAGE)
        MailReader("memory:", relay.host, relay.port).send_waiting()
        self.assertEqual([mail.recipients for mail in relay.mails], [("a@example.org",)])
        MailWriter("memory:").send(SENDER, ["b@example.org"], MESSAGE)
        forget_shared_memory()
        MailReader("memory:", relay.host, relay.port).send_waiting()
        self.assertEqual(len(relay.mails), 1)


class WhereEventletHasReplacedTheThreads(Fixture):
    """It is not installed here: a module of its name says what it would say; .ci/programs.py has the real one."""

    def setUp(self) -> None:
        super().setUp()
        patcher: Any = types.ModuleType("eventlet.patcher")
        self.replaced = {"thread"}
        patcher.is_monkey_patched = lambda name: name in self.replaced
        self.enterContext(mock.patch.dict(sys.modules, {"eventlet.patcher": patcher}))

    def test_nothing_is_sent_and_nothing_hangs(self) -> None:
        """The text says what to do instead; no mail is written that the caller takes for refused."""
        sender = MailSender(self.path)
        bound = sender.bind(transaction.TransactionManager())
        calls: list[Callable[[], object]] = [sender.start, sender.reader.send_waiting, MailReader(self.path).start]
        calls += [functools.partial(each.send, SENDER, ["a@example.org"], MESSAGE) for each in (sender, bound)]
        calls += [startup.Declaration("Mail", self.path, None).make]
        processor = QueueProcessorThread(mailer=ScriptedMailer())
        processor.setQueuePath(self.path)
        calls += [processor.start, functools.partial(processor.run, forever=False)]
        for replaced in ("thread", "select", "os"):
            self.replaced = {replaced}
            for call in calls:
                with self.assertRaisesRegex(GreenThreads, "put the mail into the queue here, with a MailWriter"):
                    call()
        self.assertEqual(sender.queue.admin.count(), {})

    def test_mail_can_be_written(self) -> None:
        """Another process sends it."""
        MailWriter(self.path).send(SENDER, ["a@example.org"], MESSAGE)
        self.assertEqual(len(self.files()), 1)

    def test_other_replacements_do_not_matter(self) -> None:
        """Sockets, for instance."""
        self.replaced = {"socket", "time"}
        sender = MailSender(self.path)
        sender.start()
        self.assertTrue(sender.stop())


class BoundToARequest(Fixture):
    """`MailSender.bind`, for frameworks that have a transaction manager for each request."""

    def test_mail_follows_the_transaction_of_the_request(self) -> None:
        """The manager is an explicit one, as in the templates of Pyramid; the thread's transaction does not matter."""
        relay = self.relay()
        sender = MailSender(self.path, relay.host, relay.port)
        self.addCleanup(sender.stop)
        for recipient, end in (("aborted@example.org", "abort"), ("sent@example.org", "commit")):
            manager = transaction.TransactionManager(explicit=True)
            manager.begin()
            sender.bind(manager).send(SENDER, [recipient], MESSAGE)
            transaction.commit()
            self.assertEqual(sender.queue.admin.count().get(State.READY, 0), 0)
            getattr(manager, end)()
        self.assertTrue(sender.finish())
        self.assertEqual([mail.recipients for mail in relay.mails], [("sent@example.org",)])

    def test_without_a_transaction_the_mail_is_refused(self) -> None:
        """An explicit manager knows that nothing was begun; no mail waits for an end that never comes."""
        sender = MailSender(self.path)
        bound = sender.bind(transaction.TransactionManager(explicit=True))
        with self.assertRaises(NoTransaction):
            bound.send(SENDER, ["a@example.org"], MESSAGE)
        self.assertEqual(sum(sender.queue.admin.count().values()), 0)

    def test_the_queue_and_its_rules_are_the_same(self) -> None:
        """Whatever `MailSender` was told about relays and bounces, and one open queue for all requests."""
        sender = MailSender(self.path, relays=["relay.example:26"], envelope_sender="bounces@example.org")
        self.addCleanup(sender.stop)
        manager = transaction.TransactionManager()
        bound = sender.bind(manager)
        self.assertIs(bound.queue, sender.queue)
        with self.assertRaises(InvalidRelay):
            bound.send(SENDER, ["a@example.org"], MESSAGE, hostname="evil.example")
        message_id = bound.send(SENDER, ["a@example.org"], MESSAGE, hostname="relay.example", port=26)
        manager.commit()
        self.assertEqual([mail.envelope.sender for mail in sender.queue.admin.mails()], ["bounces@example.org"])
        self.assertEqual(bound.status(message_id).standing, "queued")


class TheEnd(Fixture):
    """Of a block, and of a program."""

    COUNT = 20

    def script(self, text: str, *arguments: object) -> subprocess.Popen[str]:
        """A program that sends; at its end it has more than five seconds: the machine may do other things as well."""
        code = "import sys; from zope.sendmail.processor import shutdown; from zope.sendmail.sender import MailSender\n"
        code += "shutdown.FINISH_TIMEOUT = 300.0\n"
        code += "sender = MailSender(sys.argv[1], '127.0.0.1', int(sys.argv[2]))\n"
        code += "def send(n): sender.send('a@x.org', f'{n}@x.org', 'From: s')\n"
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code + text, self.path, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def assert_sends(self, relay: Relay, script: subprocess.Popen[str]) -> None:
        _, errors = script.communicate(timeout=300)
        self.assertEqual((script.returncode, errors), (0, ""))
        self.assertEqual(
            Counter(mail.recipients[0] for mail in relay.mails), {f"{n}@x.org": 1 for n in range(self.COUNT)}
        )
        self.assertEqual(MailWriter(self.path).queue.admin.count(), {})

    def test_of_a_block_sends_what_is_due(self) -> None:
        """Also if it ends with an error."""
        relay = self.relay()
        for error in None, ValueError, SystemExit:
            with contextlib.suppress(ValueError, SystemExit), MailSender(self.path, relay.host, relay.port) as sender:
                for number in range(self.COUNT):
                    sender.send(SENDER, f"{number}@example.org", MESSAGE)
                if error is not None:
                    raise error
            self.assertFalse(sender.running())
            self.assertEqual(sender.queue.admin.count(), {})
        self.assertEqual(len(relay.mails), 3 * self.COUNT)

    def test_says_what_is_left_while_the_relay_is_down(self) -> None:
        """And promises no next try of a program that has ended; a block says it, too."""
        place = self.enterContext(socket.socket())  # which does not listen, and which no relay of another test gets
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        for text, count in (
            ("send(0)\n", "1 mail waits"),
            ("for n in range(2): send(n)\n", "3 mails wait"),
            ("with sender: send(0)\n", "4 mails wait"),
        ):
            with self.subTest(text=text):
                script = self.script(text, port)
                _, errors = script.communicate(timeout=300)
                self.assertEqual(script.returncode, 0)
                self.assertRegex(errors, f"{count} in {re.escape(self.path)} and leaves? with the next start")
                self.assertNotIn("next try", errors)

    def test_says_nothing_of_what_another_processor_sends(self) -> None:
        """That does not wait for the next start."""
        relay = self.relay()
        MailWriter(self.path).send(SENDER, ["a@example.org"], MESSAGE)
        other = open_queue(self.path)
        self.addCleanup(other.close)
        [lease] = other.claim()
        with self.assertNoLogs("QueueProcessorThread", "WARNING"), MailSender(self.path, relay.host, relay.port):
            pass
        lease.release()
        self.assertEqual(relay.mails, [])

    def test_of_a_block_sends_what_was_committed_in_it(self) -> None:
        """Mail of one transaction that is not in files of its own yet."""
        relay = self.relay()
        manager = transaction.TransactionManager()
        with MailSender(self.path, relay.host, relay.port, transaction_manager=manager) as sender:
            for number in range(self.COUNT):
                sender.send(SENDER, f"{number}@example.org", MESSAGE)
            manager.commit()
        self.assertEqual((len(relay.mails), sender.queue.admin.count()), (self.COUNT, {}))

    def test_of_a_block_waits_for_no_relay_that_is_down(self) -> None:
        """Nor for mail that is deferred; both stay in the queue."""
        relay = self.relay()
        relay.stop()
        with MailSender(self.path, relay.host, relay.port) as sender:
            sender.send(SENDER, "a@example.org", MESSAGE)
        self.assertFalse(sender.running())
        self.assertEqual(sender.queue.admin.count(), {State.READY: 1})

    def test_comes_after_subscribers_were_told(self) -> None:
        """By each way to end, though a thread of their own tells them; this one begins when the mail is sent."""
        told: list[object] = []
        waits = threading.Event()

        def slow(event: object) -> None:
            if IMailSentEvent.providedBy(event):
                waits.wait(0.2)  # what waits for nothing has looked by then
                told.append(event)

        subscribe(self, slow)
        relay = self.relay()

        def stop(sender: MailSender) -> None:
            relay.wait_until(lambda: len(relay.mails) > len(told))
            sender.stop()

        def send_waiting(sender: MailSender) -> None:
            sender.stop()
            sender.reader.send_waiting()

        ends: dict[str, Callable[[MailSender], object]] = {
            "finish": MailSender.finish,
            "stop": stop,
            "send_waiting": send_waiting,
        }
        for count, (name, end) in enumerate(ends.items(), 1):
            with self.subTest(name):
                sender = MailSender(self.path, relay.host, relay.port)
                sender.send(SENDER, "a@example.org", MESSAGE)
                end(sender)
                self.assertEqual((len(told), len(relay.mails)), (count, count))

    def test_has_a_limit(self) -> None:
        """After it the message in hand is finished, and the others stay."""
        mailer, at_work, let_go = ScriptedMailer(), threading.Event(), threading.Event()

        def hang(envelope: Envelope) -> None:
            at_work.set()
            let_go.wait(300)

        mailer.before = hang
        sender = MailSender(self.path, mailer=mailer, concurrency=1)
        for number in range(2):
            sender.send(SENDER, f"{number}@example.org", MESSAGE)
        self.assertTrue(at_work.wait(300))
        self.assertFalse(sender.finish(0.0))
        let_go.set()
        self.assertTrue(sender.stop())
        self.assertEqual((len(mailer.sent), sender.queue.admin.count()), (1, {State.READY: 1}))

    def test_of_a_script_sends_what_is_due(self) -> None:
        """Without a block: right after its last mail."""
        relay = self.relay()
        self.assert_sends(relay, self.script(f"for n in range({self.COUNT}): send(n)", relay.port))

    def test_nothing_is_imported_on_the_way(self) -> None:
        """Who forks while a thread imports has a child in which that import never ends."""
        relay = self.relay()
        text = f"""
known = set(sys.modules)
for n in range({self.COUNT}): send(n)
sender.finish(None)
print(*set(sys.modules) - known)
"""
        script = self.script(text, relay.port)
        said, errors = script.communicate(timeout=300)
        self.assertEqual((script.returncode, errors, said, len(relay.mails)), (0, "", "\n", self.COUNT))

    def test_of_a_forked_child_sends_what_it_has_written(self) -> None:
        """Although its parent has sent before the fork, and is gone."""
        relay = self.relay()
        text = f"""
import os
send(0)
assert sender.reader.wait_until_empty(60)  # a fork while it resolves a name would leave the C library's lock held
if os.fork() == 0:
    for n in range(1, {self.COUNT}): send(n)
else:
    os.wait()
"""
        self.assert_sends(relay, self.script(text, relay.port))

    def test_by_ctrl_c_does_not_wait_for_more_than_the_message_in_hand(self) -> None:
        """In a block; the others stay."""
        sender = MailSender(self.path, mailer=ScriptedMailer())
        with (
            mock.patch.object(sender.reader, "finish") as finish,
            mock.patch.object(sender.reader, "stop", wraps=sender.reader.stop) as stop,
            self.assertRaises(KeyboardInterrupt),
            sender,
        ):
            raise KeyboardInterrupt
        self.assertEqual((finish.call_count, stop.call_count, sender.running()), (0, 1, False))

    def test_begins_anew_for_who_sends_meanwhile(self) -> None:
        """A mail that comes while the others are finished is not left behind."""
        mailer = ScriptedMailer()
        sender = MailSender(self.path, mailer=mailer)

        def ask_for_more(envelope: Envelope) -> None:
            if len(mailer.sent) == 0:
                assert sender.reader._processor is not None
                sender.reader._processor.finish()
                sender.send(SENDER, "b@example.org", MESSAGE)

        mailer.before = ask_for_more
        sender.send(SENDER, "a@example.org", MESSAGE)
        self.assertTrue(sender.reader.wait_until_empty(120))
        self.assertTrue(sender.finish())
        self.assertEqual({mail[1] for mail in mailer.sent}, {("a@example.org",), ("b@example.org",)})

    def test_of_python_does_not_fail_a_send(self) -> None:
        """An exit handler may send; where no thread can be started any more, the mail waits."""
        with mock.patch.object(MailReader, "start", side_effect=RuntimeError("can't start new thread")):
            MailSender(self.path).send(SENDER, "a@example.org", MESSAGE)
        self.assertEqual(len(self.files()), 1)


class AStagingSite(Fixture):
    """Its mail is redirected."""

    def setUp(self) -> None:
        super().setUp()
        self.behind = ScriptedMailer()
        self.redirect = RedirectMailer(self.behind, to=["tester@example.org"])

    def test_no_mail_goes_around_it(self) -> None:
        """The host and port that are nobody's now may not be named, neither at send() nor in a file."""
        sender = MailSender(self.path, mailer=self.redirect)
        self.assertRaises(InvalidRelay, sender.send, SENDER, "a@example.org", MESSAGE, hostname="localhost")
        other = MailWriter(self.path, routes=make_routes(["localhost:25"]))
        other.send(SENDER, "a@example.org", MESSAGE, hostname="localhost")
        sender.writer.send(SENDER, "a@example.org", MESSAGE)
        sender.reader.send_waiting()
        self.assertEqual([mail[1] for mail in self.behind.sent], [("tester@example.org",)])
        self.assertEqual(sender.queue.admin.count(), {State.REJECTED: 1})

    def test_another_way_out_is_refused(self) -> None:
        """When the sender is made, or given its mailer."""
        news = SMTPMailer(hostname="news.example")
        for ways in {"relays": ["news.example:25"]}, {"mailers": {"news": news}}:
            with self.subTest(ways=ways), self.assertRaisesRegex(ValueError, r"(?s)redirects mail, and .*news"):
                MailSender(self.path, mailer=self.redirect, **ways)
        with self.assertRaisesRegex(ValueError, "redirects mail"):
            MailReader(self.path, mailer=self.redirect, routes=make_routes(["news.example:25"]))
        processor = QueueProcessorThread(mailer=news, mailers={"news": news}, routes=Routes("", frozenset({"news"})))
        self.assertRaises(ValueError, processor.setMailer, self.redirect)
        self.assertIs(processor.mailer, news)

    def test_further_redirections_are_none(self) -> None:
        """Each may be named."""
        other = RedirectMailer(ScriptedMailer(), to=["other@example.org"])
        sender = MailSender(self.path, mailer=self.redirect, mailers={"other": other})
        sender.writer.send(SENDER, "a@example.org", MESSAGE, relay="other")
        sender.reader.send_waiting()
        self.assertEqual(other.mailer.sent[0][1], ("other@example.org",))


class AnyProgram(Fixture):
    def test_loads_nothing_of_zope(self) -> None:
        """Neither components nor ZCML nor security nor a database."""
        code = (
            "import sys; from zope.sendmail.sender import MailSender;"
            "MailSender(sys.argv[1]).writer.send('a@x.org', 'b@x.org', 'From: s');"
            "print(*{'.'.join(name.split('.')[:2]) for name in sys.modules})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, self.path],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        loaded = set(done.stdout.split())
        framework = ("app", "component", "configuration", "location", "processlifetime", "proxy", "security")
        self.assertEqual(loaded & {*(f"zope.{name}" for name in framework), "ZODB", "persistent"}, set())
        self.assertIn("zope.sendmail", loaded)
        self.assertEqual(len(self.files()), 1)


load_tests = in_layer(Processes)
