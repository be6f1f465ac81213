"""What operators see of what senders asked for, and do about it."""

from __future__ import annotations

from typing import Any

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.tests.support.operators import MESSAGE, OperatorsTest


class WhatSendersAskFor(OperatorsTest):
    def ask(self, **terms: Any) -> str:
        """Commit a mail with these terms; return its name."""
        staged = self.queue.stage()
        name = staged.add(Envelope("shop@example.org", ("one@example.org",), terms=Terms(**terms)), MESSAGE)
        staged.prepare()
        staged.commit()
        return name

    def ask_everything(self) -> str:
        """Commit a mail for which everything is asked."""
        now = self.clock.time()
        return self.ask(
            not_before=now + 7200, expires=now + 86400, priority=Priority.HIGH, key="order 17", key_until=now + 604800
        )

    def test_is_listed_and_shown(self) -> None:
        """When it leaves, until when, its priority and its key."""
        name = self.ask_everything()
        self.put()
        listed = self.ok("list").splitlines()
        self.assertRegex(listed[1], r"scheduled +0s +2h +- ")
        self.assertIn("expires 2027-01-16T08:00:00Z, priority high, key order 17", listed[2])
        self.assertRegex(listed[3], r"ready +0s +now +- ")
        shown = " ".join(self.ok("show", name).split())
        self.assertIn("state scheduled, due in 2h", shown)
        for words in ("not before 2027-01-15T10:00:00Z", "expires 2027-01-16T08:00:00Z", "priority high"):
            self.assertIn(words, shown)
        self.assertIn("key order 17", shown)

    def test_is_told_to_programs(self) -> None:
        """In seconds since the epoch, null where nothing was asked for."""
        self.ask_everything()
        self.put()
        asked, plain = self.objects("list")
        now = self.clock.time()
        names = ("state", "due", "not_before", "expires", "priority", "key", "key_until", "suppressed")
        self.assertEqual(
            [asked[name] for name in names],
            ["scheduled", now + 7200, now + 7200, now + 86400, "high", "order 17", now + 604800, []],
        )
        self.assertEqual([plain[name] for name in names], ["ready", None, None, None, "normal", None, None, []])
        self.assertEqual(self.objects("count")[0]["scheduled"], 1)

    def test_is_outweighed_by_a_person_who_names_the_mail(self) -> None:
        """``retry`` of all, and ``flush``, leave it alone."""
        name = self.ask_everything()
        self.call("retry", self.path, "--all")
        self.assertEqual(self.queue.claim(9), [])
        self.ok("retry", name)
        self.assertEqual([lease.name for lease in self.queue.claim(9)], [name])

    def test_lets_the_doctor_say_nothing(self) -> None:
        """A mail that leaves next week is no mail that waits."""
        self.ask(not_before=self.clock.time() + 7 * 86400)
        self.clock.advance(6 * 86400)
        self.assertIn("nothing is wrong", self.ok("doctor"))
        self.assertNotIn("oldest", self.ok("count"))
