"""`zope.sendmail.processor.thread`: how it is set up, and the names of zope.sendmail 3.5 to 7.3."""

from __future__ import annotations

import os
import tempfile
import unittest
from typing import Any
from unittest import mock

from zope.sendmail.maildir import Maildir
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.processing import ProcessorTest
from zope.sendmail.transports.redirect import RedirectMailer


class AProcessorIsSetUp(unittest.TestCase):
    def test_a_queue_of_any_kind(self) -> None:
        """What is no path of a Maildir makes no directory."""
        processor = QueueProcessorThread()
        processor.setQueuePath("memory:")
        self.assertEqual(processor.queuePath, "memory:")

    def test_a_mailer_around_which_mail_could_go(self) -> None:
        """One that redirects all mail, beside another that does not, is refused; the one before stays."""
        routes = Routes("main", frozenset({"news"}))
        before = ScriptedMailer()
        processor = QueueProcessorThread(mailer=before, routes=routes, mailers={"news": ScriptedMailer()})
        with self.assertRaises(ValueError):
            processor.setMailer(RedirectMailer(ScriptedMailer(), ["tester@example.org"]))
        self.assertIs(processor.mailer, before)

    def test_is_asked_what_it_does(self) -> None:
        """Before it has looked at a queue, there is nothing to tell."""
        processor = QueueProcessorThread(concurrency=3)
        self.assertEqual((processor.concurrency, processor.queuePath, processor.queue_trouble), (3, "", ""))
        self.assertEqual((processor.is_stopped, processor.is_ending), (False, False))
        processor.finish()
        self.assertEqual((processor.is_stopped, processor.is_ending), (False, True))
        processor.stop()
        self.assertTrue(processor.is_stopped)


class WhatIsLeft(ProcessorTest):
    def test_is_told_if_there_is_anything(self) -> None:
        """How many mails wait, in which queue."""
        with self.assertNoLogs("QueueProcessorThread"):
            self.processor.tell_what_waits()
        self.put(count=3)
        with self.assertLogs("QueueProcessorThread") as logs:
            self.processor.tell_what_waits()
        self.assertIn("3 mails", logs.output[0])
        self.assertIn(self.queue.location, logs.output[0])

    def test_is_told_of_a_run_that_has_finished(self) -> None:
        """What another processor has in hand is not among it."""
        self.put(count=2)
        self.queue.claim()
        self.mailer.before = lambda envelope: self.processor.finish()
        close = self.queue.close
        self.queue.close = lambda: None
        self.addCleanup(close)
        self.drain()
        self.assertEqual(len(self.mailer.sent), 1)


class OldNames(unittest.TestCase):
    """None of them is called from within; subclasses of others call them, and replace them."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.processor: Any = QueueProcessorThread(mailer=ScriptedMailer())

    def test_stopped(self) -> None:
        """Programs set it from signal handlers."""
        self.assertIs(self.processor._stopped, False)
        self.processor._stopped = True
        self.assertEqual((self.processor._stopped, self.processor.is_stopped), (True, True))

    def test_maildir(self) -> None:
        """It can be asked for and assigned."""
        self.assertIsNone(self.processor.maildir)
        self.processor.maildir = Maildir(self.path, True)
        self.assertEqual((self.processor.queuePath, self.processor.maildir.path), (self.path, self.path))

    def test_one_file(self) -> None:
        """Is sent with whatever else is due, also by a class with a ``run`` of its own."""
        self.processor.setQueuePath(self.path)
        message = Maildir(self.path, True).newMessage()
        message.write("X-Zope-From: a@example.org\nX-Zope-To: b@example.org\nSubject: x\n\nx\n")
        message.commit()
        with mock.patch.object(type(self.processor), "run", QueueProcessorThread.run):
            self.processor._process_one_file("any name")
        self.assertEqual([sent[1] for sent in self.processor.mailer.sent], [("b@example.org",)])

    def test_the_parts_of_a_file(self) -> None:
        """Sender, recipients and message; none, and the whole of it, if it is no queue file."""
        text = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org, c@example.org\nSubject: x\n\nx\n"
        self.assertEqual(
            self.processor._parseMessage(text),
            ("a@example.org", ("b@example.org", "c@example.org"), b"Subject: x\n\nx\n"),
        )
        self.assertEqual(self.processor._parseMessage(b"nonsense"), ("", (), b"nonsense"))

    def test_files_that_may_be_gone(self) -> None:
        """Are nothing to complain of."""
        self.assertEqual(self.processor._action_if_exists(self.path, os.stat, "none"), "none")
        with open(self.path, "w", encoding="ascii"):
            pass
        self.assertEqual(self.processor._action_if_exists(self.path, os.path.getsize), 0)
        for _ in range(2):
            self.processor._unlink_if_exists(self.path)
        self.assertFalse(os.path.exists(self.path))


del ProcessorTest
