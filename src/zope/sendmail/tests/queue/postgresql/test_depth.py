"""A deep queue, large mails: what is cheap stays cheap."""

from __future__ import annotations

import functools
import json
import re
import tracemalloc
import unittest
import uuid
from collections.abc import Iterator
from typing import Any

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import Server, shared_server

_DEPTH = 100_000

#: Statements that only write new rows.
_WRITES = {"adopt", "arrive", "body", "join_body", "join_mail", "make_queue", "stage", "tell"}

#: Those that read a whole table: a count; after a crash, once; what left on one day, before its table is used again;
#: the slots of dead processors, and mails whose claim was not answered, every ten minutes; what the server knows of its
#: sessions.
_READ_ALL = {"bury_lost", "count", "forget_ended", "forget_sent", "oldest_in_partition", "pins", "unanswered"}

#: Those of which there is no plan, or not in this form (`reveal_on` is `reveal` for another driver).
_NO_PLAN = {
    "copy_body",
    "copy_mail",
    "durability",
    "empty_partition",
    "notify",
    "pass_on_rights",
    "reveal_on",
    "settle_in",
}


@functools.cache  # zope.testrunner knows no fixtures of classes
def _deep() -> tuple[Server, str, str]:
    """Return a server, a database with a deep queue in it, and the location of the queue."""
    from zope.sendmail.queue.postgresql.upkeep import migrate

    server = shared_server()
    database = server.create_database()
    url = server.url("deep", database)
    migrate(url)
    queue = open_queue(url)
    put(queue, [envelope()], MESSAGE)
    queue.close()
    with server.connect(database) as connection:
        connection.execute(
            "insert into zope_sendmail.mail (id, queue, size, message_id, envelope, state, due) select"
            " ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,"  # by time, as ours are
            ' 1, 4, n::text, \'{"from": "", "to": ["a@example.org"]}\','
            " case when n % 1000 = 0 then 1 else 0 end,"
            " case when n % 5 = 0 then clock_timestamp() + n * interval '1 s' end"
            f" from generate_series(1, {_DEPTH}) as n"
        )
        connection.execute(
            "insert into zope_sendmail.body select id, 0, 'text' from zope_sendmail.mail on conflict do nothing"
        )
        connection.execute("insert into zope_sendmail.processor (id) select generate_series(1, 20)")
        connection.execute(
            "insert into zope_sendmail.attempt select p, s from generate_series(1, 20) p, generate_series(0, 63) s"
        )
        connection.execute(
            "insert into zope_sendmail.key (queue, key, mail, message_id, until) select 1, n::text, gen_random_uuid(),"
            " n::text, clock_timestamp() + n * interval '1 s' from generate_series(1, 20000) n"
        )
        connection.execute("vacuum analyze")
    return server, database, url


class ADeepQueue(unittest.TestCase):
    """With 100,000 mails; a fifth were tried, some are held."""

    def setUp(self) -> None:
        self.server, self.database, self.url = _deep()

    def plan(self, name: str, /, **parameters: Any) -> str:
        """How the server would carry a statement out, prepared for any parameters."""
        from zope.sendmail.queue.postgresql.statements import STATEMENTS

        with self.server.connect(self.database) as connection:
            connection.execute("set plan_cache_mode = force_custom_plan")
            statement = STATEMENTS[name].replace(b"{part}", b"1")
            [(plan,)] = connection.execute(b"explain (format json) " + statement, parameters).fetchall()
        return json.dumps(plan)

    def scanned(self, plan: str) -> set[str]:
        """The tables that are read from end to end."""
        return {match[1] for match in re.finditer(r'"Node Type": "Seq Scan"[^{}]*?"Relation Name": "(\w+)"', plan)}

    def test_is_read_from_end_to_end_by_no_verb(self) -> None:
        """Whoever claims, settles, looks page by page, or changes a mail; each statement is asked, or named above."""
        from zope.sendmail.queue.postgresql.statements import STATEMENTS

        with self.server.connect(self.database) as connection:
            rows = connection.execute("select id from zope_sendmail.mail order by id limit 16").fetchall()
        ids = [row[0] for row in rows]
        none = "00000000-0000-0000-0000-000000000000"
        me: dict[str, Any] = {
            "queue": 1,
            "me": 1,
            "lease": 7,
            "mine": [7, 8],
            "dead": [2, 3],
            "limit": 64,
            "parked": ids[:3],
        }
        two, others = (f"{{{first},{second}}}" for first, second in (ids[:2], ids[2:4]))
        slots = {"slots": "{1,2}", "mails": two, "leases": "{7,7}", "phases": "{2,2}"}
        first = {"sent": ids[0], "sent_lease": 7, "record": "x", "mail": ids[1], "lease": 7, "slot": 1, "phase": 2}
        gone = {"sent": two, "sent_leases": "{7,7}", "records": "{x,x}", "back": others, "back_leases": "{7,7}"}
        key = {"queue": 1, "key": "77", "message_id": "77"}
        verbs: dict[str, dict[str, Any]] = {
            "claim_fresh": {**me, "priority": 1, "cursor": none},
            "claim_again": {**me, "priority": 1, "now": 1.9e9},
            "claim_expired": {**me, "now": 1.9e9},
            "outlook": {"queue": 1, "dead": [2, 3]},
            "suppressed": {"queue": 1, "known": 7},
            "key": {"queue": 1, "key": "77"},
            "forget_keys": {"now": 1.0},
            "changed": {"parked": ids},
            "claim_these": {**me, "now": 1.9e9, "ids": ids},
            "next_due": {**me, "now": 1.0},
            "anything_new": {"queue": 1, "parked": []},
            "note": {**slots, "me": 1},
            "advance": {**slots, **gone, "me": 1, "queue": 1, "part": 1, "now": 1.0},
            "advance_one": {**first, "me": 1, "queue": 1, "part": 1, "now": 1.0},
            "keep": {"id": ids[0], "lease": 7, "state": 0, "due": 1.0, "record": "{}", "durable": False},
            "inherit": {"id": ids[0], "lease": 7, "state": 1, "record": "{}"},
            "resume": {"me": 1, "ids": ids[:2], "leases": [7, 7], "records": ["x", None]},
            "succeed": {"me": 1, "ids": ids},
            "mend": {"id": ids[0], "lease": 7, "state": 1},
            "inherited": {"dead": [1, 2], "mails": ids},
            "reveal": {"ids": ids},
            "discard": {"ids": ids},
            "withdraw": {"ids": ids, "me": 1},
            "oldest": {"queue": 1, "now": 1.0},
            "page": {"queue": 1, "after": none, "limit": 500},
            "page_apart": {"queue": 1, "after": none, "limit": 500, "state": 1},
            "by_message_id": {"queue": 1, "message_id": "77"},
            "sent": {"queue": 1, "message_id": "77", "after": 1.0},
            "names": {"queue": 1, "after": none, "limit": 500},
            "one": {"id": ids[0], "queue": 1},
            "history": {"mail": ids[0]},
            "take": {"id": ids[0], "queue": 1},
            "change": {"id": ids[0], "state": 1, "due": None, "record": "{}"},
            "remove": {"id": ids[0]},
            "waiting": {"queue": 1, "limit": 100, "now": 1.0},
            "in_doubt": {"queue": 1, "limit": 100},
            "has": {"queue": 1, "id": ids[0]},
            "head_to_move": {"id": ids[0]},
            "leave_for_another": {"queue": 1, "ids": ids},
            "known_here": {"id": ids[0]},
            "taken_keys": {"queue": 1, "after": "77", "now": 1.0, "limit": 100},
            "bring_keys": {"queue": 1, "keys": ["77"], "message_ids": ["77"], "untils": [1.9e9], "now": 1.0},
            "departures": {"queue": 1, "part": 1, "message_id": "", "at": 0.0, "after": 1.0, "limit": 100},
            "note_departures": {"queue": 1, "part": 1, "ats": [1.0], "message_ids": ["77"], "records": ["{}"]},
            "hello": {},
            "beat": {"me": 1},
            "leave": {"me": 1},
            "traces": {"queue": 1},
            "these": {"queue": 1, "ids": ids},
            "probe_asked": {"queue": 1, "relay": "a"},
            "take_turns": {"relay": "a", "seconds": 1.0},
            "arrived": {"queue": 1, "limit": 100},
            "arriving": {"queue": 1, "limit": 100},
            "appear": {"queue": 1, "ids": ids},
            "discard_arrived": {"queue": 1, "ids": ids},
            "readdress": {"id": ids[0], "envelope": "{}"},
            "piece": {"mail": ids[0], "no": 0},
            "join_take_back": {"ids": ids},
            "end_processor": {"id": 1, "beat": 7},
            "forget_processor": {"me": 1},
            "processors": {},
            "register": {
                "me": 99,
                "host": "a",
                "pid": 1,
                "slots": [1],
                "mails": [None],
                "leases": [None],
                "phases": [0],
            },
            "more_slots": {"me": 1, "slots": [77]},
            "queue_id": {"name": "deep"},
            "identity": {},
            "place": {},
            "report": {"queue": 1, "absorbed": [2], "processor": 1, "state": "{}"},
            "reports": {"queue": 1},
            "silent": {"queue": 1},
            "ask_for_probe": {"queue": 1, "relay": "a", "at": 1.0},
            "left_behind": {"queue": 1, "limit": 100},
            "forget_moved": {"queue": 1, "ids": ids},
            "suppress": {"queue": 1, "addresses": ["a"], "reasons": [""], "since": [1.0], "until": [None]},
            "unsuppress": {"queue": 1, "addresses": ["a"]},
            "take_key": {**key, "mail": ids[0], "dead": ids[:2], "until": 1.9e9, "now": 1.0},
        }
        self.assertEqual(STATEMENTS.keys() - verbs, _WRITES | _READ_ALL | _NO_PLAN)
        small = {"processor", "epoch", "history", "suppression", "probe", "moved", "schema_version", "queue"}
        small |= {"processor_state", "identity", "pg_database"}
        for name, parameters in verbs.items():
            with self.subTest(name):
                self.assertEqual(self.scanned(self.plan(name, **parameters)) - small - _partitions(), set(), name)

    def test_is_read_by_a_claim_as_far_as_it_gives(self) -> None:
        """With the plan that a connection of ours keeps, which knows no numbers; not the mails before and behind."""
        from zope.sendmail.queue.postgresql.statements import STATEMENTS

        kinds = {"queue": "smallint", "priority": "smallint", "limit": "smallint", "cursor": "uuid", "now": "float8"}
        kinds |= {"me": "bigint", "lease": "bigint", "mine": "bigint[]", "dead": "bigint[]", "parked": "uuid[]"}
        with self.server.connect(self.database) as connection:
            connection.execute(STATEMENTS["settle_in"])
            for name in ("claim_fresh", "claim_again", "claim_expired"):
                wanted = list(dict.fromkeys(re.findall(rb"%\((\w+)\)s", STATEMENTS[name])))
                statement = STATEMENTS[name]
                for at, each in enumerate(wanted, 1):
                    statement = statement.replace(b"%%(%s)s" % each, b"$%d" % at)
                types = ", ".join(kinds[each.decode()] for each in wanted)
                values = {"queue": 1, "priority": 1, "limit": 64, "cursor": f"'{uuid.UUID(int=0)}'", "now": 1.9e9}
                values |= {"me": 1, "lease": 7, "mine": "'{7}'", "dead": "'{}'", "parked": "'{}'"}
                given = ", ".join(str(values[each.decode()]) for each in wanted)
                with self.subTest(name), connection.transaction(force_rollback=True):
                    connection.execute(f"prepare {name} ({types}) as ".encode() + statement)
                    explain = f"explain (analyze, timing off, format json) execute {name} ({given})"
                    [([plan],)] = connection.execute(explain.encode())
                    self.assertLess(max(_rows_read(plan["Plan"])), 1000)

    def test_gives_a_mail_and_shows_a_page_at_once(self) -> None:
        """Nothing is read that is not shown."""
        queue = open_queue(self.url)
        self.addCleanup(queue.close)
        [lease] = queue.claim()
        lease.release()
        self.assertEqual(queue.admin.count()[State.HELD], _DEPTH // 1000)
        first = next(iter(queue.admin.mails()))
        self.assertEqual(first.state, State.READY)


def _rows_read(plan: dict[str, Any]) -> Iterator[float]:
    """Return for each step of a plan that was carried out how many rows it read."""
    yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for step in plan.get("Plans", ()):
        yield from _rows_read(step)


def _partitions() -> set[str]:
    """Empty ones are read in whole."""
    return {f"sent_{part}" for part in range(9)}


class LargeMail(unittest.TestCase):
    """Is never in memory as a whole on our side."""

    def test_goes_through_in_pieces(self) -> None:
        """25 MiB: written and read with a few of them."""
        queue = open_queue(shared_server().url())
        self.addCleanup(queue.close)
        message = b"Subject: large\n\n" + bytes(25 * 1024 * 1024)
        put(queue, [envelope()], MESSAGE)
        queue.claim()[0].release()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        tracemalloc.reset_peak()
        for _ in range(2):
            put(queue, [envelope()], memoryview(message))
        with queue.claim(3)[1].open() as stream:
            length = sum(len(piece) for piece in iter(lambda: stream.read(64 * 1024), b""))
        self.assertEqual(length, len(message))
        self.assertLess(tracemalloc.get_traced_memory()[1], 4 * 1024 * 1024)

    def test_of_one_transaction_costs_less_than_one_of_them(self) -> None:
        """Eight of 25 MiB, staged, committed, claimed together and read: 30 MiB beside the application's own."""
        queue = open_queue(shared_server().url())
        self.addCleanup(queue.close)
        message = memoryview(b"Subject: large\n\n" + bytes(25 * 1024 * 1024))
        put(queue, [envelope()], MESSAGE)
        queue.claim()[0].settle(Record(State.SENT))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        tracemalloc.reset_peak()
        staged = queue.stage()
        for _ in range(8):
            staged.add(envelope(), message)
        staged.prepare()
        staged.commit()
        leases = queue.claim(8)
        streams = [lease.open() for lease in leases]
        lengths = {sum(len(piece) for piece in iter(functools.partial(each.read, 65536), b"")) for each in streams}
        self.assertEqual((len(leases), lengths), (8, {len(message)}))
        self.assertLess(tracemalloc.get_traced_memory()[1], 30 * 1024 * 1024)
        for lease in leases:
            lease.settle(Record(State.SENT))

    def test_comes_out_as_it_was(self) -> None:
        """Around the length of a piece, and from any place."""
        queue = open_queue(shared_server().url())
        self.addCleanup(queue.close)
        row = 256 * 1024
        for length in (0, 1, row - 1, row, row + 1, 2 * row, 2 * row + 7):
            text = bytes(number % 251 for number in range(length))
            put(queue, [envelope()], text[:5], memoryview(text)[5:])
            [lease] = queue.claim()
            stream = lease.open()
            self.assertEqual(stream.read(), text)
            self.assertEqual((stream.seek(row - 2), stream.read(9)), (row - 2, text[row - 2 : row + 7]))
            lease.intend()
            lease.release()
            queue.admin.remove(lease.name)


load_tests = in_layer(Databases)
