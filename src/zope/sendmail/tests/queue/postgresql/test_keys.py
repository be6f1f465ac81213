"""Keys on the application's own connection, and of several processes, in a database."""

from __future__ import annotations

import threading
from typing import Any

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import KeyInUse, KeyTaken, NotPossible
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue import open_queue
from zope.sendmail.sender import MailWriter
from zope.sendmail.tests.queue.postgresql.test_joining import MESSAGE, Fixture
from zope.sendmail.tests.support.layers import Databases, in_layer


class OnTheApplicationsConnection(Fixture):
    """A key commits with the rows of the application, or not at all."""

    def writer(self) -> Any:
        """Return a writer on a connection of its own."""
        import psycopg

        from zope.sendmail.queue.postgresql.joining import PsycopgConnection

        connection = psycopg.connect(self.server.conninfo())
        self.addCleanup(connection.close)
        writer: Any = MailWriter(self.url, connection=PsycopgConnection(connection))
        writer.commit, writer.rollback = connection.commit, connection.rollback
        return writer

    def send(self, writer: MailWriter) -> str:
        """Send a mail with the key; return its Message-Id, or that of the first."""
        return writer.send("a@example.org", ["b@example.org"], MESSAGE, key="order 17")

    def test_is_one_within_a_transaction_and_after_it(self) -> None:
        """Until it is rolled back."""
        writer = self.writer()
        first = self.send(writer)
        self.assertEqual(self.send(writer), first)
        writer.rollback()
        second = self.send(writer)
        self.assertNotEqual(second, first)
        writer.commit()
        self.assertEqual(self.send(self.writer()), second)
        self.assertEqual(MailWriter(self.url).send("a@example.org", ["b@example.org"], MESSAGE, key="order 17"), second)
        self.assertEqual(len(self.queue.claim(9)), 1)

    def test_waits_for_the_transaction_that_was_first(self) -> None:
        """The server lets the second one wait, and then it has the first one's mail."""
        one, other = self.writer(), self.writer()
        first = self.send(one)
        got: list[str] = []
        thread = threading.Thread(target=lambda: got.append(self.send(other)))
        thread.start()
        one.commit()
        thread.join(300)
        self.assertEqual(got, [first])
        other.commit()
        self.assertEqual(len(self.queue.claim(9)), 1)


class OfAProcessThatDied(Fixture):
    """Its staged mail is in doubt."""

    def test_is_free_and_is_not_released_any_more(self) -> None:
        """Once another mail has it."""
        staged = self.queue.stage()
        terms = Terms(key="k", key_until=4e9)
        name = staged.add(Envelope("a@example.org", ("b@example.org",), terms=terms), b"Message-Id: <1@x>\n\n")
        staged.prepare()
        other = open_queue(self.url)
        self.addCleanup(other.close)
        self.assertRaises(KeyInUse, other.stage().add, Envelope("a@x.org", ("b@x.org",), terms=terms), b"\n")
        with self.server.connect() as connection:  # two hours ago, and by another host
            connection.execute(
                "update zope_sendmail.mail set since = since - interval '2 h', maker = 'elsewhere:1' where state = 3"
            )
        again = other.stage()
        again.add(Envelope("a@example.org", ("b@example.org",), terms=terms), b"Message-Id: <2@x>\n\n")
        again.prepare()
        again.commit()
        self.assertRaises(NotPossible, other.admin.release, name)
        other.admin.remove(name)
        self.assertEqual(list(other.admin.mails([State.STAGED])), [])
        with self.assertRaises(KeyTaken) as caught:
            other.stage().add(Envelope("a@example.org", ("b@example.org",), terms=terms), b"\n")
        self.assertEqual(caught.exception.message_id, "2@x")


class InTwoTransactions(Fixture):
    def test_is_told_in_the_vote(self) -> None:
        """The second one cannot know before; it is to be tried again."""
        delivery = QueuedMailDelivery(self.url)
        managers = transaction.TransactionManager(), transaction.TransactionManager()
        answers = [
            delivery.bind(manager).send("a@example.org", ["b@example.org"], MESSAGE, key="k") for manager in managers
        ]
        managers[0].commit()
        with self.assertRaises(transaction.interfaces.TransientError):
            managers[1].commit()
        managers[1].abort()
        again = delivery.bind(managers[1]).send("a@example.org", ["b@example.org"], MESSAGE, key="k")
        managers[1].commit()
        self.assertEqual(again, answers[0])
        self.assertEqual(len(self.queue.claim(9)), 1)


load_tests = in_layer(Databases)
