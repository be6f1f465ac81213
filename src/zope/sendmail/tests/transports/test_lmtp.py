"""`zope.sendmail.transports.lmtp`: mail into a mail store, over real sockets."""

from __future__ import annotations

import os
import pickle
import smtplib
import tempfile
import unittest
from collections.abc import Mapping
from typing import Any

import zope.component
import zope.security
from zope.component import getUtility
from zope.configuration import xmlconfig
from zope.configuration.exceptions import ConfigurationError
from zope.interface.verify import verifyObject
from zope.testing.cleanup import cleanUp

import zope.sendmail
from zope.sendmail.config.settings import Tls
from zope.sendmail.interfaces import ILMTPMailer, IMailer
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.relay import KEYWORDS, Drop, Relay
from zope.sendmail.tests.support.conversation import MESSAGE, TIMEOUTS, Conversation, right_tls
from zope.sendmail.tests.support.sockets import socket_directory
from zope.sendmail.transports.lmtp import LMTPMailer

ACCEPTED, DEFERRED, REJECTED, UNKNOWN = Answer.ACCEPTED, Answer.DEFERRED, Answer.REJECTED, Answer.UNKNOWN

THREE = ("one@example.org", "two@example.org", "three@example.org")
FULL = "452 4.2.2 the mailbox is full"


class Stores(Conversation):
    def store(self, **options: Any) -> Relay:
        """A mail store."""
        return self.start(lmtp=True, **options)

    def mailer(self, store: Relay, **options: Any) -> LMTPMailer:
        """A mailer for it."""
        place: dict[str, Any] = {"hostname": store.host, "port": store.port}
        if store.path is not None:
            place = {"socket": store.path}
        return LMTPMailer(**place, timeouts=TIMEOUTS, local_hostname="client.test", **options)

    def path(self) -> str:
        """For a Unix socket."""
        return os.path.join(self.enterContext(socket_directory()), "lmtp")

    def opened(self, store: Relay, **options: Any) -> SMTPSession:
        """A session that is closed when the test ends."""
        session = open_session(self.mailer(store, **options))
        assert isinstance(session, SMTPSession)
        self.addCleanup(session.close)
        return session


class AStoreTakesMail(Stores):
    def test_contract(self) -> None:
        """The mailer keeps its contracts, can be pickled, and says where mail goes."""
        mailer = LMTPMailer("store.example.org", rate=3.0)
        self.assertTrue(verifyObject(ILMTPMailer, mailer))
        copy: LMTPMailer = pickle.loads(pickle.dumps(mailer))
        self.assertEqual((copy.hostname, copy.port, copy.socket, copy.rate), ("store.example.org", 24, None, 3.0))
        self.assertEqual(open_session(mailer).relay, "store.example.org:24")
        self.assertEqual(open_session(LMTPMailer(socket="/run/lmtp")).relay, "/run/lmtp")

    def test_each_recipient_has_its_reply(self) -> None:
        """Refused at RCPT, after the message, or not at all."""
        store = self.store()
        store.on("RCPT", "550 5.1.1 no such user", about="two@")
        store.on("DOT", FULL, about="three@")
        session = self.opened(store)
        outcome = self.transfer(session, *THREE)
        self.assertAnswers(outcome, one=ACCEPTED, two=REJECTED, three=DEFERRED)
        self.assertEqual(outcome.replies["three@example.org"].code, 452)
        self.assertEqual(store.verbs(), ["LHLO", "MAIL", "RCPT", "RCPT", "RCPT", "DATA"])
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(len(store.dialogues), 1)

    def test_connection_ends_between_the_replies(self) -> None:
        """Who was answered for keeps that; for the others it is unknown."""
        store = self.store()
        store.on("DOT", "552 5.2.2 full", about="one@")
        store.on("DOT", Drop(), about="three@")
        outcome = self.transfer(self.opened(store), *THREE)
        self.assertAnswers(outcome, one=REJECTED, two=ACCEPTED, three=UNKNOWN)
        self.assertIsNotNone(outcome.fault)

    def test_nobody_is_left(self) -> None:
        """The message was refused for everybody, and the connection goes on."""
        store = self.store()
        store.on("DOT", FULL, nth=1)
        session = self.opened(store)
        self.assertAnswers(self.transfer(session), one=DEFERRED)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual(len(store.dialogues), 1)

    def test_chunks_are_not_used(self) -> None:
        """A chunk would be answered in ways that few stores agree about; the text goes with DATA."""
        store = self.store(keywords=[*KEYWORDS, "CHUNKING"])
        session = self.opened(store)
        for _ in range(3):
            self.assertAnswers(self.transfer(session, "one@example.org", "two@example.org"), one=ACCEPTED, two=ACCEPTED)
        self.assertNotIn("BDAT", store.verbs())

    def test_without_pipelining(self) -> None:
        """One command at a time, for who offers nothing."""
        store = self.store(keywords=[], strict=True)
        session = self.opened(store)
        for _ in range(2):
            self.assertAnswers(self.transfer(session, "one@example.org", "two@example.org"), one=ACCEPTED, two=ACCEPTED)

    def test_no_helo_after_lhlo(self) -> None:
        """A server that does not know LHLO speaks another language; that is said, and HELO is not tried."""
        relay = self.start()
        outcome = self.transfer(self.opened(relay))
        self.assertFaultOnly(outcome, 500)
        self.assertEqual(relay.verbs()[0], "LHLO")
        self.assertNotIn("HELO", relay.verbs())

    def test_tls_and_login(self) -> None:
        """Over TCP both are as with SMTP."""
        store = self.store(tls=right_tls(), users={"name": "secret"})
        session = self.opened(store, username="name", password="secret", cafile=self.cafile())
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        self.assertEqual((store.mails[0].encrypted, store.mails[0].user), (True, "name"))

    def test_one_at_a_time_with_smtplibs_errors(self) -> None:
        """`send` returns who was refused, raises if that is everybody, and `vote` asks without sending."""
        store = self.store()
        mailer = self.mailer(store)
        store.on("DOT", FULL, about="two@")
        mailer.vote("sender@example.org", THREE, MESSAGE)
        self.assertEqual(store.mails, [])
        refused = mailer.send("sender@example.org", THREE, MESSAGE)
        self.assertEqual(list(refused), ["two@example.org"])
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            mailer.send("sender@example.org", ["two@example.org"], MESSAGE)
        mailer.vote("sender@example.org", THREE, MESSAGE)
        mailer.abort()
        store.wait_until(lambda: store.open == 0)
        self.assertEqual(len(store.mails), 2)

    def test_a_queue_is_drained(self) -> None:
        """Who was served is written down, and the others are deferred."""
        store = self.store()
        store.on("DOT", FULL, about="two@")
        queue = MemoryQueue()
        staged = queue.stage()
        for _ in range(3):
            staged.add(Envelope("sender@example.org", THREE), MESSAGE)
        staged.prepare()
        staged.commit()
        QueueProcessorThread(queue=queue, mailer=self.mailer(store), concurrency=1).run(forever=False)
        self.assertEqual(queue.admin.count()[State.DEFERRED], 3)
        histories = [queue.admin.show(name).history[-1].replies for name in queue.admin.names()]
        answers = {name: reply.answer for name, reply in histories[0].items()}
        self.assertEqual(answers, dict(zip(THREE, (ACCEPTED, DEFERRED, ACCEPTED), strict=True)))
        self.assertEqual((len(store.mails), len(store.dialogues)), (6, 1))


class TheStoreHasASocket(Stores):
    def test_mails_go_through_it(self) -> None:
        """The path takes the place of host and port."""
        path = self.path()
        store = self.store(path=path)
        session = self.opened(store)
        for _ in range(3):
            self.assertAnswers(self.transfer(session, *THREE), one=ACCEPTED, two=ACCEPTED, three=ACCEPTED)
        self.assertEqual((session.relay, len(store.dialogues), len(store.mails)), (path, 1, 9))

    def test_nobody_listens(self) -> None:
        """That is the store's trouble, and no mail's."""
        path = self.path()
        outcome = self.transfer(open_session(LMTPMailer(socket=path)))
        self.assertFaultOnly(outcome)

    def test_store_restarts(self) -> None:
        """The next mail goes over a new connection."""
        path = self.path()
        store = self.store(path=path)
        session = self.opened(store)
        self.transfer(session)
        store.stop()
        store.start()
        self.assertAnswers(self.transfer(session), one=ACCEPTED)

    def test_a_login_needs_no_tls(self) -> None:
        """The password does not leave the machine."""
        path = self.path()
        store = self.store(path=path, users={"name": "secret"})
        self.assertAnswers(self.transfer(self.opened(store, username="name", password="secret")), one=ACCEPTED)
        self.assertEqual(store.mails[0].user, "name")

    def test_another_place(self) -> None:
        """Attributes may be changed, and count for the next connection."""
        stores = [self.store(path=self.path()) for _ in range(2)]
        mailer = self.mailer(stores[0])
        session = open_session(mailer)
        self.addCleanup(session.close)
        for store in stores:
            assert store.path is not None
            mailer.hostname = store.path
            self.assertAnswers(self.transfer(session), one=ACCEPTED)
            self.assertEqual((mailer.socket, len(store.mails)), (store.path, 1))

    def test_settings_are_asked_before_each_mail(self) -> None:
        """And not when the mailer is made: a site's registry may not be there yet."""
        said: list[Mapping[str, Any]] = []
        mailer = LMTPMailer(timeouts=TIMEOUTS, settings=lambda: said[-1])
        session = open_session(mailer)
        self.addCleanup(session.close)
        self.assertFaultOnly(self.transfer(session))
        path = self.path()
        store = self.store(path=path)
        said.append({"hostname": path})
        self.assertAnswers(self.transfer(session), one=ACCEPTED)
        said.append({"hostname": path, "tls": "required"})
        self.assertFaultOnly(self.transfer(session))
        self.assertEqual(len(store.mails), 1)

    def test_what_cannot_be_is_refused(self) -> None:
        """A relative path, two places, and TLS where there is none."""
        refused: list[tuple[str, Mapping[str, Any]]] = [
            ("no absolute path", {"socket": "lmtp"}),
            ("two places", {"socket": "/lmtp", "hostname": "store.example.org"}),
            ("leave it out", {"socket": "/lmtp", "tls": "required"}),
            ("STARTTLS", {"tls": "implicit"}),
        ]
        for text, options in refused:
            with self.assertRaisesRegex(ValueError, text):
                LMTPMailer(**options)


class TheDirective(unittest.TestCase):
    def setUp(self) -> None:
        cleanUp()
        self.addCleanup(cleanUp)
        self.directory = os.path.realpath(self.enterContext(tempfile.TemporaryDirectory()))

    def load(self, attributes: str) -> LMTPMailer:
        """A site with one ``mail:lmtpMailer``."""
        path = os.path.join(self.directory, "site.zcml")
        with open(path, "w", encoding="utf-8") as file:
            file.write('<configure xmlns="http://namespaces.zope.org/zope" i18n_domain="test"\n')
            file.write('  xmlns:mail="http://namespaces.zope.org/mail">\n')
            file.write(f'<mail:lmtpMailer name="store" {attributes} />\n</configure>\n')
        context = xmlconfig.file("meta.zcml", zope.component)
        xmlconfig.file("meta.zcml", zope.security, context=context)
        xmlconfig.file("meta.zcml", zope.sendmail, context=context)
        xmlconfig.file(path, context=context)
        mailer: LMTPMailer = getUtility(IMailer, "store")
        return mailer

    def test_defaults(self) -> None:
        """Nothing but a name is needed."""
        mailer = self.load("")
        self.assertEqual((mailer.hostname, mailer.port, mailer.socket), ("localhost", 24, None))

    def test_is_what_it_says(self) -> None:
        """Every attribute reaches the mailer."""
        with open(os.path.join(self.directory, "password"), "w", encoding="utf-8") as file:
            file.write("secret\n")
        mailer = self.load(
            'hostname="store.example.org" port="2424" username="name" passwordFile="password" '
            'tls="required" timeout="5s"'
        )
        settings = mailer.relay_settings()
        self.assertEqual((settings.hostname, settings.port, settings.tls), ("store.example.org", 2424, Tls.REQUIRED))
        self.assertEqual((settings.username, settings.password), ("name", "secret"))
        self.assertEqual(settings.timeouts.connect, 5.0)

    def test_socket_is_beside_the_file(self) -> None:
        """A relative path is relative to the ZCML file."""
        self.assertEqual(self.load('socket="lmtp"').socket, os.path.join(self.directory, "lmtp"))

    def test_contradictions_are_refused(self) -> None:
        """With the words of the mailer."""
        with self.assertRaisesRegex(ConfigurationError, "two places"):
            self.load('socket="lmtp" hostname="store.example.org"')


if __name__ == "__main__":
    unittest.main()
