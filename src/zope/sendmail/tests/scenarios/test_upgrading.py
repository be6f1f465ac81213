"""What docs/howto/upgrading.rst says about this release is so: its code, attributes, commands and lines of the log."""

from __future__ import annotations

import io
import os
import re
import tempfile
import tomllib
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import transaction
import zope.component
import zope.security
from zope.component import getUtility
from zope.configuration import xmlconfig
from zope.testing.cleanup import cleanUp

import zope.sendmail
from zope.sendmail import startup
from zope.sendmail.cli import queuecommands
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.interfaces import IMailer, ISMTPMailer
from zope.sendmail.maildir import Maildir
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.conversation import Conversation, right_tls
from zope.sendmail.tests.support.documents import blocks
from zope.sendmail.zcml.schema import IDirectDeliveryDirective, IQueuedDeliveryDirective, ISMTPMailerDirective

PAGE = os.path.join(os.path.dirname(__file__), *[os.pardir] * 5, "docs", "howto", "upgrading.rst")

LOGIN: dict[str, Any] = {"username": "name", "password": "secret"}

SITE = '<configure xmlns="http://namespaces.zope.org/zope" xmlns:mail="http://namespaces.zope.org/mail">%s</configure>'


class ThePage(Conversation):
    def setUp(self) -> None:
        super().setUp()
        cleanUp()
        transaction.abort()
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.addCleanup(cleanUp)
        if not os.path.exists(PAGE):
            self.skipTest("the docs are not beside the package: this is not a checkout")
        with open(PAGE, encoding="utf-8") as stream:
            self.text = stream.read()
        #: What stands in the text as code, in one line each.
        self.quoted = [" ".join(each.split()) for each in re.findall(r"``(.+?)``", self.text, re.DOTALL)]


class WhatItShows(ThePage):
    def test_the_code_runs(self) -> None:
        """And each of its three lines has its effect on a mailer that was made without a word about them."""
        [block] = blocks("howto/upgrading.rst")
        names = "cafile", "verify", "allow_clear_password"
        for name in names:
            self.addCleanup(setattr, SMTPMailer, name, getattr(SMTPMailer, name))
        exec(block.text, {})
        settings = SMTPMailer(hostname="mail.example.org", port=587, **LOGIN).relay_settings()
        self.assertEqual([getattr(settings, name) for name in names], ["/etc/ssl/our-ca.pem", False, True])

    def test_the_attributes_are_accepted(self) -> None:
        """As they stand there; ``concurrency`` is the delivery's, the others are the mailer's."""
        attributes = [each for each in self.quoted if re.fullmatch(r'\w+="\w+"', each)]
        self.assertGreaterEqual(len(attributes), 5)
        for number, attribute in enumerate(attributes):
            with self.subTest(attribute):
                name = attribute.partition("=")[0]
                of_mailer = name in ISMTPMailerDirective
                of_direct = name in IDirectDeliveryDirective and name not in IQueuedDeliveryDirective
                of_queued = name in IQueuedDeliveryDirective
                self.assertTrue(of_mailer or of_direct or of_queued)
                context = xmlconfig.file("meta.zcml", zope.component)
                for package in zope.security, zope.sendmail:
                    xmlconfig.file("meta.zcml", package, context)
                direct = attribute.replace('"later"', f'"d{number}"') if of_direct else ""
                directives = (
                    '<mail:smtpMailer name="bulk" />'
                    f'<mail:smtpMailer name="m{number}" {attribute if of_mailer else ""} />'
                    f'<mail:queuedDelivery name="d{number}" mailer="m{number}" queuePath="{self.path}{number}" '
                    f'permission="zope.Public" {attribute if of_queued else ""} />'
                    f'<mail:directDelivery name="direct" mailer="m{number}" {direct} />'
                )
                xmlconfig.string(SITE % directives, context)
                self.assertTrue(ISMTPMailer.providedBy(getUtility(IMailer, f"m{number}")))

    def test_the_names_are_there(self) -> None:
        """Modules, classes and methods by the names that one would import."""
        dotted = [each for each in self.quoted if re.fullmatch(r"zope\.sendmail(\.\w+)+(\(\))?", each)]
        self.assertIn("zope.sendmail.startup.start()", dotted)
        for each in dotted:
            path, _, name = each.removesuffix("()").rpartition(".")
            with self.subTest(each):
                self.assertTrue(each == "zope.sendmail.testing" or hasattr(import_module(path), name))
        self.assertIn(f"{startup.SWITCH}=never", self.quoted)

    def test_the_commands_run(self) -> None:
        """Those for operators, on a queue with a mail in it."""
        delivery = QueuedMailDelivery(self.path)
        delivery.send("sender@example.org", ["one@example.org"], "Subject: x\n\nx\n")
        transaction.commit()
        commands = [each.split()[2:] for each in self.quoted if each.startswith("zope-sendmail queue ")]
        self.assertLessEqual({"list", "doctor", "retry", "count"}, {words[0] for words in commands})
        [name] = map(os.path.basename, Maildir(self.path))
        for words in commands:
            known = {"PATH": self.path, "NAME": name}
            if words[0] == "release":  # what 7.3 has locked
                os.link(os.path.join(self.path, "new", name), os.path.join(self.path, "new", f".sending-{name}"))
            with self.subTest(words), redirect_stdout(io.StringIO()):
                self.assertEqual(
                    queuecommands.main([known.get(word, word) for word in [*words, *self.missing(words)]]), 0
                )

    def missing(self, words: list[str]) -> list[str]:
        """The path, where the page only names the command."""
        return [] if "PATH" in words else [self.path]

    def test_the_reasons_why_a_test_of_old_may_fail(self) -> None:
        """The list for CI quotes the page."""
        path = os.path.join(os.path.dirname(PAGE), os.pardir, os.pardir, ".ci", "before.toml")
        with open(path, "rb") as stream:
            entries = tomllib.load(stream)["different"]
        said = " ".join(self.text.split())
        self.assertEqual([entry["see"] for entry in entries if entry["see"] not in said], [])


class WhatTheLogSays(ThePage):
    def drained(self, relay: Relay, **options: Any) -> str:
        """The line about the relay; the mail waits."""
        QueuedMailDelivery(self.path).send("sender@example.org", ["one@example.org"], "Subject: x\n\nx\n")
        transaction.commit()
        processor = QueueProcessorThread(clock=self.clock)
        processor.setQueuePath(self.path)
        processor.setMailer(SMTPMailer(hostname=relay.host, port=relay.port, **LOGIN, **options))
        with self.assertLogs("QueueProcessorThread", "WARNING") as log:
            processor.run(forever=False)
        assert processor.queue is not None
        self.assertEqual(({str(state) for state in processor.queue.admin.count()}, relay.mails), ({"ready"}, []))
        [line] = log.output
        return line

    def assertPromised(self, line: str, *words: str) -> None:
        """The page has this line; dots stand for anything."""
        [promised] = [each for each in self.quoted if all(word in each for word in ("Relay", *words))]
        pattern = re.escape(promised).replace(re.escape(" ..."), ".*")
        self.assertRegex(line, re.sub(r"mail\\\.example\\\.org:\d+", r"\\S+", pattern))

    def test_about_certificates(self) -> None:
        """What to do is in the line."""
        self.assertPromised(self.drained(self.start(tls=right_tls())), "CERTIFICATE_VERIFY_FAILED")

    def test_about_passwords_in_clear(self) -> None:
        """Likewise."""
        self.assertPromised(self.drained(self.start(users={"name": "secret"})), "STARTTLS")

    def test_about_a_wrong_password(self) -> None:
        """7.3 rejected the queue for it."""
        relay = self.start(users={"name": "another"})
        self.assertPromised(self.drained(relay, no_tls=True), "535")


del Conversation, ThePage
