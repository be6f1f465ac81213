"""Mails that go soon are told so, where that is of use to their queue."""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.convoy import Convoy
from zope.sendmail.processor.job import Job
from zope.sendmail.testing.contracts import ManualClock

_ENVELOPE = Envelope("sender@example.org", ("someone@example.org",))


class ALease:
    """That of a queue in a database, as far as a convoy knows it."""

    def __init__(self) -> None:
        self.told = 0
        self.released = False

    def soon(self) -> None:
        self.told += 1

    def release(self) -> None:
        self.released = True


class Convoys(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.convoy = Convoy(self.clock, grows=True)

    def add(self, priority: Priority) -> None:
        envelope = Envelope("sender@example.org", ("someone@example.org",), terms=Terms(priority=priority))
        lease: Any = ALease()
        self.convoy.add(Job(lease, envelope, text=b"text"))


class MailsThatAreClaimedBehindOthers(Convoys):
    """Of a convoy that is filled before it is empty, so that it never is."""

    def test_go_before_them_if_their_priority_is_higher(self) -> None:
        self.add(Priority.NORMAL)
        self.assertEqual(
            [self.convoy.is_behind(each) for each in Priority], [each is Priority.HIGH for each in Priority]
        )

    def test_go_before_none_if_there_is_none(self) -> None:
        self.assertFalse(self.convoy.is_behind(Priority.HIGH))

    def test_go_behind_those_that_have_taken_turns(self) -> None:
        """As long as there are several priorities among them."""
        for priority in (Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.NORMAL):
            self.add(priority)
        found = []
        for _ in range(3):
            found.append(self.convoy.is_behind(Priority.HIGH))
            self.convoy.next()
        self.assertEqual(found, [False, False, True])

    def test_go_on_without_a_question_when_those_of_other_priorities_have_gone(self) -> None:
        self.add(Priority.HIGH)
        self.add(Priority.NORMAL)
        self.convoy.asked()
        before = self.convoy.goes_on
        self.convoy.next()
        self.assertEqual((before, self.convoy.goes_on), (False, True))


class ConvoysWhoseMailsGoSoon(Convoys):
    def fill(self, count: int, milliseconds: float) -> list[Any]:
        """Claim mails for the convoy, of which each takes so long; return their leases."""
        self.convoy._size = 1
        self.clock.advance(milliseconds / 1000)
        self.convoy.size()
        leases: list[Any] = [ALease() for _ in range(count)]
        for lease in leases:
            self.convoy.add(Job(lease, _ENVELOPE, text=b"text"))
        return leases

    def test_tell_those_that_go_within_a_millisecond(self) -> None:
        leases = self.fill(8, milliseconds=0.4)
        self.convoy.next()
        self.assertEqual([lease.told for lease in leases], [1, 1, 1, 0, 0, 0, 0, 0])

    def test_tell_the_next_one_only_where_each_takes_longer(self) -> None:
        """What is intended ahead of its time would be unknown after a death."""
        leases = self.fill(3, milliseconds=5.0)
        self.convoy.next()
        self.assertEqual([lease.told for lease in leases], [1, 0, 0])

    def test_tell_five_at_most(self) -> None:
        """Whatever the clock says."""
        leases = self.fill(20, milliseconds=0.001)
        self.convoy.next()
        self.assertEqual(sum(lease.told for lease in leases), 5)

    def test_tell_each_once(self) -> None:
        leases = self.fill(6, milliseconds=0.4)
        for _ in leases:
            self.convoy.next()
        self.assertEqual([lease.told for lease in leases], [1] * 6)

    def test_are_low_before_they_are_empty(self) -> None:
        """Else nothing could be told ahead of the first of the next claim."""
        self.fill(5, milliseconds=0.4)
        found = []
        while self.convoy.jobs:
            self.convoy.next()
            found.append(self.convoy.is_low)
        self.assertEqual(found, [False, False, True, True, True])

    def test_tell_those_that_come_behind_them(self) -> None:
        self.fill(2, milliseconds=0.4)
        self.convoy.next()
        leases = self.fill(4, milliseconds=0.4)
        self.convoy.foresee()
        self.assertEqual([lease.told for lease in leases], [1, 0, 0, 0])

    def test_tell_nobody_where_that_is_of_no_use(self) -> None:
        """A Maildir intends at once."""
        lease: Any = mock.Mock(spec=["release"])
        self.convoy.add(Job(lease, _ENVELOPE, text=b"text"))
        self.convoy.foresee()
        self.assertEqual((self.convoy.next().lease, self.convoy.is_low, lease.mock_calls), (lease, True, []))

    def test_begin_anew_when_all_were_given_back(self) -> None:
        given_back = self.fill(3, milliseconds=0.4)
        self.convoy.next()
        self.convoy.release()
        leases = self.fill(2, milliseconds=0.4)
        self.convoy.next()
        self.assertEqual([lease.released for lease in given_back], [False, True, True])
        self.assertEqual([lease.told for lease in leases], [1, 1])
