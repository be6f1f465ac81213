"""Mail of high priority in the middle of a newsletter: counted in mails, over real connections.

In each queue a processor with two connections is in the middle of a transaction of many mails when a high mail is
committed, three times, by the relay's own thread, before it answers the mail that it has in hand.
"""

from __future__ import annotations

import os
import tempfile
import threading
import unittest
from typing import Any

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.sender import MailReader
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.relayscript import ReceivedMail
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

CONNECTIONS = 2
FLOOD = 120
AT = (20, 50, 80)
#: Seconds; a database on a machine that does other things as well commits some mails a second.
PATIENCE = 600.0


def put(queue: Any, priority: Priority, *recipients: str) -> None:
    """Commit a mail to each recipient, in one transaction."""
    staged = queue.stage()
    for each in recipients:
        staged.add(Envelope("s@example.org", (each,), terms=Terms(priority=priority)), b"Subject: x\n\nText\n")
    staged.prepare()
    staged.commit()


class Interrupted(Relay):
    """A relay that commits a high mail when it has taken so many."""

    def __init__(self, queue: Any) -> None:
        super().__init__()
        self._queue = queue
        self._one_at_a_time = threading.Lock()
        #: The recipient of each mail, and its connection, which has a thread of its own.
        self.order: list[tuple[str, int]] = []
        #: How many mails it had taken when a high one was committed.
        self.committed: dict[str, int] = {}

    def took(self, mail: ReceivedMail) -> None:
        """Note it, in order; no connection goes on while another mail is committed."""
        with self._one_at_a_time:
            self.order.append((mail.recipients[0], threading.get_ident()))
            if len(self.order) in AT:
                name = f"high{len(self.order)}@example.org"
                put(self._queue, Priority.HIGH, name)
                self.committed[name] = len(self.order)
        super().took(mail)


class AFloodOfLowMail(unittest.TestCase):
    """In a Maildir, where the transaction is drained as it lies."""

    flood = Priority.LOW
    #: How many mails a connection sends before the high one: that which it is sending.
    in_hand = 1

    def open_queue(self) -> Any:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        self.addCleanup(flush, PATIENCE)
        return open_queue(os.path.join(directory, "queue"))

    def committing(self, queue: Any) -> Any:
        """Return what commits the high mail."""
        return queue

    def test_delays_a_high_mail_by_what_is_in_hand(self) -> None:
        """And nothing is lost or sent twice."""
        queue = self.open_queue()
        self.addCleanup(queue.close)
        put(queue, self.flood, *(f"{number}@example.org" for number in range(FLOOD)))
        with Interrupted(self.committing(queue)) as relay:
            reader = MailReader("", relay.host, relay.port, queue=queue, concurrency=CONNECTIONS)
            reader.start()
            self.addCleanup(reader.stop)
            relay.wait_until(lambda: len(relay.order) == FLOOD + len(AT), PATIENCE)
            self.assertTrue(reader.finish(PATIENCE))
        self.assertEqual(list(relay.committed.values()), list(AT))
        for name, before in relay.committed.items():
            [(at, connection)] = [(at, whose) for at, (who, whose) in enumerate(relay.order) if who == name]
            between = [who for who, whose in relay.order[before:at] if whose == connection]
            self.assertLessEqual(len(between), self.in_hand, (name, between))
        self.assertEqual(len(dict(relay.order)), FLOOD + len(AT))


class InAMaildirFromElsewhere(AFloodOfLowMail):
    """In a Maildir, committed by another process: its bell tells of it."""

    def committing(self, queue: Any) -> Any:
        other = open_queue(queue.location)
        self.addCleanup(other.close)
        return other


class InASpool(AFloodOfLowMail):
    """In a spool directory, mail of ours."""

    def open_queue(self) -> Any:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        self.addCleanup(flush, PATIENCE)
        return open_queue(f"spool:{directory}/spool")


class InMemory(AFloodOfLowMail):
    """In memory."""

    def open_queue(self) -> Any:
        return MemoryQueue()


class InPostgreSQL(AFloodOfLowMail):
    """In a database, committed by the process that drains."""

    def open_queue(self) -> Any:
        return open_queue(shared_server().url())


class InPostgreSQLFromElsewhere(AFloodOfLowMail):
    """In a database, committed by another process: nothing but the database tells of it."""

    def open_queue(self) -> Any:
        self._url = shared_server().url()
        return open_queue(self._url)

    def committing(self, queue: Any) -> Any:
        other = open_queue(self._url)
        self.addCleanup(other.close)
        return other


class _OfNormalMail:
    flood = Priority.NORMAL
    #: That which it is sending, and the next one, whose envelope has gone with its end.
    in_hand = 2


class AFloodOfNormalMail(_OfNormalMail, AFloodOfLowMail):
    """In a Maildir, of which a connection takes several mails at once: it gives them back."""


class OfNormalMailFromElsewhere(_OfNormalMail, InAMaildirFromElsewhere):
    """In a Maildir, the high mail committed by another process."""


class OfNormalMailInASpool(_OfNormalMail, InASpool):
    """In a spool directory."""


class OfNormalMailInMemory(_OfNormalMail, InMemory):
    """In memory."""


class OfNormalMailInPostgreSQL(_OfNormalMail, InPostgreSQL):
    """In a database, of which a process takes many mails at once."""


load_tests = in_layer(Databases)
