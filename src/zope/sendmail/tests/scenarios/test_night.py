"""An operator's night, as docs/howto/operating.rst tells it: 2,000 mails that wait for eleven reasons.

Each command of the document is run, prints what the document shows, and ends with the status that it names.  What is
done besides, such as starting a relay, is in `Night.OUTSIDE`.
"""

from __future__ import annotations

import itertools
import os
import re
import ssl
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import trustme

from zope.sendmail.cli import app, queuecommands
from zope.sendmail.cli.queuearguments import CHANGES, VIEWS
from zope.sendmail.config.passwordfile import follow_password_file
from zope.sendmail.config.settings import Tls
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule, judge
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.run import Run
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.maildir.layout import REJECTED, SENDING
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.relayscript import Drop
from zope.sendmail.tests.support.layers import Processes, in_layer
from zope.sendmail.tests.support.operators import OperatorsTest

DOCUMENT = os.path.join(os.path.dirname(__file__), *[os.pardir] * 5, "docs", "howto", "operating.rst")

#: The mails, by the domain of their recipients.
MAILS = {
    "full.example": 235,
    "poison.example": 1,
    "orphan.example": 3,
    "old.example": 2,
    "down.example": 500,
    "login.example": 500,
    "cert.example": 150,
    "transition.example": 150,
    "grey.example": 150,
    "gone.example": 304,
    "unknown.example": 1,
    "good.example": 4,
}

#: Domains with a relay of their own.
RELAYS = ("down", "login", "cert", "transition", "unknown")

SCHEDULE = Schedule(first=3600, jitter=0, on_unknown=OnUnknown.HOLD)
DAY = 86400.0


class FullDisk(Disk):
    """A disk with no room as long as the queue has all those mails that were rejected a month ago."""

    def room(self, path: str) -> os.statvfs_result:
        """See `Disk.room`."""
        room = list(super().room(path))
        rejected = sum(name.startswith(REJECTED + "1800") for name in os.listdir(os.path.join(path, "new")))
        if rejected >= MAILS["full.example"]:
            room[3] = room[4] = 0  # f_bfree, f_bavail
        return os.statvfs_result(room)


def commands(document: str) -> Iterator[tuple[str, list[str], int]]:
    """Yield the commands of the night, each with the lines that it prints and its status."""
    night = document[document.index("A night\n") : document.index("Monitoring\n==")]
    for block in night.split("   $ ")[1:]:
        command, *lines = block.split("\n")
        shown = list(itertools.takewhile(lambda line: not line.startswith("   [status"), lines))
        status = re.search(r"\[status (\d+)\]", block)
        assert status is not None, command
        yield command, [line.strip() for line in shown if line.strip()], int(status[1])


class Night(OperatorsTest):
    def setUp(self) -> None:
        super().setUp()
        if not os.path.exists(DOCUMENT):
            self.skipTest("the documents are not beside the package: this is not a checkout")
        counter = itertools.count()
        now = lambda: int(self.clock.wall * 1e9) + next(counter) * 1000  # noqa: E731 - names follow the clock
        self.enterContext(mock.patch("zope.sendmail.maildir.time.time_ns", side_effect=now))
        disk = FullDisk()
        opened = partial(open_queue, clock=self.clock, disk=disk)
        self.enterContext(mock.patch.object(queuecommands, "open_queue", opened))
        self.queue = MaildirQueue(self.path, clock=self.clock, schedule=SCHEDULE, disk=disk)
        self.addCleanup(self.queue.close)
        self.run_: Run | None = None
        self.make_relays()
        self.make_mess()

    # the relays

    def make_relays(self) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        users = {"shop": "right"}
        self.relays = {
            "main": Relay(),
            "down": Relay(),
            "login": Relay(users=users),
            "cert": Relay(tls=context),
            "transition": Relay(users=users),
            "unknown": Relay(),
        }
        for relay in self.relays.values():
            self.enterContext(relay)
        self.relays["down"].stop()
        self.relays["main"].on("RCPT", "450 4.7.1 greylisted", about="@grey.example")
        self.relays["main"].on("RCPT", "550 5.1.1 <x@gone.example> no such user", about="@gone.example")
        self.relays["transition"].on("AUTH", "432 4.7.12 A password transition is needed")
        self.relays["unknown"].on("DOT", Drop(), nth=1)
        self.password = os.path.join(os.path.dirname(self.path), "password")
        Disk().create(self.password, b"wrong\n")

    def mailer(self, name: str) -> SMTPMailer:
        port = self.relays[name].port
        if name == "cert":
            return SMTPMailer("localhost", port, tls=Tls.REQUIRED)
        if name in ("login", "transition"):
            password = "wrong" if name == "login" else "right"
            mailer = SMTPMailer("127.0.0.1", port, "shop", password, tls=Tls.NEVER, allow_clear_password=True)
            return follow_password_file(mailer, {"password_file": self.password}) if name == "login" else mailer
        return SMTPMailer("127.0.0.1", port, tls=Tls.NEVER)

    def start_processor(self) -> None:
        routes = Routes(
            "main", frozenset({"main", *RELAYS}), frozenset(), {f"@{name}.example": name for name in RELAYS}
        )
        mailers = {name: self.mailer(name) for name in RELAYS}
        processor = QueueProcessorThread(
            queue=self.queue,
            mailer=self.mailer("main"),
            mailers=mailers,
            routes=routes,
            schedule=SCHEDULE,
            clock=self.clock,
            concurrency=2,
        )
        self.run_ = processor.new_run()
        self.addCleanup(self.run_.end)
        self.run_.once()

    # the mess

    def put_domain(self, domain: str) -> None:
        """Commit the mails for a domain, in one transaction."""
        staged = self.queue.stage()
        reason, count = domain.partition(".")[0], MAILS[domain]
        for number in range(1, count + 1):
            name = f"{reason}@shop" if count == 1 else f"{reason}-{number}@shop"
            text = f"Message-Id: <{name}>\nSubject: {reason}\n\ntext\n".encode()
            staged.add(Envelope("shop@example.org", (f"{number}@{domain}",)), text)
        staged.prepare()
        staged.commit()

    def make_mess(self) -> None:
        self.put_domain("full.example")
        rejected = Reply(Answer.REJECTED, "mailbox unavailable", 550, "5.1.1")
        while leases := self.queue.claim(50):
            for lease in leases:
                outcome = Outcome.same("relay:25", lease.envelope.recipients, rejected)
                lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=self.clock.time(), chance=0.5))
        self.clock.advance(40 * DAY)
        self.put_domain("poison.example")
        for _ in range(3):
            self.die(lambda queue: queue.claim()[0].open())
        for lease in self.queue.claim(9):
            lease.release()
        self.put_domain("orphan.example")
        self.die(lambda queue: queue.claim(9))
        self.put_domain("old.example")
        for mail in list(self.queue.admin.mails(recipient="@old.example")):
            lock = os.path.join(self.path, "new", SENDING + mail.name)
            os.utime(os.path.join(self.path, "new", mail.name), (self.clock.time(), self.clock.time()))
            os.link(os.path.join(self.path, "new", mail.name), lock)
        for domain in list(MAILS)[4:]:
            self.put_domain(domain)
        self.queue.close()
        self.clock.advance(3600)

    def die(self, work: Callable[[MaildirQueue], object]) -> None:
        """Let another process do something with the queue, and die without a word."""
        child = os.fork()
        if not child:
            try:
                queue = MaildirQueue(self.path, clock=self.clock, schedule=SCHEDULE)
                _kept = queue, work(queue)
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    # what is done besides the commands

    def change_password(self) -> None:
        with open(self.password, "wb") as file:
            file.write(b"right\n")

    OUTSIDE: dict[str, Callable[[Night], None]] = {
        "queue relays": start_processor,
        "flush down": lambda night: night.relays["down"].start(),
        "flush login": change_password,
        "flush transition": lambda night: night.relays["transition"].forgive(),
        "retry --reply 450": lambda night: night.relays["main"].forgive(),
    }

    def run_command(self, command: str) -> int:
        command = command.replace("CERTPORT", str(self.relays["cert"].port))
        words = [word.replace("/var/lib/shop/mail", self.path) for word in command.split()[1:]]
        if words[0] == "queue":
            return self.call(*words[1:])
        return self.call_app(words)

    def play(self, command: str, shown: list[str], status: int) -> None:
        """Do what is done before the command, run it, compare; then the processor has its turn."""
        said = command.replace(" /var/lib/shop/mail", "")
        for words, do in self.OUTSIDE.items():
            if said.endswith(words):
                do(self)
        self.clock.advance(1)
        self.assertEqual(self.run_command(command), status, f"{command}\n{self.said}{self.complained}")
        self.assertShows(shown, self.said, command)
        self.clock.advance(1)
        if self.run_ is not None:
            self.run_.once()

    def assertShows(self, shown: list[str], said: str, command: str) -> None:
        """Each line is there, in this order; ``...`` is anything, and how lines are wrapped does not matter."""
        rest = " ".join(said.split())
        for line in shown:
            pattern = ".*?".join(re.escape(" ".join(part.split())) for part in line.split("..."))
            found = re.search(pattern, rest)
            self.assertIsNotNone(found, f"{command} does not show {line!r}:\n{said}")
            rest = rest[found.end() :] if found else ""


class TheNight(Night):
    def test_ends_well(self) -> None:
        """Each reason is found by one verb and mended by another; no mail is lost, and none leaves twice."""
        began = time.process_time()  # the wall's says how busy the machine is
        self.assertEqual(sum(MAILS.values()), 2000)
        with open(DOCUMENT, encoding="utf-8") as stream:
            played = list(commands(stream.read()))
        self.assertGreater(len(played), 20)
        for command, shown, status in played:
            with self.subTest(command):
                self.play(command, shown, status)
        sent = Counter(
            recipient.rpartition("@")[2]
            for relay in self.relays.values()
            for mail in relay.mails
            for recipient in mail.recipients
        )
        left = {"full.example", "poison.example", "gone.example"}
        expected = {domain: count for domain, count in MAILS.items() if domain not in left}
        # The relay has had the unknown mail once, and the operator let it go again.  A report went to the sender.
        self.assertEqual(sent, {**expected, "unknown.example": 2, "example.org": 1})
        self.assertEqual([mail.message_id for mail in self.queue.admin.mails()], ["poison@shop"])
        self.assertLess(time.process_time() - began, 600)


class TheDocument(unittest.TestCase):
    def setUp(self) -> None:
        if not os.path.exists(DOCUMENT):
            self.skipTest("the documents are not beside the package: this is not a checkout")
        with open(DOCUMENT, encoding="utf-8") as stream:
            self.text = stream.read()

    def test_has_two_verbs_for_each_reason(self) -> None:
        """One finds it, another one mends it; both are played in the section about it, or the doctor before it."""
        rows = re.findall(r"(?m)^(\S.*?)  +``(\w+)`` +``(\w+)``", self.text)
        self.assertEqual(len(rows), 11)
        for reason, finds, mends in rows:
            with self.subTest(reason):
                self.assertIn(finds, {*VIEWS, "check"})
                self.assertIn(mends, CHANGES)
                section = re.split(r"\n[^\n]+\n---+\n", self.text.split(f"\n{reason}\n---")[1])[0]
                played = re.findall(r"\$ zope-sendmail (?:queue )?(\w+)", section)
                self.assertIn(mends, played)
                if finds != "doctor":
                    self.assertIn(finds, played)

    def test_names_every_verb(self) -> None:
        """An operator finds each in it."""
        text = self.text
        for verb in ("doctor", "relays", "top", "count", "list", "show", "status", "errors", "shape", "retry", "flush"):
            self.assertIn(verb, text)
        self.assertTrue(callable(app.main))


load_tests = in_layer(Processes)


if __name__ == "__main__":
    unittest.main()
