"""Programs that are out there go on as they are.

One class for each way in which programs use zope.sendmail 7.3: what they import, subclass, patch, read and write is
done here as they do it, in our own words.
"""

from __future__ import annotations

import importlib.util
import os
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Sequence
from email.mime.text import MIMEText
from types import SimpleNamespace
from typing import Any
from unittest import mock

import transaction
import zope.security
from zope.app.appsetup.product import getProductConfiguration, setProductConfiguration
from zope.component import getUtility, provideUtility
from zope.component.zcml import handler
from zope.configuration import xmlconfig
from zope.event import notify
from zope.interface import implementer
from zope.processlifetime import DatabaseOpenedWithRoot
from zope.schema import TextLine
from zope.security.checker import ProxyFactory
from zope.security.interfaces import Unauthorized
from zope.security.management import endInteraction, newInteraction
from zope.testing.cleanup import cleanUp

import zope.sendmail.zcml
from zope.sendmail import delivery as delivery_module, startup
from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.interfaces import IMailDelivery, IMailer, ISMTPMailer
from zope.sendmail.maildir import Maildir
from zope.sendmail.mailer import SMTPMailer, _SMTPState
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.sender import MailSender
from zope.sendmail.testing.relay import Hang, Relay
from zope.sendmail.tests.support.conversation import Conversation, right_tls
from zope.sendmail.tests.support.layers import Processes, in_layer
from zope.sendmail.zcml import IMailerDirective

SENDER, ONE = "sender@example.org", "one@example.org"
MESSAGE = "Subject: x\n\nx\n"
SITE = '<configure xmlns="http://namespaces.zope.org/zope" xmlns:mail="http://namespaces.zope.org/mail">%s</configure>'


class Client(Conversation):
    """A program with a queue of its own and a relay."""

    def setUp(self) -> None:
        super().setUp()
        cleanUp()
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.addCleanup(cleanUp)  # first of all: ends the threads that are at work there
        self.path = os.path.join(self.directory, "queue")

    def load(self, *directives: str, meta: str = "") -> None:
        """Load ZCML as site.zcml does."""
        context = xmlconfig.file("meta.zcml", zope.component)
        context = xmlconfig.file("meta.zcml", zope.security, context)
        context = xmlconfig.file("meta.zcml", zope.sendmail, context)
        xmlconfig.string(SITE % (meta + "".join(directives)), context)

    def got(self, relay: Relay) -> list[str]:
        return [recipient for mail in relay.mails for recipient in mail.recipients]

    def drain(self, mailer: Any) -> None:
        thread = delivery_module.QueueProcessorThread()
        thread.setMailer(mailer)
        thread.setQueuePath(self.path)
        thread.run(False)

    def assertProtected(self, delivery: Any) -> None:
        """Who comes through the web and has no permission may not send."""
        participation = SimpleNamespace(principal=SimpleNamespace(id="visitor", groups=[]), interaction=None)
        newInteraction(participation)
        try:
            self.assertRaises(Unauthorized, lambda: ProxyFactory(delivery).send)
        finally:
            endInteraction()


class Recording:
    """The least of a mailer."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[str, ...], bytes]] = []

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
        self.sent.append((fromaddr, tuple(toaddrs), message))


class ProductsMailHost(Client):
    """Builds a mailer by keywords for each mail, and a thread for each queue directory."""

    def mailer(self, relay: Relay, **more: Any) -> SMTPMailer:
        usual: dict[str, Any] = {"username": None, "password": None, "force_tls": False, "implicit_tls": False}
        return SMTPMailer(hostname=relay.host, port=int(relay.port), **{**usual, **more})

    def test_sends_at_once(self) -> None:
        """With ``send``, a str as recipient, and no transaction."""
        relay = self.start()
        self.mailer(relay).send(SENDER, ONE, MESSAGE)
        self.assertEqual(self.got(relay), [ONE])

    def test_sends_directly(self) -> None:
        """With a delivery for each mail."""
        relay = self.start()
        for number in range(3):
            DirectMailDelivery(self.mailer(relay)).send(SENDER, [f"{number}@example.org"], MESSAGE)
        self.assertEqual(relay.mails, [])
        transaction.commit()
        self.assertEqual(len(relay.mails), 3)

    def test_queues(self) -> None:
        """Thread first, then the mail; the queue's length is that of a Maildir; the thread is polled at its end."""
        relay = self.start()
        thread = delivery_module.QueueProcessorThread()
        thread.setMailer(self.mailer(relay))
        thread.setQueuePath(self.path)
        self.assertEqual(len(list(Maildir(self.path))), 0)
        thread.start()
        QueuedMailDelivery(self.path).send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        relay.wait_until(lambda: relay.mails)
        thread.stop()
        while thread.is_alive():
            thread.join(0.3)
        self.assertEqual((self.got(relay), len(list(Maildir(self.path)))), ([ONE], 0))

    def test_counts_what_waits(self) -> None:
        """Also mails of a transaction that stand in a bundle at first."""
        for number in range(20):
            QueuedMailDelivery(self.path).send(SENDER, [f"{number}@example.org"], MESSAGE)
        transaction.commit()
        self.drain(Recording())
        QueuedMailDelivery(self.path).send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        self.assertEqual(len(list(Maildir(self.path))), 1)

    def test_says_that_something_is_no_queue(self) -> None:
        """With the exception that it catches."""
        with self.assertRaises(ValueError):
            Maildir(self.directory)

    def test_has_no_settings_for_certificates_and_passwords(self) -> None:
        """So a site sets them in the class (docs/howto/upgrading.rst)."""
        relay = self.start(tls=right_tls(), users={"me": "secret"})
        mailer = self.mailer(relay, username="me", password="secret")
        with self.assertRaisesRegex(OSError, "CERTIFICATE_VERIFY_FAILED"):
            mailer.send(SENDER, [ONE], MESSAGE)
        with mock.patch.object(SMTPMailer, "cafile", self.cafile()):
            mailer.send(SENDER, [ONE], MESSAGE)
        with mock.patch.object(SMTPMailer, "verify", False):
            mailer.send(SENDER, [ONE], MESSAGE)
        bare = self.start(users={"me": "secret"})
        with mock.patch.object(SMTPMailer, "allow_clear_password", True):
            self.mailer(bare, username="me", password="secret").send(SENDER, [ONE], MESSAGE)
        self.assertEqual((len(relay.mails), len(bare.mails)), (2, 1))


PROGRAM = """
import sys, threading, time
from zope.sendmail.delivery import QueueProcessorThread, QueuedMailDelivery
import transaction
arrived = threading.Event()
class Slow:
    def send(self, fromaddr, toaddrs, message):
        arrived.set()
        while threading.main_thread().is_alive():
            time.sleep(0.01)
        print("sent", *toaddrs, flush=True)
thread = QueueProcessorThread()
thread.setMailer(Slow())
thread.setQueuePath(sys.argv[1])
thread.start()
QueuedMailDelivery(sys.argv[1]).send("s@example.org", ["one@example.org"], "Subject: x\\n\\nx\\n")
transaction.commit()
arrived.wait(300)
"""


class AThreadOfSomebodysOwn(Client):
    """Products.MailHost, Grok applications and CPSMailAccess start the thread themselves, and never stop it."""

    def test_finishes_the_message_in_hand_when_the_process_ends(self) -> None:
        """As 7.3 did with an exit handler of its own."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, self.path],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.returncode), ("sent one@example.org\n", 0), done.stderr)
        self.assertEqual(list(Maildir(self.path)), [])


class Plone(Client):
    """Wraps ``SMTPMailer.__init__`` keyword-only, and puts in what its registry says."""

    def setUp(self) -> None:
        super().setUp()
        original: Any = SMTPMailer.__init__
        self.registry: dict[str, Any] = {"hostname": "registry.example.org", "port": 2525}

        def from_registry(mailer: SMTPMailer, **options: Any) -> None:
            if not self.registry:
                raise LookupError("there is no site, and so no registry")
            original(mailer, **{**options, **self.registry})

        self.enterContext(mock.patch.object(SMTPMailer, "__init__", from_registry))

    def assertFromRegistry(self, mailer: Any) -> None:
        self.assertEqual((mailer.hostname, mailer.port), ("registry.example.org", 2525))

    def test_in_python(self) -> None:
        """As Products.MailHost calls it."""
        self.assertFromRegistry(SMTPMailer(hostname="x", port=25, username=None, password=None, force_tls=False))

    def test_in_zcml(self) -> None:
        """What is written there counts, and no site has to be there; 7.3 raised a TypeError."""
        self.registry.clear()
        self.load('<mail:smtpMailer name="m" hostname="x" port="587" /><mail:lmtpMailer name="l" hostname="y" />')
        mailer, lmtp = getUtility(IMailer, "m"), getUtility(IMailer, "l")
        self.assertEqual((mailer.hostname, mailer.port), ("x", 587))
        self.assertEqual((lmtp.hostname, lmtp.port), ("y", 24))

    def test_in_the_package_itself(self) -> None:
        """Its own ZCML registers a mailer."""
        self.registry.clear()
        self.load(meta='<include package="zope.component" /><include package="zope.sendmail" />')
        self.assertEqual(getUtility(IMailer, "smtp").hostname, "localhost")

    def test_in_a_mail_that_names_its_relay(self) -> None:
        """The thread that sends it knows no site."""
        relay = self.start()
        routes = Routes(addresses=frozenset({(relay.host, relay.port)}))
        QueuedMailDelivery(self.path, routes=routes).send(SENDER, [ONE], MESSAGE, relay=f"{relay.host}:{relay.port}")
        transaction.commit()
        mailer = SMTPMailer(hostname="nowhere.example.org")
        self.registry.clear()
        QueueProcessorThread(queue=MaildirQueue(self.path), mailer=mailer, routes=routes).run(forever=False)
        self.assertEqual(self.got(relay), [ONE])

    def test_in_a_program_that_sends_elsewhere(self) -> None:
        """Such as an add-on with a relay of its own."""
        relay = self.start()
        self.registry.clear()
        with MailSender(self.path, relay.host, relay.port) as sender:
            sender.send(SENDER, [ONE], MESSAGE)
        self.assertEqual(self.got(relay), [ONE])

    def test_in_the_console_script(self) -> None:
        """7.3 raised a TypeError."""
        app = zope.sendmail.queue.ConsoleApp(["zope-sendmail", "--hostname", "x", "--force-tls", self.path])
        self.assertFromRegistry(app.mailer)

    def test_sends(self) -> None:
        """Through the relay of the registry."""
        relay = self.start()
        self.registry.update(hostname=relay.host, port=relay.port)
        DirectMailDelivery(SMTPMailer(hostname="nowhere.example.org")).send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        self.assertEqual(self.got(relay), [ONE])

    def test_wraps_without_a_word_for_new_settings(self) -> None:
        """Plone 5.2 replaced the method wholesale, and set what 4.1 had."""
        relay = self.start()

        def replaced(mailer: Any, hostname: str = "x", port: int = 0, **options: Any) -> None:
            mailer.hostname, mailer.port = relay.host, relay.port
            mailer.username = mailer.password = None
            mailer.no_tls = mailer.force_tls = False
            mailer._smtp = _SMTPState()

        with mock.patch.object(SMTPMailer, "__init__", replaced):
            SMTPMailer().send(SENDER, [ONE], MESSAGE)
        self.assertEqual(self.got(relay), [ONE])

    def test_limits_the_time_of_a_test_mail(self) -> None:
        """Its control panel sets the default timeout of all sockets; a mailer with ``timeout=None`` obeys."""
        before = socket.getdefaulttimeout()
        self.addCleanup(socket.setdefaulttimeout, before)
        socket.setdefaulttimeout(3)
        self.registry.update(timeout=None)
        self.assertEqual(SMTPMailer().relay_settings().timeouts.connect, 3.0)


class ISSLOption(IMailerDirective):
    """A directive of somebody else."""

    address = TextLine(title="Address", required=False)


class _Launchpads:
    """Two mailers and their directives."""

    made: list[Any] = []

    class Redirecting:
        """Sends everything to one address, through another mailer."""

        def __init__(self, address: str, mailer: str) -> None:
            self.address, self.mailer = address, mailer

        def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
            getUtility(IMailer, self.mailer).send(fromaddr, [self.address], message)

    @classmethod
    def stub(cls, _context: Any, name: str, address: str) -> None:
        _context.action(
            discriminator=("utility", IMailer, name),
            callable=handler,
            args=("registerUtility", cls.Redirecting(address, "in-memory"), IMailer, name),
        )

    @classmethod
    def memory(cls, _context: Any, name: str) -> None:
        mailer = Recording()
        cls.made.append(mailer)
        _context.action(
            discriminator=("utility", IMailer, name),
            callable=handler,
            args=("registerUtility", mailer, IMailer, name),
        )


def stub_mailer(_context: Any, name: str, address: str) -> None:
    """A handler."""
    _Launchpads.stub(_context, name, address)


def memory_mailer(_context: Any, name: str) -> None:
    """A handler."""
    _Launchpads.memory(_context, name)


DIRECTIVES = f"""
<configure xmlns="http://namespaces.zope.org/meta">
  <directives namespace="http://namespaces.zope.org/mail">
    <directive name="stubMailer" schema="{__name__}.ISSLOption" handler="{__name__}.stub_mailer" />
    <directive name="testMailer" schema="zope.sendmail.zcml.IMailerDirective" handler="{__name__}.memory_mailer" />
  </directives>
</configure>
"""


class Launchpad(Client):
    """Has directives of its own in our namespace, and stops the thread at exit."""

    def load_site(self, *directives: str) -> None:
        context = xmlconfig.file("meta.zcml", zope.component)
        context = xmlconfig.file("meta.zcml", zope.security, context)
        context = xmlconfig.file("meta.zcml", zope.sendmail, context)
        xmlconfig.string(DIRECTIVES, context)
        xmlconfig.string(SITE % "".join(directives), context)

    def test_adds_mailers(self) -> None:
        """Deliveries refer to them, whatever stands first."""
        self.load_site(
            '<mail:directDelivery name="Mail" mailer="stub" />',
            '<mail:stubMailer name="stub" address="everything@example.org" />',
            '<mail:testMailer name="in-memory" />',
        )
        getUtility(IMailDelivery, "Mail").send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        self.assertEqual([each[1] for each in _Launchpads.made[-1].sent], [("everything@example.org",)])

    def test_queues_with_a_permission(self) -> None:
        """Who has it may send."""
        self.load_site(
            '<permission id="zope.SendMail" title="Send mail" />',
            '<mail:testMailer name="in-memory" />',
            f'<mail:queuedDelivery mailer="in-memory" queuePath="{self.path}" permission="zope.SendMail" />',
        )
        self.assertProtected(getUtility(IMailDelivery, "Mail"))

    def test_ends_the_thread_at_exit(self) -> None:
        """It knows it by its class, stops it and waits."""
        self.load_site(
            '<mail:testMailer name="in-memory" />',
            f'<mail:queuedDelivery name="Mail" mailer="in-memory" queuePath="{self.path}" />',
        )
        notify(DatabaseOpenedWithRoot(object()))
        ended = []
        for thread in threading.enumerate():
            if isinstance(thread, delivery_module.QueueProcessorThread):
                thread.stop()
                thread.join(300)
                ended.append(thread.is_alive())
        self.assertEqual(ended, [False])

    def test_starts_the_thread_without_a_database(self) -> None:
        """The one call that a program without a ZODB has to add (docs/howto/upgrading.rst)."""
        self.load_site(
            '<mail:testMailer name="in-memory" />',
            f'<mail:queuedDelivery name="Mail" mailer="in-memory" queuePath="{self.path}" />',
        )
        self.assertEqual(startup.running(), [])
        self.assertEqual(len(startup.start()), 1)


class GroupServer(Client):
    """Subclasses the mailer with a ``send`` that was copied to ask for VERP."""

    class VERPMailer(SMTPMailer):
        def send(self, fromaddr: str, toaddrs: Sequence[str], message: Any) -> Any:
            if self.connection is None:
                self.vote(fromaddr, toaddrs, message)
            relay = self.connection
            if not self.no_tls and relay.has_extn("starttls"):
                relay.starttls()
                relay.ehlo()
            elif self.force_tls:
                raise RuntimeError("no TLS")
            if None not in (self.username, self.password):
                relay.login(self.username, self.password)
            relay.sendmail(fromaddr, toaddrs, message, mail_options=["XVERP"])
            self._close_connection()

    def check(self, relay: Relay, **options: Any) -> None:
        mailer = self.VERPMailer(relay.host, relay.port, **options)
        delivery = DirectMailDelivery(mailer)
        delivery.send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        QueuedMailDelivery(self.path).send(SENDER, ["two@example.org"], MESSAGE)
        transaction.commit()
        self.drain(mailer)
        self.assertEqual(self.got(relay), [ONE, "two@example.org"])
        self.assertTrue(all("XVERP" in mail.options for mail in relay.mails), relay.mails)

    def test_asks_for_verp(self) -> None:
        """Directly and from the queue; settings from an ini file may be None."""
        self.check(self.start(), no_tls=None, force_tls=None)

    def test_asks_for_verp_over_tls_with_a_login(self) -> None:
        """`vote` has done both already; to do them again is harmless."""
        with mock.patch.object(SMTPMailer, "cafile", self.cafile()):
            relay = self.start(tls=right_tls(), users={"me": "secret"})
            self.check(relay, username="me", password="secret", force_tls=True)

    def test_registers_by_hand(self) -> None:
        """Mailer, delivery and thread, without ZCML."""
        mailer = Recording()
        provideUtility(mailer, IMailer, "m")
        provideUtility(QueuedMailDelivery(self.path), IMailDelivery, "Mail")
        getUtility(IMailDelivery, "Mail").send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        self.drain(getUtility(IMailer, "m"))
        self.assertEqual(len(mailer.sent), 1)


class Naaya(Client):
    """Queues at once, reads the queue itself, and ignores all errors of direct mail."""

    class BestEffort(SMTPMailer):
        def send(self, *arguments: Any) -> Any:
            try:
                return super().send(*arguments)
            except Exception:
                return None

    def test_queues_at_once(self) -> None:
        """With a data manager that it finishes by hand, whatever the transaction does."""
        delivery = QueuedMailDelivery(self.path)
        identifier = delivery.newMessageId()
        message = f"Message-Id: <{identifier}>\n{MESSAGE}"
        delivery.createDataManager(SENDER, [ONE], message.encode()).tpc_finish(None)
        transaction.abort()
        [path] = Maildir(self.path)
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), f"X-Zope-From: {SENDER}\nX-Zope-To: {ONE}\n{message}")
        self.assertRegex(identifier, r"^\d{14}\.\d+\.\d+@.")

    def test_reads_the_queue(self) -> None:
        """Names in ``new``, with ``.sending-`` in front of what is being sent."""
        relay = self.start()
        hang = Hang("250 taken")
        relay.on("DOT", hang)
        delivery = QueuedMailDelivery(self.path)
        delivery.createDataManager(SENDER, [ONE], MESSAGE.encode()).tpc_finish(None)
        [name] = os.listdir(os.path.join(self.path, "new"))
        thread = QueueProcessorThread()
        thread.setMailer(SMTPMailer(relay.host, relay.port))
        thread.setQueuePath(self.path)
        thread.start()
        self.addCleanup(thread.join, 30)
        self.addCleanup(thread.stop)
        self.assertTrue(hang.reached.wait(300))
        found = os.listdir(os.path.join(self.path, "new"))
        self.assertEqual({each.removeprefix(".sending-") for each in found}, {name})
        hang.release()
        relay.wait_until(lambda: relay.mails)
        thread.stop()
        thread.join(300)
        self.assertEqual(os.listdir(os.path.join(self.path, "new")), [])

    def test_best_effort(self) -> None:
        """A refusal is its own business; the vote is not overridden and tells of a relay that is down, as in 7.3."""
        relay = self.start()
        relay.on("RCPT", "550 no")
        self.BestEffort(relay.host, relay.port).send(SENDER, [ONE], MESSAGE)
        DirectMailDelivery(self.BestEffort(relay.host, relay.port)).send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        relay.stop()
        DirectMailDelivery(self.BestEffort(relay.host, relay.port)).send(SENDER, [ONE], MESSAGE)
        with self.assertRaises(OSError):
            transaction.commit()


class CPSMailAccess(Client):
    """A processor with a loop of its own, and a mailer that is another relay for each message."""

    def test_loops_by_itself(self) -> None:
        """Over the Maildir, with the parser of old."""
        relay = self.start()

        class Sender(QueueProcessorThread):
            def run(self, forever: bool = True) -> None:
                for filename in self.maildir or ():
                    with open(filename, "rb") as file:
                        fromaddr, toaddrs, rest = self._parseMessage(file.read())
                    with self._lock:
                        self.mailer.hostname, self.mailer.port = relay.host, str(relay.port)
                        self.mailer.send(fromaddr, toaddrs, rest)
                    self._unlink_if_exists(filename)

        QueuedMailDelivery(self.path).send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        thread = Sender()
        thread.setMailer(SMTPMailer("nowhere.example.org"))
        thread.setQueuePath(self.path)
        thread.start()
        thread.join(300)
        self.assertEqual((self.got(relay), list(Maildir(self.path))), ([ONE], []))


class LovelyMail(Client):
    """Tests with a fake in the place of smtplib's class, and turns the queue by hand."""

    def test_puts_in_a_fake(self) -> None:
        """Which takes host and port and nothing else (broken by 7.3)."""
        calls: list[Any] = []

        class Fake:
            does_esmtp = False

            def __init__(self, host: str, port: str) -> None:
                calls.append((host, port))

            def ehlo(self) -> tuple[int, bytes]:
                return 250, b"fake"

            helo = ehlo

            def has_extn(self, name: str) -> bool:
                return False

            def sendmail(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> dict[str, Any]:
                calls.append((fromaddr, list(toaddrs)))
                return {}

            def quit(self) -> None:
                calls.append("quit")

            def close(self) -> None:
                calls.append("close")

        mailer = SMTPMailer("relay.example.org", 25)
        mailer.smtp = Fake
        mailer.send(SENDER, [ONE], MESSAGE)
        self.assertEqual(calls[:3], [("relay.example.org", "25"), (SENDER, [ONE]), "quit"])

    def test_moves_the_queue(self) -> None:
        """By setting the private attribute; then one pass in the thread of the test."""
        delivery = QueuedMailDelivery(os.path.join(self.directory, "elsewhere"))
        delivery._queuePath = self.path
        delivery.send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        mailer = Recording()
        self.drain(mailer)
        self.assertEqual([each[1] for each in mailer.sent], [(ONE,)])

    def test_finds_threads_that_are_left(self) -> None:
        """By class among all threads of the process."""
        thread = QueueProcessorThread()
        thread.setMailer(Recording())
        thread.setQueuePath(self.path)
        thread.start()
        self.addCleanup(thread.join, 30)
        self.addCleanup(thread.stop)
        self.assertIn(thread, [each for each in threading.enumerate() if isinstance(each, QueueProcessorThread)])


class SSLAddOns(Client):
    """collective.smtpssl and its likes: before there was implicit TLS they put in the other class."""

    def test_assign_the_class(self) -> None:
        """On an instance, if the port says so."""
        relay = self.start(tls=right_tls(), implicit=True)
        mailer = SMTPMailer(hostname=relay.host, port=relay.port)
        mailer.smtp, mailer.cafile = smtplib.SMTP_SSL, self.cafile()
        mailer.send(SENDER, [ONE], MESSAGE)
        self.assertEqual(self.got(relay), [ONE])


class GrokApplications(Client):
    """Everything by hand, settings from zope.conf, private names of ZCML."""

    def test_reads_product_configuration(self) -> None:
        """Its own section, not ours."""
        relay = self.start()
        settings = {"queue-path": self.path, "hostname": relay.host, "port": str(relay.port)}
        setProductConfiguration("mailer", settings)
        self.addCleanup(setProductConfiguration, "mailer", None)
        config: Any = getProductConfiguration("mailer")
        mailer = SMTPMailer(
            config["hostname"], int(config["port"]), config.get("username"), config.get("password"), force_tls=False
        )
        thread = delivery_module.QueueProcessorThread()
        thread.setMailer(mailer)
        thread.setQueuePath(config["queue-path"])
        thread.start()
        self.addCleanup(thread.join, 30)
        self.addCleanup(thread.stop)
        QueuedMailDelivery(config["queue-path"]).send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        relay.wait_until(lambda: relay.mails)

    def test_protects_a_delivery(self) -> None:
        """With the function that ZCML uses."""
        protected = zope.sendmail.zcml._assertPermission("zope.SendMail", IMailDelivery, QueuedMailDelivery(self.path))
        self.assertProtected(protected)
        self.assertTrue(IMailDelivery.providedBy(protected))

    def test_settings_from_our_section(self) -> None:
        """``<product-config mail>``, which 7.3 did not know, is read by the directives."""
        setProductConfiguration("mail", {"queue-path": self.path, "hostname": "conf.example.org"})
        self.addCleanup(setProductConfiguration, "mail", None)
        self.load('<mail:smtpMailer name="m" />', '<mail:queuedDelivery mailer="m" />')
        self.assertEqual(getUtility(IMailer, "m").hostname, "conf.example.org")
        self.assertEqual(getUtility(IMailDelivery, "Mail").queuePath, self.path)

    def test_a_section_of_somebody_else(self) -> None:
        """Who already has a section ``mail`` of its own is told so; nothing is guessed."""
        setProductConfiguration("mail", {"smtp-host": "x"})
        self.addCleanup(setProductConfiguration, "mail", None)
        with self.assertRaisesRegex(Exception, "unknown: smtp-host;.* known are:"):
            self.load('<mail:smtpMailer name="m" />')


#: A site of 7.3, and the program that serves it.
SITE_OF_OLD = """
<configure xmlns="http://namespaces.zope.org/zope" xmlns:mail="http://namespaces.zope.org/mail" i18n_domain="shop">
  <include package="zope.component" file="meta.zcml" />
  <include package="zope.security" file="meta.zcml" />
  <include package="zope.security" file="permissions.zcml" />
  <include package="zope.sendmail" file="meta.zcml" />
  <include package="zope.component" />
  <include package="zope.location" />
  <include package="zope.traversing" />
  <include package="zope.container" />
  <include package="zope.site" />
  <include package="zope.app.appsetup" />
  <include package="zope.sendmail" />
  <mail:smtpMailer name="relay" hostname="127.0.0.1" port="PORT" timeout="5" />
  <mail:queuedDelivery name="Mail" permission="zope.SendMail" queuePath="./var/queue" mailer="relay" />
  <mail:queuedDelivery name="Other" permission="zope.Public" queuePath="./q" mailer="smtp" processorThread="False" />
  <mail:directDelivery name="Direct" permission="zope.Public" mailer="relay" />
</configure>
"""
CONF_OF_OLD = """
site-definition site.zcml
<zodb>
  <filestorage>
    path Data.fs
  </filestorage>
</zodb>
<eventlog>
  <logfile>
    path STDOUT
  </logfile>
</eventlog>
"""
SERVER = """
import sys, transaction
from zope.app.wsgi import getWSGIApplication
application = getWSGIApplication("zope.conf")
from zope.component import getUtility
from zope.security.proxy import removeSecurityProxy
from zope.sendmail.interfaces import IMailDelivery
for name in "Mail", "Other", "Direct":
    delivery = removeSecurityProxy(getUtility(IMailDelivery, name))
    delivery.send("shop@example.org", [name + "@example.org"], "Subject: x\\n\\nx\\n")
transaction.commit()
sys.stdin.readline()
"""


class AZope3Application(Client):
    """zope.app.wsgi, with the files that it had."""

    def test_starts_and_sends(self) -> None:
        """One mail directly, one through the thread that the opened database has started; one waits; and it ends."""
        if importlib.util.find_spec("zope.app.wsgi") is None:
            self.skipTest("zope.app.wsgi is not installed")
        relay = self.start()
        for name, text in ("site.zcml", SITE_OF_OLD.replace("PORT", str(relay.port))), ("zope.conf", CONF_OF_OLD):
            with open(os.path.join(self.directory, name), "w", encoding="utf-8") as stream:
                stream.write(text)
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            relay.wait_until(lambda: len(relay.mails) == 2 or process.poll() is not None, 120)
        finally:
            output = process.communicate("\n", timeout=300)[0]
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(sorted(self.got(relay)), ["Direct@example.org", "Mail@example.org"])
        waiting = [list(Maildir(os.path.join(self.directory, path))) for path in ("var/queue", "q")]
        self.assertEqual([len(each) for each in waiting], [0, 1])


class IncomingMail(Client):
    """zw.mail.incoming and others read a Maildir that somebody else fills."""

    def test_reads_and_removes(self) -> None:
        """Iterate, open, unlink; nothing of a queue is in the way, and nothing is added to it."""
        box = Maildir(self.path, True)
        self.assertEqual(sorted(os.listdir(self.path)), ["cur", "new", "tmp"])
        now = int(time.time())
        for directory, name in (("new", f"{now}.M1P1.host"), ("cur", f"{now}.M2P1.host:2,S")):
            with open(os.path.join(self.path, directory, name), "w", encoding="utf-8") as file:
                file.write("From: x\n\ny\n")
        for path in box:
            with open(path, encoding="utf-8") as file:
                self.assertEqual(file.readline(), "From: x\n")
            os.unlink(path)
        self.assertEqual(list(Maildir(self.path)), [])

    def test_writes(self) -> None:
        """Without envelope lines."""
        writer = Maildir(self.path, True).newMessage()
        writer.writelines(["From: x\n", b"\n"])
        writer.write("ü\n")
        path = writer.commit()
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"From: x\n\n\xc3\xbc\n")


class SendOnlyMailers(Client):
    """memphis.mail, ftw.notification.email, Bungeni, collective.dancing: settings are looked up at send time."""

    class LateCommits:
        """Has the interface's attributes perhaps, and ``send`` only."""

        def __init__(self, settings: Callable[[], tuple[str, int]]) -> None:
            self.settings = settings

        def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
            hostname, port = self.settings()
            SMTPMailer(hostname, port).send(fromaddr, toaddrs, message)

    def check(self, kind: Any) -> None:
        relay = self.start()
        mailer = kind(lambda: (relay.host, relay.port))
        DirectMailDelivery(mailer).send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        DirectMailDelivery(mailer).send(SENDER, ["aborted@example.org"], MESSAGE)
        transaction.abort()
        QueuedMailDelivery(self.path).send(SENDER, ["two@example.org"], MESSAGE)
        transaction.commit()
        self.drain(mailer)
        self.assertEqual(self.got(relay), [ONE, "two@example.org"])

    def test_without_an_interface(self) -> None:
        """Directly and from the queue; 7.3 raised an AttributeError."""
        self.check(self.LateCommits)

    def test_that_say_they_are_mailers(self) -> None:
        """Whatever they promise, ``send`` is enough."""
        for contract in (IMailer, ISMTPMailer):
            with self.subTest(contract.__name__):
                self.check(implementer(contract)(type("Late", (self.LateCommits,), {})))

    def test_that_know_only_the_arguments_of_old(self) -> None:
        """ConsoleApp and ZCML pass only what was said."""

        class Old(SMTPMailer):
            def __init__(self, hostname: str = "localhost", port: int = 25, no_tls: bool = False) -> None:
                super().__init__(hostname, port, None, None, no_tls)

        class App(zope.sendmail.queue.ConsoleApp):  # type: ignore[misc]  # it is found at run time, under its old name
            MailerKind = Old

        self.assertEqual(App(["zope-sendmail", "--hostname", "h", "--no-tls", self.path]).mailer.hostname, "h")


class MessageObjects(Client):
    """iw.mailhost hands over what the email package made."""

    def test_are_sent(self) -> None:
        """7.3 raised an AttributeError."""
        message = MIMEText("Grüße\n", "plain", "utf-8")
        message["Subject"], message["Bcc"] = "x", "secret@example.org"
        QueuedMailDelivery(self.path).send(SENDER, [ONE], message)
        transaction.commit()
        mailer = Recording()
        self.drain(mailer)
        self.assertNotIn(b"secret", mailer.sent[0][2])


class VoteAndAbort(Client):
    """Mailers with all three methods, called as before."""

    def test_in_their_order(self) -> None:
        """Vote in the vote, send at the end; abort when the transaction aborts."""
        calls: list[str] = []

        @implementer(IMailer)
        class Mailer:
            def vote(self, fromaddr: str, toaddrs: Any, message: bytes) -> None:
                calls.append(f"vote {toaddrs[0]}")

            def send(self, fromaddr: str, toaddrs: Any, message: bytes) -> None:
                calls.append(f"send {toaddrs[0]}")

            def abort(self) -> None:
                calls.append("abort")

        delivery = DirectMailDelivery(Mailer())
        delivery.send(SENDER, [ONE], MESSAGE)
        transaction.commit()
        delivery.send(SENDER, [ONE], MESSAGE)
        transaction.abort()
        self.assertEqual(calls, [f"vote {ONE}", f"send {ONE}", "abort"])


del Conversation, Client

if __name__ == "__main__":
    unittest.main()


load_tests = in_layer(Processes)
