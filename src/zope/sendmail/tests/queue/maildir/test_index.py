"""Which messages a processor knows, and when each is due."""

from __future__ import annotations

import itertools
import unittest

from zope.sendmail.queue.maildir.index import Index


def keys(*seconds: int) -> list[str]:
    """Keys of messages that were written at these times."""
    return [f"new/{1_700_000_000 + each}.1.host.0000000000000" for each in seconds]


class IndexTest(unittest.TestCase):
    def setUp(self) -> None:
        self.index = Index()

    def fresh(self, *names: str) -> None:
        """A look found these, and none has a history."""
        self.index.update(list(names), lambda key: None)

    def take_all(self, now: float = 100.0) -> list[str]:
        taken = []
        while (key := self.index.take(now)) is not None:
            taken.append(key)
        return taken


class Order(IndexTest):
    def test_oldest_first(self) -> None:
        """In whatever order they were found or rung in."""
        names = keys(*range(20))
        self.fresh(*reversed(names[:15]))
        for name in reversed(names[15:]):
            self.index.add(name)
        self.assertEqual(self.take_all(), names)

    def test_neither_line_starves(self) -> None:
        """While there are fresh messages, one of four is one that was tried before."""
        fresh, again = keys(*range(100, 112)), keys(*range(4))
        self.index.update([*fresh, *again], lambda key: 50.0 if key in again else None)
        taken = self.take_all()
        self.assertEqual([key for key in taken if key in fresh], fresh)
        self.assertEqual([key for key in taken if key in again], again)
        positions = [taken.index(key) for key in again]
        self.assertTrue(all(later - earlier == 4 for earlier, later in itertools.pairwise(positions)))

    def test_how_many_are_due(self) -> None:
        """In all lines, and no more than is asked for."""
        self.index.update(keys(*range(100, 112), *range(4)), lambda key: None)
        self.assertEqual([self.index.count_due(limit) for limit in (5, 100)], [5, 16])
        for _ in range(6):
            self.index.take(100.0)
        self.assertEqual(self.index.count_due(100), 10)
        self.take_all()
        self.assertEqual(self.index.count_due(100), 0)

    def test_several_are_forgotten_together(self) -> None:
        """With the times at which they were to be given up, and with their turn."""
        names = keys(1, 2, 3)
        self.fresh(*names)
        self.index.drop_all(names[:1])
        self.assertEqual(len(self.index), 2)
        for name in names[1:]:
            self.index.expect(name, 200.0)
        self.index.drop_all(names[1:])
        self.assertEqual((len(self.index), self.index.next_expiry()), (0, None))

    def test_each_is_taken_once(self) -> None:
        """However often it is rung in or found."""
        [name] = keys(1)
        for _ in range(3):
            self.index.add(name)
            self.fresh(name)
        self.assertEqual(self.take_all(), [name])
        self.index.add(name)
        self.fresh(name)
        self.assertEqual(self.take_all(), [])
        self.assertEqual(len(self.index), 1)


class Times(IndexTest):
    def test_a_message_comes_back_when_it_is_due(self) -> None:
        """Not before, and in the order in which they are due."""
        early, late = keys(2, 1)
        self.fresh(early, late)
        self.take_all()
        self.index.put(late, 160.5)
        self.index.put(early, 160.0)
        self.assertEqual(self.index.next_due(100.0), 60.0)
        self.assertIsNone(self.index.take(159.9))
        self.assertEqual(self.index.take(160.0), early)
        self.assertIsNone(self.index.take(160.4))
        self.assertAlmostEqual(self.index.next_due(160.4) or 0.0, 0.1)
        self.assertEqual(self.index.take(160.5), late)

    def test_what_is_known_to_wait_is_not_looked_at(self) -> None:
        """A look may say of a message it finds when it is due."""
        [name] = keys(1)
        self.index.update([name], lambda key: 500.0)
        self.assertEqual((self.index.take(499.0), self.index.next_due(499.0)), (None, 1.0))
        self.assertEqual(self.index.take(500.0), name)

    def test_a_new_time_replaces_the_old_one(self) -> None:
        """Later or earlier; a ring makes it due now."""
        [name] = keys(1)
        self.index.put(name, 200.0)
        self.index.put(name, 300.0)
        self.assertIsNone(self.index.take(250.0))
        self.index.put(name, 260.0)
        self.assertEqual(self.index.next_due(250.0), 10.0)
        self.index.add(name)
        self.assertEqual(self.take_all(250.0), [name])
        self.assertEqual(self.take_all(1000.0), [])

    def test_a_time_that_is_over(self) -> None:
        """Is now, also a moment after the machine was started."""
        [name] = keys(1)
        self.index.put(name, 0.0)
        self.assertEqual(self.index.next_due(10.0), 0.0)
        self.assertEqual(self.take_all(10.0), [name])

    def test_held_messages_are_put_ahead(self) -> None:
        """A look does not bring them back earlier, a ring does; without one they are looked at again in time."""
        [name] = keys(1)
        for ring in (True, False):
            self.fresh(name)
            self.assertEqual(self.index.take(100.0), name)
            self.index.put(name, 700.0)
            self.fresh(name)
            self.assertEqual((self.take_all(699.0), self.index.next_due(699.0)), ([], 1.0))
            if ring:
                self.index.add(name)
            self.assertEqual(self.take_all(699.0 if ring else 700.0), [name])
            self.index.drop(name)

    def test_nothing_to_wait_for(self) -> None:
        """None: nothing is known, or all are taken."""
        [name] = keys(1)
        self.assertIsNone(self.index.next_due(1.0))
        self.fresh(name)
        self.assertEqual(self.index.next_due(1.0), 0.0)
        self.index.take(1.0)
        self.assertIsNone(self.index.next_due(1.0))


class Leaving(IndexTest):
    def test_what_vanished_is_forgotten(self) -> None:
        """But not what is leased: its lease says what becomes of it."""
        gone, leased, stays = keys(1, 2, 3)
        self.fresh(gone, leased, stays)
        self.index.put(gone, 500.0)
        self.assertEqual(self.index.take(1.0), leased)
        self.fresh(stays)
        self.assertEqual(len(self.index), 2)
        self.assertEqual(self.take_all(1000.0), [stays])
        self.index.drop(leased)
        self.index.drop(leased)
        self.index.drop(stays)
        self.assertEqual(len(self.index), 0)

    def test_a_dropped_message_may_come_again(self) -> None:
        """A name that was known is not known for ever."""
        [name] = keys(1)
        for _ in range(3):
            self.fresh(name)
            self.assertEqual(self.take_all(), [name])
            self.index.drop(name)


class GivenBack(IndexTest):
    def test_what_was_not_touched_stands_where_it_stood(self) -> None:
        """Before all that is younger, and is given up at its moment."""
        first, *others = keys(0, 1, 2)
        first += ",E=1800000000"
        self.fresh(first, *others)
        self.assertEqual(self.index.take(100.0), first)
        self.assertIsNone(self.index.next_expiry())  # it is in hand
        self.index.restore(first)
        self.assertEqual(self.index.next_expiry(), 1_800_000_000.0)
        self.assertEqual(self.take_all(), [first, *others])


class Depth(IndexTest):
    def test_a_deep_queue(self) -> None:
        """Many messages of the same second, found at once, come out in order."""
        names = [f"new/1700000000.1.host.{number:013d}" for number in range(5000)]
        self.fresh(*reversed(names))
        self.assertEqual(self.take_all(), names)
