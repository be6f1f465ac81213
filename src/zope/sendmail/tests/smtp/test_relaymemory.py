"""`zope.sendmail.smtp.relaymemory` and the words that relays have for their limits."""

from __future__ import annotations

import threading
import unittest

from zope.sendmail.lifecycle.outcome import Reply
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.smtp.protocol.relaylimits import recipient_limit_told, refuses_client, tells_mails_per_connection
from zope.sendmail.smtp.relaymemory import MEMORY, MemoryByRelay, RelayMemory


class WhatARelayHasShown(unittest.TestCase):
    def setUp(self) -> None:
        self.memory = RelayMemory()

    def test_nothing_at_first(self) -> None:
        """Everything that is announced is believed, and there is no limit."""
        self.assertTrue(self.memory.takes_pipelining(0.0))
        self.assertTrue(self.memory.takes_overlap(0.0))
        self.assertTrue(self.memory.takes_mail_after(10_000, 0.0))
        self.assertIsNone(self.memory.recipient_limit(0.0))

    def test_it_counts_for_an_hour(self) -> None:
        """Then the relay is believed again."""
        self.memory.pipelining_failed(10.0)
        self.memory.overlap_failed(10.0)
        self.memory.refused_after(3, 10.0, told=True)
        self.memory.too_many_recipients(50, 10.0)
        for now, known in ((10.0 + MEMORY - 1, True), (10.0 + MEMORY, False)):
            self.assertEqual(self.memory.takes_pipelining(now), not known)
            self.assertEqual(self.memory.takes_overlap(now), not known)
            self.assertEqual(self.memory.takes_mail_after(3, now), not known)
            self.assertEqual(self.memory.recipient_limit(now), 50 if known else None)

    def test_an_envelope_with_the_end_of_a_mail(self) -> None:
        """That the relay takes it counts for an hour, and no more as soon as one is lost."""
        self.assertFalse(self.memory.has_overlapped(0.0))
        self.memory.overlap_worked(10.0)
        self.assertTrue(self.memory.has_overlapped(10.0 + MEMORY - 1))
        self.assertFalse(self.memory.has_overlapped(10.0 + MEMORY))
        self.memory.overlap_worked(20.0)
        self.memory.overlap_failed(30.0)
        self.memory.overlap_worked(40.0)  # another machine behind the same name
        self.assertFalse(self.memory.has_overlapped(40.0))
        self.memory.overlap_worked(30.0 + MEMORY)
        self.assertTrue(self.memory.has_overlapped(30.0 + MEMORY))

    def test_mails_of_a_connection(self) -> None:
        """A number that was not told counts when it comes a second time; the least one counts."""
        self.memory.refused_after(7, 0.0, told=False)
        self.memory.refused_after(9, 0.0, told=False)
        self.assertTrue(self.memory.takes_mail_after(7, 0.0))
        self.memory.refused_after(9, 0.0, told=False)
        self.assertEqual([self.memory.takes_mail_after(mails, 0.0) for mails in (8, 9, 10)], [True, False, False])
        self.memory.refused_after(20, 1.0, told=True)
        self.assertFalse(self.memory.takes_mail_after(9, 1.0))

    def test_recipients_of_a_mail(self) -> None:
        """A small number may be a chance, and counts when it comes a second time; a smaller one counts always."""
        self.memory.refused_further_recipients(1, 0.0)
        self.assertIsNone(self.memory.recipient_limit(0.0))
        self.memory.refused_further_recipients(1, 0.0)
        self.assertEqual(self.memory.recipient_limit(0.0), 1)
        other = RelayMemory()
        other.took_recipients(500)
        other.refused_further_recipients(100, 0.0)
        self.assertEqual((other.recipient_limit(0.0), other.recipients_taken), (100, 100))
        other.too_many_recipients(0, 0.0)
        self.assertEqual(other.recipient_limit(0.0), 1)

    def test_each_relay_has_its_own(self) -> None:
        """Whoever asks gets the same."""
        memories = MemoryByRelay()
        found: list[RelayMemory] = []
        threads = [threading.Thread(target=lambda: found.append(memories.of("one:25"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(map(id, found))), 1)
        self.assertIsNot(memories.of("two:25"), found[0])

    def test_it_belongs_to_the_process(self) -> None:
        """A mailer that is written down, or copied that way, leaves it here."""
        mailer = SMTPMailer()
        known = mailer._known_relays()
        self.assertIs(mailer._known_relays(), known)
        self.assertNotIn("_memories", mailer.__getstate__())


class RelaysSpeak(unittest.TestCase):
    def test_of_mails_of_a_connection(self) -> None:
        """Exim, OpenSMTPD, Stalwart, and others; what is about a time or a load is something else."""
        for words in (
            "too many messages in this connection",
            "4.3.2 Too many messages sent",
            "4.4.5 Maximum number of messages per session exceeded.",
            "Message limit per connection reached",
            "4.7.0 session limit exceeded",
        ):
            self.assertTrue(tells_mails_per_connection(words), words)
        for words in (
            "4.7.1 too many messages from your address",
            "Too many messages per hour in this session",
            "too many connections from your host",
            "4.3.0 try again later",
            "4.2.2 mailbox full",
            "4.7.28 Too many messages sent, rate limit",
        ):
            self.assertFalse(tells_mails_per_connection(words), words)

    def test_of_too_many_recipients(self) -> None:
        """The number where it is told."""
        for words, number in (
            ("Transaction failed: Recipient count exceeds 50.", 50),
            ("5.5.3 Maximum limit of 3 recipients reached", 3),
            ("4.5.3 too many recipients (max 100)", 100),
            ("4.5.3 too many recipients", None),
        ):
            self.assertEqual(recipient_limit_told(words), number)
            self.assertTrue(Reply.of(554, words).is_one_too_many)
        for words in (
            "5.1.1 Recipient address rejected",
            "4.2.2 mailbox is over its limit",
            "4.3.1 insufficient storage",
        ):
            self.assertFalse(Reply.of(452, words).is_one_too_many)

    def test_of_us(self) -> None:
        """Our name and our address, not a sender's or a recipient's."""
        for words in ("<x>: Helo command rejected: Host not found", "Client host [192.0.2.1] blocked using a list"):
            self.assertTrue(refuses_client(Reply.of(550, words)))
            self.assertFalse(refuses_client(Reply.of(250, words)))
        for words in ("5.1.1 <ehlo@example.org> rejected by user", "5.7.1 Sender address rejected"):
            self.assertFalse(refuses_client(Reply.of(550, words)))


if __name__ == "__main__":
    unittest.main()
