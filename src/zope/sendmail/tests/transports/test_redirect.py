"""`RedirectMailer`: nobody gets mail by accident."""

from __future__ import annotations

import io
import smtplib
import unittest
from email import message_from_bytes
from typing import ClassVar

import transaction
from zope.interface.verify import verifyObject

from zope.sendmail.delivery import DirectMailDelivery
from zope.sendmail.interfaces import InvalidAddress, InvalidSettings, ISession, ISessionMailer, MailRefused
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.mailer import SMTPMailer, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.testing.contracts import LATER, MESSAGE, NEVER, OK, envelope
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, SendOnlyMailer
from zope.sendmail.tests.support.processing import ProcessorTest
from zope.sendmail.transports.redirect import RedirectMailer, refuse_detours

TESTER = "tester@example.com"
DOWN = Reply(Answer.DEFERRED, "down")
LOST = Reply(Answer.UNKNOWN, "lost")


class Redirection(unittest.TestCase):
    """All mail goes to the tester, but for friends.org and one more."""

    def setUp(self) -> None:
        super().setUp()
        self.inner = ScriptedMailer()
        self.mailer = RedirectMailer(self.inner, [TESTER], allow=["friends.org", "Jane@example.org"])

    def transfer(self, *recipients: str, sender: str = "sender@example.org", message: bytes = MESSAGE) -> Outcome:
        mail = envelope(*recipients, sender=sender)
        return open_session(self.mailer).transfer(mail, io.BytesIO(message), lambda: None)

    def reached(self) -> list[str]:
        return [who for _, recipients, _ in self.inner.sent for who in recipients]


class AMail(Redirection):
    def test_provides_the_interfaces(self) -> None:
        """A mailer with sessions."""
        verifyObject(ISessionMailer, self.mailer)
        verifyObject(ISession, open_session(self.mailer))

    def test_goes_to_the_tester_only(self) -> None:
        """Once, for all its recipients, who all have an answer."""
        outcome = self.transfer("one@example.org", "two@example.org")
        self.assertEqual(self.reached(), [TESTER])
        self.assertEqual(list(outcome.having(Answer.ACCEPTED)), ["one@example.org", "two@example.org"])
        self.assertIn(f"redirected to {TESTER}", outcome.replies["one@example.org"].text)

    def test_shows_who_would_have_had_it(self) -> None:
        """In front of its own header; the body is as it was."""
        self.transfer("one@example.org", "two@example.org")
        text = self.inner.sent[0][2]
        self.assertTrue(text.endswith(MESSAGE))
        parsed = message_from_bytes(text)
        self.assertEqual(parsed["X-Original-Envelope-From"], "<sender@example.org>")
        self.assertEqual(parsed["X-Original-Envelope-To"].split(",\n\t"), ["<one@example.org>", "<two@example.org>"])

    def test_has_lines_that_a_relay_takes_whatever_its_addresses(self) -> None:
        """ASCII, shorter than 999 octets, and nothing that ends a line."""
        odd = ('"a\x85b"@example.org', "\u0bb5" * 290 + "@example.org", *(f"{n}@example.org" for n in range(200)))
        self.transfer(*odd)
        header = self.inner.sent[0][2].removesuffix(MESSAGE)
        self.assertTrue(header.isascii())
        self.assertLess(max(map(len, header.split(b"\n"))), 999)
        self.assertEqual(len(header.splitlines()), 203)

    def test_has_a_sender_who_may_get_its_bounces(self) -> None:
        """A bounce to the original sender would be mail to others; a bounce itself stays one."""
        self.transfer()
        self.transfer(sender="")
        self.mailer = RedirectMailer(self.inner, [TESTER], sender="bounces@example.com")
        self.transfer()
        self.assertEqual([sender for sender, _, _ in self.inner.sent], [TESTER, "", "bounces@example.com"])

    def test_goes_to_several_testers(self) -> None:
        """Each is named once; one who has it is enough."""
        self.mailer = RedirectMailer(self.inner, [TESTER, "second@example.com", TESTER])
        self.inner.answers = lambda who: OK if who == TESTER else NEVER
        outcome = self.transfer()
        self.assertEqual(self.reached(), [TESTER])
        self.assertEqual(len(outcome.having(Answer.ACCEPTED)), 1)

    def test_has_the_answer_of_the_tester(self) -> None:
        """Told of the original recipients."""
        for reply in LATER, NEVER, LOST:
            self.inner.answers = lambda who, reply=reply: reply  # type: ignore[misc]  # bound in this round
            outcome = self.transfer("one@example.org")
            self.assertEqual(outcome.replies["one@example.org"].answer, reply.answer)
            self.assertEqual(outcome.replies["one@example.org"].code, reply.code)

    def test_is_as_before_if_the_relay_cannot_be_used(self) -> None:
        """A fault blames nobody."""
        asked: list[Envelope] = []
        self.inner.before = asked.append
        self.inner.fault = DOWN
        outcome = self.transfer("one@example.org", "jane@example.org")
        self.assertEqual((outcome.replies, outcome.fault), ({}, DOWN))
        self.assertEqual(len(asked), 1)

    def test_goes_to_the_tester_through_a_mailer_that_has_only_send(self) -> None:
        """Of any kind."""
        inner = SendOnlyMailer()
        self.mailer = RedirectMailer(inner, [TESTER])
        self.transfer()
        self.assertEqual(inner.sent[0][:2], (TESTER, (TESTER,)))


class TheAllowList(Redirection):
    def test_lets_mail_through_as_it_is(self) -> None:
        """With its own sender; addresses and domains, in any case of letters."""
        self.transfer("bob@friends.org", "Bob@FRIENDS.org", "jane@example.org")
        [mail] = self.inner.sent
        self.assertEqual(
            mail, ("sender@example.org", ("bob@friends.org", "Bob@FRIENDS.org", "jane@example.org"), MESSAGE)
        )

    def test_divides_a_mail(self) -> None:
        """Two transfers; each recipient has the answer of its own."""
        self.inner.answers = lambda who: NEVER if who == "jane@example.org" else OK
        outcome = self.transfer("one@example.org", "jane@example.org", "bob@friends.org")
        self.assertEqual(self.reached(), [TESTER, "bob@friends.org"])
        answers = {who: reply.answer for who, reply in outcome.replies.items()}
        expected = [Answer.ACCEPTED, Answer.REJECTED, Answer.ACCEPTED]
        self.assertEqual([answers[who] for who in ("one@example.org", "jane@example.org", "bob@friends.org")], expected)
        self.assertEqual(message_from_bytes(self.inner.sent[0][2])["X-Original-Envelope-To"], "<one@example.org>")
        self.assertEqual(self.inner.sent[1][2], MESSAGE)

    def test_is_not_to_be_deceived(self) -> None:
        """Domains below and beside, quoted and percent tricks, lists in disguise: all go to the tester."""
        tricks = (
            "bob@sub.friends.org",
            "bob@notfriends.org",
            "bob@friends.org.evil.example",
            '"bob@friends.org"@evil.example',
            "bob%evil.example@friends.org",
            "evil.example!bob@friends.org",
            "bob@evil.example,bob@friends.org",
            "bob@evil.example>,<bob@friends.org",
            "Bob <evil@evil.example> bob@friends.org",
            "postmaster",
        )
        self.transfer(*tricks)
        self.assertEqual(self.reached(), [TESTER])

    def test_keeps_what_came_first_when_the_relay_goes_away(self) -> None:
        """Who was answered stays answered; the others are as before."""

        def go_away(mail: Envelope) -> None:
            self.inner.fault = DOWN if self.inner.sent else None

        self.inner.before = go_away
        outcome = self.transfer("one@example.org", "jane@example.org")
        self.assertEqual(list(outcome.having(Answer.ACCEPTED)), ["one@example.org"])
        self.assertEqual((len(outcome.replies), outcome.fault), (1, DOWN))

    def test_takes_an_address_as_it_is_only(self) -> None:
        """What another program might read as another address is none of them."""
        for recipient in ("<bob@friends.org>", "Bob <bob@friends.org>", " bob@friends.org"):
            self.assertFalse(self.mailer.allows(recipient), recipient)
        self.assertTrue(self.mailer.allows("bob@friends.org"))

    def test_rests_with_the_session_behind(self) -> None:
        """A pause between two mails is one for the relay."""
        session = open_session(self.mailer)
        session.rest()
        self.assertEqual(self.inner.sessions[-1].rested, 1)


class ADetour(unittest.TestCase):
    """A way around the redirection that mail may name."""

    MAILERS: ClassVar = {"staging": RedirectMailer(ScriptedMailer(), [TESTER]), "main": ScriptedMailer()}

    def test_is_refused(self) -> None:
        """A mailer, or an address."""
        for names, addresses, words in (({"main"}, set(), "mailer 'main'"), (set(), {("a", 25)}, "relay a:25")):
            routes = Routes("staging", frozenset({"staging", *names}), frozenset(addresses))
            with self.subTest(words), self.assertRaisesRegex(InvalidSettings, f"redirects mail, and {words} would"):
                refuse_detours(routes, self.MAILERS.get)

    def test_is_none_where_nothing_is_redirected(self) -> None:
        """Or everything."""
        for name in ("main", "staging"):
            refuse_detours(Routes(name, frozenset({name}), frozenset()), self.MAILERS.get)
        refuse_detours(Routes("main", frozenset({"main", "staging"}), frozenset()), self.MAILERS.get)


class TheSettings(unittest.TestCase):
    def test_need_somebody_to_redirect_to(self) -> None:
        """And addresses that are some."""
        for to, allow in ((), ()), (["nobody"], ()), ([TESTER], ["a b"]), ([TESTER], ["x@y@z"]), (["a\n@b.org"], ()):
            with self.subTest(to=to, allow=allow), self.assertRaises(InvalidAddress):
                RedirectMailer(ScriptedMailer(), to, allow=allow)

    def test_are_no_more_than_the_mailer_behind_allows(self) -> None:
        """Its connections and its rate; one connection if it has only send."""
        inner = SMTPMailer(connections=3, rate=2.0)
        self.assertEqual((RedirectMailer(inner, [TESTER]).connections, RedirectMailer(inner, [TESTER]).rate), (3, 2.0))
        self.assertIsNone(RedirectMailer(SMTPMailer(), [TESTER]).connections)
        self.assertEqual(RedirectMailer(SendOnlyMailer(), [TESTER]).connections, 1)

    def test_need_a_mailer(self) -> None:
        """Said when it is used, because ZCML names it later."""
        with self.assertRaisesRegex(ValueError, "no mailer"):
            open_session(RedirectMailer(to=[TESTER]))


class InTheQueue(ProcessorTest):
    def test_each_part_is_tried_until_it_is_done(self) -> None:
        """What the tester has is not sent again because of another."""
        replies = {"jane@example.org": LATER}
        self.mailer.answers = lambda who: replies.get(who, OK)
        self.processor = self.make_processor(mailer=RedirectMailer(self.mailer, [TESTER], allow=["jane@example.org"]))
        self.put("one@example.org", "jane@example.org")
        self.drain()
        self.assertEqual(self.sent_to(), [TESTER])
        replies.clear()
        self.drain(60)
        self.assertEqual(self.sent_to(), [TESTER, "jane@example.org"])
        self.assertEqual(self.queue.admin.count(), {})


class OneMail(Redirection):
    """Asked about as the interfaces before sessions have it."""

    def test_that_is_refused_is_told_as_smtplib_does(self) -> None:
        """By the vote, before anything is sent; nothing is raised where the tester gets it."""
        self.mailer.vote("sender@example.org", ["one@example.org"], MESSAGE)
        self.inner.answers = lambda who: NEVER
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            self.mailer.vote("sender@example.org", ["one@example.org"], MESSAGE)
        self.assertEqual(self.inner.sent, [])


class InATransaction(Redirection):
    def setUp(self) -> None:
        super().setUp()
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.delivery = DirectMailDelivery(self.mailer)

    def test_commit_redirects(self) -> None:
        """The vote asks for the tester as well, and for nobody else."""
        asked: list[str] = []

        def answer(who: str) -> Reply:
            asked.append(who)
            return OK

        self.inner.answers = answer
        self.delivery.send("sender@example.org", ["one@example.org"], MESSAGE)
        transaction.commit()
        self.assertEqual(self.reached(), [TESTER])
        self.assertEqual(set(asked), {TESTER})

    def test_a_refused_tester_aborts(self) -> None:
        """As any refused recipient does where that is wanted."""
        self.delivery = DirectMailDelivery(self.mailer, onRefused="abort")
        self.inner.answers = lambda who: NEVER
        self.delivery.send("sender@example.org", ["one@example.org"], MESSAGE)
        with self.assertRaises(MailRefused):
            transaction.commit()
