"""Which address is on a suppression list, and which reply puts one there."""

from __future__ import annotations

import unittest
from math import inf

from zope.sendmail.errors import InvalidRecipient
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.suppression import (
    AT_HAND_OVER,
    Suppression,
    SuppressionTable,
    gone,
    is_of_list,
    normalized,
)

JANE = Suppression("jane@example.com", "no such user", 100.0)


class AnAddress(unittest.TestCase):
    def test_is_the_same_however_it_is_written(self) -> None:
        """Case, a title, needless quotes, a domain in letters or as A-labels, a dot at its end."""
        for address in ("Jane <JANE@Example.COM>", '"jane"@example.com', "jane@example.com."):
            self.assertEqual(normalized(address), "jane@example.com", address)
        self.assertEqual(normalized("a@Bücher.example"), "a@xn--bcher-kva.example")
        self.assertEqual(normalized("Straße@example.com"), normalized("STRASSE@example.com".replace("SS", "ß")))

    def test_that_needs_its_quotes_keeps_them(self) -> None:
        """With a blank in it, it is no other one."""
        self.assertEqual(normalized('"Jane Doe"@example.com'), '"jane doe"@example.com')

    def test_without_a_domain_is_refused(self) -> None:
        """Whose it is, is not known; the error names it."""
        with self.assertRaises(InvalidRecipient) as caught:
            normalized("jane")
        words = "the address 'jane' has no domain, so it cannot be suppressed"
        self.assertEqual((str(caught.exception), list(caught.exception.recipients)), (words, ["jane"]))


class AnEntry(unittest.TestCase):
    def test_is_made_of_what_people_write(self) -> None:
        """The reason is one printable line of at most 200 characters."""
        entry = Suppression.of("Jane <JANE@example.com>", "no\r\n" + "x" * 300, since=5.0, until=9.0)
        self.assertEqual((entry.address, entry.since, entry.until), ("jane@example.com", 5.0, 9.0))
        self.assertEqual((len(entry.reason), entry.reason[:4]), (200, "no x"))
        self.assertEqual(Suppression.of("a@example.com"), Suppression("a@example.com", "", 0.0, inf))

    def test_says_why_and_until_when(self) -> None:
        """As far as either is known."""
        self.assertEqual(str(JANE), "on the suppression list: no such user")
        limited = Suppression("a@example.com", "gone", until=1_800_000_000.0)
        self.assertEqual(str(limited), "on the suppression list until 2027-01-15T08:00:00Z: gone")
        self.assertEqual(str(Suppression("a@example.com")), "on the suppression list")

    def test_refuses_a_recipient(self) -> None:
        """With a reply that is not taken for that of a relay; nor is a relay's for one of the list."""
        reply = JANE.reply
        self.assertEqual((reply.answer, reply.code, reply.enhanced), (Answer.REJECTED, None, "5.7.1"))
        self.assertTrue(is_of_list(reply))
        self.assertTrue(is_of_list(AT_HAND_OVER.reply))
        self.assertEqual(str(AT_HAND_OVER.reply), "5.7.1 on the suppression list: since the mail was handed over")
        self.assertEqual(AT_HAND_OVER.address, "")
        self.assertFalse(is_of_list(Reply(Answer.REJECTED, reply.text, 550)))
        self.assertFalse(is_of_list(Reply(Answer.REJECTED, "no such user")))


class ATable(unittest.TestCase):
    def setUp(self) -> None:
        self.table = SuppressionTable()
        self.table.put(JANE)
        self.table.put(Suppression("a@example.com", until=200.0))

    def test_finds_recipients_as_they_are_written(self) -> None:
        """Each with its entry, as long as its time is not over."""
        self.assertEqual(list(self.table.among(["jane@example.com."], 0.0)), ["jane@example.com."])
        self.table.put(Suppression(normalized("j\u00fcrgen@example.com")))
        self.assertEqual(len(self.table.among(["J\u00dcRGEN@example.com", "ju\u0308rgen@example.com"], 0.0)), 2)
        self.table.drop("j\u00fcrgen@example.com")
        recipients = ["JANE@Example.com", "joe@example.com", "a@example.com", "jane"]
        self.assertEqual(list(self.table.among(recipients, 199.0)), ["JANE@Example.com", "a@example.com"])
        self.assertEqual(self.table.among(recipients, 200.0), {"JANE@Example.com": JANE})
        self.assertEqual(SuppressionTable().among(recipients, 0.0), {})

    def test_lists_entries_by_address(self) -> None:
        """Those whose time is over are there, but not in the list."""
        self.assertEqual([each.address for each in self.table.entries(100.0)], ["a@example.com", "jane@example.com"])
        self.assertEqual(self.table.entries(200.0), [JANE])
        self.assertEqual(len(self.table), 2)
        self.assertIsNotNone(self.table.get("a@example.com"))

    def test_has_one_entry_for_an_address(self) -> None:
        """The last one counts; one that is dropped is gone, and it is told whether there was one."""
        newer = Suppression("jane@example.com", "asked for it")
        self.table.put(newer)
        self.assertEqual((len(self.table), self.table.get("jane@example.com")), (2, newer))
        self.assertEqual([self.table.drop("jane@example.com"), self.table.drop("jane@example.com")], [True, False])
        self.assertIsNone(self.table.get("jane@example.com"))


class ARecipientThatDoesNotExist(unittest.TestCase):
    def is_gone(self, text: str, code: int | None = 550, enhanced: str = "", *, to_rcpt: bool = True) -> bool:
        answer = Answer.REJECTED if code is None or code >= 500 else Answer.DEFERRED
        reply = Reply(answer, text, code, enhanced, to_rcpt=to_rcpt)
        return gone({"jane@example.com": reply}) == {"jane@example.com": reply}

    def test_is_told_by_a_code(self) -> None:
        """Which counts more than words."""
        for enhanced in ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"):
            self.assertTrue(self.is_gone("go away", 554, enhanced), enhanced)
        for enhanced in ("5.7.1", "5.2.2", "5.1.8"):
            self.assertFalse(self.is_gone("no such user", 550, enhanced), enhanced)

    def test_is_told_by_words(self) -> None:
        """Where there is no such code, and the reply is about a mailbox."""
        for text in ("No such user here", "unknown local recipient", "Mailbox is not found", "it does not exist"):
            for code in (550, 551, 553):
                self.assertTrue(self.is_gone(text, code), (text, code))
            self.assertFalse(self.is_gone(text, 554), text)
        for text in ("no", "your address is listed", "user over quota", "account. unknown reason"):
            self.assertFalse(self.is_gone(text), text)

    def test_is_told_by_its_own_refusal_only(self) -> None:
        """One for a time, one after the message, and one that no relay gave say nothing of that."""
        self.assertFalse(self.is_gone("no such user", 450))
        self.assertFalse(self.is_gone("no such user", to_rcpt=False))
        self.assertFalse(self.is_gone("no such user", None))
        self.assertFalse(self.is_gone("no such user", None, "5.1.1"))
        self.assertFalse(self.is_gone("no such user", 450, "5.1.1"))


if __name__ == "__main__":
    unittest.main()
