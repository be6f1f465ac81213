"""The suppression list of a queue."""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from zope.sendmail.errors import InvalidRecipient
from zope.sendmail.interfaces import ISuppressions
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.testing.contracts.situation import QueueSituation


class SuppressingContract(QueueSituation):
    """The suppression list of a queue."""

    def suppress(self, *addresses: str, until: float | None = None) -> None:
        """Put addresses on the list."""
        more = {} if until is None else {"until": until}
        entries = [Suppression.of(each, "user unknown", since=self.clock.time(), **more) for each in addresses]
        self.queue.suppressions.add(*entries)

    def suppressed(self, *addresses: str) -> list[str]:
        """Return those of `addresses` that get no mail."""
        return sorted(self.queue.suppressions.among(addresses))

    def test_suppressions_provide_their_interface(self: Any) -> None:
        """The list is one."""
        verifyObject(ISuppressions, self.queue.suppressions)

    def test_the_list_is_empty_at_first(self: Any) -> None:
        """Every address gets mail."""
        self.assertEqual((self.suppressed("one@example.org"), list(self.queue.suppressions.entries())), ([], []))
        self.assertEqual(self.queue.suppressions.remove("one@example.org"), 0)

    def test_an_address_is_suppressed_until_it_is_removed(self: Any) -> None:
        """With the reason, and since when; others get mail."""
        self.suppress("one@example.org", "two@example.org")
        self.assertEqual(self.suppressed("one@example.org", "three@example.org"), ["one@example.org"])
        [entry] = self.queue.suppressions.among(["one@example.org"]).values()
        self.assertEqual((entry.reason, entry.since), ("user unknown", self.clock.time()))
        self.assertEqual(self.queue.suppressions.remove("ONE@example.org", "three@example.org"), 1)
        self.assertEqual(self.suppressed("one@example.org", "two@example.org"), ["two@example.org"])
        self.suppress("one@example.org")
        self.assertEqual(
            [each.address for each in self.queue.suppressions.entries()], ["one@example.org", "two@example.org"]
        )

    def test_an_address_is_the_same_in_every_spelling(self: Any) -> None:
        """In whatever case, quoted for nothing, and with a domain in letters or as A-labels."""
        self.suppress("One.Two@EXAMPLE.org", "zwölf@bücher.example")
        same = ["one.two@example.org", '"one.two"@example.org', "ZWÖLF@BÜCHER.example", "zwölf@xn--bcher-kva.example"]
        self.assertEqual(self.suppressed(*same), sorted(same))
        self.assertEqual(self.suppressed("onetwo@example.org", "one.two@example.com"), [])

    def test_a_suppression_can_end_by_itself(self: Any) -> None:
        """At its moment, and it is not among the entries any more."""
        self.suppress("one@example.org", until=self.clock.time() + 60)
        self.assertEqual(self.suppressed("one@example.org"), ["one@example.org"])
        self.clock.advance(60)
        self.assertEqual((self.suppressed("one@example.org"), list(self.queue.suppressions.entries())), ([], []))

    def test_a_later_entry_takes_the_place_of_the_earlier(self: Any) -> None:
        """An address is on the list once."""
        self.suppress("one@example.org")
        self.suppress("One@example.org", until=self.clock.time() + 60)
        [entry] = self.queue.suppressions.entries()
        self.assertEqual(entry.until, self.clock.time() + 60)

    def test_what_is_no_address_is_refused(self: Any) -> None:
        """Before anything is written."""
        for wrong in ("", "one", "one@", "one@example.org\nx", None):
            self.assertRaises(InvalidRecipient, Suppression.of, wrong)
        self.suppress("one@example.org")
        self.assertRaises(InvalidRecipient, self.queue.suppressions.remove, "one@example.org", "nothing")
        self.assertEqual(self.suppressed("one@example.org"), ["one@example.org"])

    def test_another_process_knows_within_a_second(self: Any) -> None:
        """What is added, and what is removed."""
        other = self.open_again()
        self.assertEqual(dict(other.suppressions.among(["one@example.org"])), {})
        self.suppress("one@example.org", "two@example.org")
        self.clock.advance(1)
        self.assertEqual(sorted(other.suppressions.among(["one@example.org"])), ["one@example.org"])
        other.suppressions.remove("one@example.org")
        self.clock.advance(1)
        self.assertEqual(self.suppressed("one@example.org", "two@example.org"), ["two@example.org"])
