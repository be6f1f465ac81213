"""Mail in the transactions of SQLAlchemy's sessions; skipped where it is not installed (.ci/switch installs it)."""

from __future__ import annotations

import importlib.util
import unittest
from typing import Any

from zope.sendmail.errors import QueueError
from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.outbox import Outbox

MISSING = "" if importlib.util.find_spec("sqlalchemy") else "SQLAlchemy is not installed"


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        from sqlalchemy import create_engine, text
        from sqlalchemy.orm import Session

        from zope.sendmail.contrib.sqlalchemy import SessionTransactions

        self.outbox = Outbox()
        self.engine = create_engine("sqlite://")
        self.addCleanup(self.engine.dispose)
        self.session = self.enterContext(Session(self.engine))
        self.sender = self.outbox.sender(transaction_manager=SessionTransactions(self.session))
        self._text = text
        self.execute("create table orders (name text primary key)")
        self.session.commit()

    def execute(self, statement: str) -> None:
        self.session.execute(self._text(statement))

    def send(self, subject: str = "Order") -> None:
        self.sender.send("shop@example.org", ["jane@example.org"], f"Subject: {subject}\n\nThank you!\n")

    def subjects(self) -> list[str]:
        """What may leave."""
        return [mail.subject for mail in self.outbox.mails]

    def assert_nothing_left(self) -> None:
        """Neither mail nor anything staged."""
        self.outbox.assert_nothing_sent()
        self.assertEqual(self.outbox.queue.admin.count().get(State.STAGED, 0), 0)


class ASession(Fixture):
    def test_that_commits_sends(self) -> None:
        """Not before; and each transaction its own mail."""
        self.execute("insert into orders values ('one')")
        self.send("one")
        self.send("two")
        self.assertEqual(self.subjects(), [])
        self.session.commit()
        self.assertEqual(self.subjects(), ["one", "two"])
        self.send("three")
        self.session.commit()
        self.assertEqual(self.subjects(), ["one", "two", "three"])

    def test_that_has_written_nothing_sends_as_well(self) -> None:
        """The mail alone makes a transaction; a block of ``begin`` ends it."""
        self.session.close()
        with self.session.begin():
            self.send()
            self.assertEqual(self.subjects(), [])
        self.assertEqual(self.subjects(), ["Order"])

    def test_that_rolls_back_sends_nothing(self) -> None:
        """Nor does one that is closed, or that is forgotten; and nothing leaves with the next commit."""
        for end in (self.session.rollback, self.session.close, self.session.invalidate, self.session.reset):
            with self.subTest(end.__name__):
                self.send()
                end()
                self.session.commit()
                self.assert_nothing_left()

    def test_that_cannot_commit_sends_nothing(self) -> None:
        """A conflict that the database finds while it flushes."""
        from sqlalchemy import Column, MetaData, Table, Text
        from sqlalchemy.exc import IntegrityError
        from sqlalchemy.orm import registry

        class Order:
            def __init__(self, name: str) -> None:
                self.name = name

        registry().map_imperatively(Order, Table("orders", MetaData(), Column("name", Text, primary_key=True)))
        for name in ("one", "one"):
            self.send(name)
            self.session.add(Order(name))
            if self.subjects():
                self.assertRaises(IntegrityError, self.session.commit)
            else:
                self.session.commit()
        self.session.rollback()
        self.assertEqual(self.subjects(), ["one"])

    def test_whose_queue_refuses_does_not_commit(self) -> None:
        """The mail is made certain before the database is asked."""
        from sqlalchemy import event

        self.send()
        group = next(iter(self.session.info["zope.sendmail.contrib.sqlalchemy"]._kept.values()))

        class Refusing:
            """A data manager that votes no."""

            def sortKey(self) -> str:
                return "~"

            def tpc_begin(self, transaction: Any) -> None:
                pass

            commit = abort = tpc_begin

            def tpc_vote(self, transaction: Any) -> None:
                raise QueueError("the disk is full")

        group.join(Refusing())
        committed: list[object] = []
        event.listen(self.session, "after_commit", committed.append)
        self.assertRaises(QueueError, self.session.commit)
        self.session.rollback()
        self.assertEqual(committed, [])
        self.assert_nothing_left()


class ASavepoint(Fixture):
    def test_that_is_rolled_back_takes_its_mail_along(self) -> None:
        """And no other."""
        self.send("before")
        inner = self.session.begin_nested()
        self.send("inside")
        inner.rollback()
        self.send("after")
        self.session.commit()
        self.assertEqual(sorted(self.subjects()), ["after", "before"])

    def test_that_is_released_leaves_its_mail_to_what_is_around_it(self) -> None:
        """Also where that is a savepoint, which is rolled back later."""
        with self.session.begin_nested():
            self.send("released")
        outer = self.session.begin_nested()
        with self.session.begin_nested():
            self.send("released, then rolled back")
        outer.rollback()
        self.session.commit()
        self.assertEqual(self.subjects(), ["released"])

    def test_that_is_open_when_all_commits(self) -> None:
        """Its mail is part of it."""
        self.send("outside")
        self.session.begin_nested()
        self.send("inside")
        whole: Any = self.session.get_transaction()
        whole.commit()
        self.assertEqual(sorted(self.subjects()), ["inside", "outside"])


class SessionsOfOtherKinds(Fixture):
    def test_scoped_ones(self) -> None:
        """The session of the thread is meant."""
        from sqlalchemy.orm import scoped_session, sessionmaker

        from zope.sendmail.contrib.sqlalchemy import SessionTransactions

        scoped = scoped_session(sessionmaker(self.engine))
        self.addCleanup(scoped.remove)
        sender = self.outbox.sender(transaction_manager=SessionTransactions(scoped))
        sender.send("shop@example.org", ["jane@example.org"], "Subject: one\n\n")
        scoped.rollback()
        sender.send("shop@example.org", ["jane@example.org"], "Subject: two\n\n")
        scoped.commit()
        self.assertEqual(self.subjects(), ["two"])
