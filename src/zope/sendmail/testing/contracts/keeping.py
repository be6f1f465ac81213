"""Keys: two mails with one key are one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zope.sendmail.errors import KeyInUse, KeyTaken
from zope.sendmail.message.terms import Terms
from zope.sendmail.testing.contracts.situation import MESSAGE, QueueSituation, envelope


class KeyContract(QueueSituation):
    """Keys: two mails with one key are one."""

    def add(self, staged: Any, key: str = "order 17", *, number: int = 1, until: float = 3600.0) -> str:
        """Stage a mail with a key; return its name."""
        asked = Terms(key=key, key_until=self.clock.time() + until)
        message = b"Message-Id: <%d@example.org>\n\nText\n" % number
        name: str = staged.add(replace(envelope(), terms=asked), message)
        return name

    def send(self, key: str = "order 17", *, number: int = 1, until: float = 3600.0) -> str:
        """Commit a mail with a key; return its Message-Id, or that of the mail that has the key."""
        staged = self.queue.stage()
        try:
            self.add(staged, key, number=number, until=until)
            staged.prepare()
        except KeyTaken as taken:
            staged.abort()
            return taken.message_id
        staged.commit()
        return f"{number}@example.org"

    def test_a_second_mail_with_the_key_is_the_first(self: Any) -> None:
        """While it waits, and after it has left; another key is another mail."""
        self.assertEqual(self.send(number=1), "1@example.org")
        self.assertEqual(self.send(number=2), "1@example.org")
        self.assertEqual(self.send("order 18", number=3), "3@example.org")
        for lease in self.queue.claim(9):
            self.settle(lease)
        self.assertEqual(self.queue.admin.count(), {})
        self.assertEqual(self.send(number=4), "1@example.org")
        self.assertEqual(self.queue.claim(9), [])

    def test_a_key_is_free_after_an_abort(self: Any) -> None:
        """Prepared or not."""
        for number in 1, 2:
            staged = self.queue.stage()
            self.add(staged)
            if number == 2:
                staged.prepare()
            staged.abort()
        self.assertEqual(self.send(number=3), "3@example.org")

    def test_a_key_is_free_after_a_rollback(self: Any) -> None:
        """Of the first mail of a transaction, and of later ones; the mails before keep theirs."""
        staged = self.queue.stage()
        self.add(staged, "kept")
        for number in range(12):
            self.add(staged, f"gone {number}")
        staged.rollback(1)
        self.add(staged, "gone 3", number=2)
        staged.prepare()
        staged.commit()
        self.assertEqual([self.send(key, number=3) for key in ("kept", "gone 3")], ["1@example.org", "2@example.org"])
        self.assertEqual([self.send(f"gone {n}", number=4) for n in (0, 11)], ["4@example.org"] * 2)

    def test_a_key_counts_within_a_transaction(self: Any) -> None:
        """Its second mail is the first."""
        staged = self.queue.stage()
        self.add(staged)
        with self.assertRaises(KeyTaken) as caught:
            self.add(staged, number=2)
        self.assertEqual(caught.exception.message_id, "1@example.org")
        self.assertEqual(len(staged), 1)
        staged.prepare()
        staged.commit()
        self.assertEqual(len(self.queue.claim(9)), 1)

    def test_every_mail_of_a_large_transaction_has_its_key(self: Any) -> None:
        """Also those that stand in one file with others."""
        staged = self.queue.stage()
        for number in range(20):
            self.add(staged, f"key {number}", number=number)
        staged.prepare()
        staged.commit()
        found = [self.send(f"key {number}", number=99) for number in range(20)]
        self.assertEqual(found, [f"{number}@example.org" for number in range(20)])

    def test_one_of_two_transactions_has_the_key(self: Any) -> None:
        """The other one is told to try again, at the latest in the vote; then it finds the first one's mail."""
        for ends, sent in (("commit", "1@example.org"), ("abort", "3@example.org")):
            key = f"key that is meant to {ends}"
            first, second = self.queue.stage(), self.queue.stage()
            self.add(first, key)
            first.prepare()
            with self.assertRaises(KeyInUse):
                self.add(second, key, number=2)
                second.prepare()
            second.abort()
            getattr(first, ends)()
            self.assertEqual(self.send(key, number=3), sent)

    def test_a_key_is_free_when_its_time_is_over(self: Any) -> None:
        """Whether or not it was forgotten; then another mail has it."""
        self.send(number=1, until=-5.0)
        self.send("order 18", number=1, until=-5.0)
        self.assertEqual(self.send(number=2, until=3600.0), "2@example.org")
        self.assertEqual(self.send(number=3), "2@example.org")
        self.assertEqual(self.queue.admin.forget_keys(), 1)
        self.assertEqual(self.send(number=4), "2@example.org")
        self.assertEqual(self.send("order 18", number=5), "5@example.org")

    def test_another_process_knows_the_key(self: Any) -> None:
        """As soon as the mail is committed."""
        self.send(number=1)
        self.queue.close()
        self.queue = self.open_again()
        self.assertEqual(self.send(number=2), "1@example.org")

    def test_mail_without_a_key_is_never_one(self: Any) -> None:
        """The same text twice is two mails."""
        self.put(message=MESSAGE, count=2)
        self.assertEqual(len(self.queue.claim(9)), 2)
