"""Mail that commits with the objects of a ZODB in RelStorage."""

from __future__ import annotations

import importlib.util
import os
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import QueueError
from zope.sendmail.queue import open_queue
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import Server, shared_server


class WithRelStorage(unittest.TestCase):
    """A ZODB and a queue in one database."""

    keep_history = True

    def setUp(self) -> None:
        self.server: Server = shared_server()
        for package in ("relstorage", "psycopg2"):
            if importlib.util.find_spec(package) is None:
                raise SkipTest(f"{package} is not installed")
        from zope.sendmail.queue.postgresql.upkeep import migrate

        self.database = self.server.create_database()
        self.url = self.server.url("q", self.database)
        migrate(self.url)
        self.queue = open_queue(self.url)
        self.addCleanup(self.queue.close)
        self.manager, self.connection = self.open(self.database)
        self.delivery = self.delivery_of(self.manager, self.connection)

    def open(self, database: str) -> Any:
        """Return a transaction manager, and a connection of it to a ZODB."""
        from relstorage.adapters.postgresql import PostgreSQLAdapter
        from relstorage.options import Options
        from relstorage.storage import RelStorage
        from ZODB.DB import DB

        options = Options(keep_history=self.keep_history)
        adapter = PostgreSQLAdapter(dsn=self.server.conninfo(database), options=options)
        zodb = DB(RelStorage(adapter, options=options))
        manager = transaction.TransactionManager(explicit=False)
        connection = zodb.open(manager)
        self.addCleanup(zodb.close)
        self.addCleanup(connection.close)
        self.addCleanup(manager.abort)
        return manager, connection

    def delivery_of(self, manager: Any, connection: Any) -> QueuedMailDelivery:
        from zope.sendmail.queue.postgresql.relstorage import RelStorageConnection

        return QueuedMailDelivery(
            self.url, connection=RelStorageConnection(lambda: connection), transaction_manager=manager
        )

    def order(self, name: str, delivery: QueuedMailDelivery | None = None, connection: Any = None) -> None:
        """Change an object, and send a mail about it."""
        (connection or self.connection).root()[name] = name
        (delivery or self.delivery).send("a@example.org", ["b@example.org"], f"Subject: {name}\n\ntext")

    def found(self) -> tuple[list[str], list[str]]:
        """What is committed: objects, and the subjects of mail that can be claimed."""
        manager, connection = self.open(self.database)
        names = sorted(connection.root())
        manager.abort()
        texts = [lease.open().read() for lease in self.queue.claim(99)]
        return names, sorted(text.partition(b"Subject: ")[2].partition(b"\n")[0].decode() for text in texts)


class AStorageWithHistory(WithRelStorage):
    def test_commits_objects_and_mail_together(self) -> None:
        """Of several transactions, one after the other."""
        for name in ("one", "two"):
            self.order(name)
            self.manager.commit()
        self.assertEqual(self.found(), (["one", "two"], ["one", "two"]))

    def test_aborts_both(self) -> None:
        """Nothing is left, not even staged."""
        self.order("one")
        self.manager.abort()
        self.assertEqual(self.found(), ([], []))
        self.assertEqual(self.queue.admin.count(), {})

    def test_aborts_both_when_another_votes_no(self) -> None:
        """Behind both: what the vote has revealed in RelStorage's transaction is gone with that."""
        self.order("one")
        self.manager.get().join(_NoSayer())
        with self.assertRaisesRegex(ValueError, "no"):
            self.manager.commit()
        self.manager.abort()
        self.assertEqual(self.found(), ([], []))
        self.assertEqual(self.queue.admin.count(), {})

    def test_commits_both_where_another_storage_stands_in_front(self) -> None:
        """As one that compresses records does; the cursor is RelStorage's."""
        storage = self.connection._storage
        self.connection._storage = _InFront(storage)
        self.addCleanup(setattr, self.connection, "_storage", storage)
        self.order("one")
        self.manager.commit()
        self.assertEqual(self.found(), (["one"], ["one"]))

    def test_of_another_kind_is_refused(self) -> None:
        """Before anything is committed."""
        from zope.sendmail.queue.postgresql.relstorage import _voting_cursor

        with self.assertRaisesRegex(QueueError, "is no RelStorage"):
            _voting_cursor(SimpleNamespace(_storage=_InFront(None)))

    def test_rolls_back_to_a_savepoint(self) -> None:
        """Objects and mail that came later."""
        self.order("one")
        savepoint = self.manager.savepoint()
        self.order("two")
        savepoint.rollback()
        self.manager.commit()
        self.assertEqual(self.found(), (["one"], ["one"]))

    def test_sends_once_after_a_conflict(self) -> None:
        """The transaction that lost is done again."""
        from ZODB.POSException import ConflictError

        manager, connection = self.open(self.database)
        other = self.delivery_of(manager, connection)
        self.manager.begin()
        self.connection.root()  # both look at the same state
        self.order("one")
        self.order("two", other, connection)
        manager.commit()
        with self.assertRaises(ConflictError):
            self.manager.commit()
        self.manager.abort()
        self.order("one")
        self.manager.commit()
        self.assertEqual(self.found(), (["one", "two"], ["one", "two"]))

    def test_sends_without_a_change_of_objects(self) -> None:
        """Then there is no commit of RelStorage; the mail has its own."""
        self.delivery.send("a@example.org", ["b@example.org"], "Subject: alone\n\ntext")
        self.manager.commit()
        self.assertEqual(self.found(), ([], ["alone"]))

    def test_loses_both_with_the_process(self) -> None:
        """That dies after the votes, and before the commit; the mail is never sent."""
        for dies_after_commit in (False, True):
            child = os.fork()
            if child == 0:
                try:
                    manager, connection = self.open(self.database)
                    name = str(dies_after_commit)
                    self.order(name, self.delivery_of(manager, connection), connection)
                    manager.get().join(_Killer(dies_after_commit=dies_after_commit))
                    manager.commit()
                finally:
                    os._exit(1)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 9)
        self.assertEqual(self.found(), (["True"], ["True"]))

    def test_has_to_be_in_the_database_of_the_queue(self) -> None:
        """Else the vote says no, and says why; nothing is left."""
        manager, connection = self.open(self.server.create_database())
        self.order("one", self.delivery_of(manager, connection), connection)
        with self.assertRaisesRegex(QueueError, "another database"):
            manager.commit()
        manager.abort()
        self.assertEqual(self.queue.admin.count(), {})


class AStorageWithoutHistory(AStorageWithHistory):
    keep_history = False


class _InFront:
    """A storage that hands everything on, and is none of RelStorage."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __getattr__(self, name: str) -> Any:
        if name == "_tpc_phase":
            raise AttributeError(name)
        return getattr(self.base, name)


class _NoSayer:
    """Votes no, behind all others."""

    transaction_manager = None

    def sortKey(self) -> str:
        return "\U0010ffff\U0010ffff"

    def tpc_begin(self, transaction: Any) -> None:
        """Nothing."""

    commit = tpc_finish = tpc_abort = abort = tpc_begin

    def tpc_vote(self, transaction: Any) -> None:
        raise ValueError("no")


class _Killer(_NoSayer):
    """Ends the process behind all votes, or behind all commits."""

    def __init__(self, *, dies_after_commit: bool) -> None:
        self.dies_after_commit = dies_after_commit

    def tpc_vote(self, transaction: Any) -> None:
        if not self.dies_after_commit:
            os._exit(9)

    def tpc_finish(self, transaction: Any) -> None:
        os._exit(9)


load_tests = in_layer(Databases)
