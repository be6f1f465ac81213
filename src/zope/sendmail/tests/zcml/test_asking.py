"""What a queued delivery asks for by default, and what it does about refused recipients, in ZCML and zope.conf."""

from __future__ import annotations

import transaction
from zope.app.appsetup.product import setProductConfiguration
from zope.component import getUtility

from zope.sendmail import startup
from zope.sendmail.interfaces import IMailDelivery
from zope.sendmail.message.terms import Terms
from zope.sendmail.tests.zcml.test_directives import SMTP, Fixture

MESSAGE = b"From: a@example.org\n\nText\n"


class Defaults(Fixture):
    def terms(self, attributes: str, *, key: str | None = None) -> Terms:
        """Return what the delivery with these attributes asks for."""
        self.load(SMTP, f'<mail:queuedDelivery name="Mail" mailer="smtp" queuePath="q" start="never" {attributes} />')
        delivery = getUtility(IMailDelivery, "Mail")
        transaction.abort()
        delivery.send("a@example.org", ["b@example.org"], MESSAGE, key=key)
        transaction.commit()
        found: Terms = list(delivery.queue.admin.mails())[-1].envelope.terms
        return found

    def test_are_attributes_of_the_directive(self) -> None:
        """Each says what it says in ``send()``."""
        terms = self.terms('priority="high" notBefore="1h" expires="3h" keyLifetime="2h"', key="k")
        self.assertEqual(terms.priority, "high")
        self.assertEqual(terms.expires - terms.not_before, 2 * 3600)
        self.assertEqual(terms.key_until - terms.not_before, 2 * 3600)

    def test_can_stand_in_zope_conf(self) -> None:
        """What the directive says is stronger."""
        self.addCleanup(setProductConfiguration, "mail", None)
        setProductConfiguration("mail", {"priority": "low", "not-before": "1h"})
        self.assertEqual(self.terms("").priority, "low")
        self.setUp()
        setProductConfiguration("mail", {"priority": "low", "not-before": "1h"})
        terms = self.terms('priority="normal"')
        self.assertEqual((terms.priority, terms.not_before > 0), ("normal", True))

    def test_are_none_without_a_word(self) -> None:
        """Mail asks for nothing then."""
        self.assertEqual(self.terms(""), Terms())

    def test_are_refused_if_they_cannot_be(self) -> None:
        """When the ZCML is loaded."""
        for attributes, words in (
            ('priority="urgent"', "not one of high, normal, low"),
            ('expires="0"', "is not more than zero"),
            ('notBefore="2h" expires="1h"', "not behind not_before"),
            ('keyLifetime="99999d"', "key_lifetime"),
        ):
            with self.subTest(attributes):
                directive = f'<mail:queuedDelivery name="Mail" mailer="smtp" queuePath="q" {attributes} />'
                self.assertRefused(words, SMTP, directive)

    def test_a_processor_learns_whether_refused_recipients_are_suppressed(self) -> None:
        """By the attribute, which is off."""
        for attributes, expected in (("", None), ('suppressRefused="true"', True), ('suppressRefused="no"', False)):
            with self.subTest(attributes):
                self.setUp()
                self.terms(attributes)
                [declaration] = [each for each in startup.declared() if each.name == "Mail"]
                self.assertEqual(declaration.options.get("suppress_refused"), expected)
