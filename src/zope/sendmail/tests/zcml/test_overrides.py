"""Directives that are overridden (``includeOverrides``) or unconfigured (z3c.unconfigure) leave nothing behind."""

from __future__ import annotations

import unittest
from typing import Any

from zope.component import getUtilitiesFor, queryUtility
from zope.configuration import xmlconfig
from zope.configuration.config import ConfigurationMachine
from zope.configuration.exceptions import ConfigurationError

from zope.sendmail import startup
from zope.sendmail.interfaces import IMailDelivery, IMailer
from zope.sendmail.tests.zcml.test_directives import SMTP, Fixture

try:
    from z3c import unconfigure
except ImportError:
    unconfigure = None

#: Directive -> one that no site can load, because of what it names or says.
BROKEN = {
    "smtpMailer": '<mail:smtpMailer name="{}" passwordFile="nowhere" username="u" />',
    "lmtpMailer": '<mail:lmtpMailer name="{}" passwordFile="nowhere" username="u" />',
    "sendmailMailer": '<mail:sendmailMailer name="{}" options="-t" />',
    "redirectMailer": '<mail:redirectMailer name="{}" mailer="nowhere" to="a@example.org" />',
    "redirectMailer to nobody": '<mail:redirectMailer name="{}" mailer="smtp" to="nobody" />',
    "failoverMailer": '<mail:failoverMailer name="{}" mailers="nowhere smtp" />',
    "failoverMailer twice": '<mail:failoverMailer name="{}" mailers="smtp smtp" />',
    "balancedMailer": '<mail:balancedMailer name="{}" mailers="nowhere=3" />',
    "balancedMailer without shares": '<mail:balancedMailer name="{}" mailers="smtp=x" />',
    "queuedDelivery": '<mail:queuedDelivery name="{}" mailer="nowhere" queuePath="q" />',
    "queuedDelivery without a queue": '<mail:queuedDelivery name="{}" mailer="smtp" />',
    "queuedDelivery with mailers": '<mail:queuedDelivery name="{}" mailer="smtp" mailers="no" queuePath="q" />',
    "queuedDelivery with a permission": (
        '<mail:queuedDelivery name="{}" mailer="smtp" queuePath="q" permission="no.such" />'
    ),
    "queuedDelivery in contradiction": (
        '<mail:queuedDelivery name="{}" mailer="smtp" queuePath="q" start="explicit" processorThread="no" />'
    ),
    "directDelivery": '<mail:directDelivery name="{}" mailer="nowhere" />',
    "directDelivery with a permission": '<mail:directDelivery name="{}" mailer="smtp" permission="no.such" />',
}
#: What takes its place: nothing of ours.
OTHER = '<utility component="zope.sendmail.tests.zcml.test_overrides.other" provides="{}" name="{}" />'
ROOT = '<configure xmlns="http://namespaces.zope.org/zope" xmlns:mail="http://namespaces.zope.org/mail">{}</configure>'

other = object()


def provided(directive: str) -> Any:
    return IMailDelivery if "Delivery" in directive else IMailer


def utilities() -> list[tuple[str, str]]:
    """The registered names of deliveries and mailers."""
    return sorted((each.__name__, name) for each in (IMailDelivery, IMailer) for name, _ in getUtilitiesFor(each))


class Overrides(Fixture):
    def load_overridden(self, base: str, over: str) -> None:
        files = [self.in_directory("base.zcml", ROOT.format(base)), self.in_directory("over.zcml", ROOT.format(over))]
        self.load(SMTP, f'<include file="{files[0]}" />', f'<includeOverrides file="{files[1]}" />')

    def test_leave_no_check_behind(self) -> None:
        """What cannot be loaded can be overridden by any other utility of its name, for every directive."""
        for what, directive in BROKEN.items():
            with self.subTest(what):
                with self.assertRaises(ConfigurationError):
                    self.load(SMTP, directive.format("x"))
                self.setUp()
                interface = provided(what)
                over = OTHER.format(f"zope.sendmail.interfaces.{interface.__name__}", "x")
                self.load_overridden(directive.format("x"), over)
                self.assertIs(queryUtility(interface, "x"), other)
                self.assertEqual(utilities(), sorted([("IMailer", "smtp"), (interface.__name__, "x")]))
                self.assertEqual(startup.declared(), [])

    def test_by_directives_of_ours(self) -> None:
        """A developer's site sends directly what production queues; no processor of production is left."""
        self.load_overridden(
            '<mail:queuedDelivery mailer="production" queuePath="q" />', '<mail:directDelivery mailer="smtp" />'
        )
        self.assertEqual(utilities(), [("IMailDelivery", ""), ("IMailDelivery", "Mail"), ("IMailer", "smtp")])
        self.assertEqual(startup.declared(), [])

    def test_of_mailers_are_the_ones_that_others_find(self) -> None:
        """A redirection to an overridden mailer goes to what took its place."""
        self.load_overridden(
            '<mail:failoverMailer name="x" mailers="nowhere" />'
            '<mail:redirectMailer name="all" mailer="x" to="a@example.org" />',
            '<mail:smtpMailer name="x" />',
        )
        self.assertEqual(type(queryUtility(IMailer, "all").mailer).__name__, "SMTPMailer")


@unittest.skipUnless(unconfigure, "z3c.unconfigure is not installed; it is in the extra test")
class Unconfigured(Fixture):
    def context(self) -> ConfigurationMachine:
        return xmlconfig.file("meta.zcml", unconfigure, context=super().context())

    def test_directives_leave_nothing_behind(self) -> None:
        """Not even a delivery without a name, and no check: what they named may be missing."""
        for what, directive in BROKEN.items():
            with self.subTest(what):
                self.setUp()
                self.load(SMTP, directive.format("x"), f"<unconfigure>{directive.format('x')}</unconfigure>")
                self.assertEqual(utilities(), [("IMailer", "smtp")])
                self.assertEqual(startup.declared(), [])

    def test_by_what_has_its_name_only(self) -> None:
        """The directive itself need not be repeated."""
        for what, directive in BROKEN.items():
            with self.subTest(what):
                self.setUp()
                utility = OTHER.format(f"zope.sendmail.interfaces.{provided(what).__name__}", "x")
                self.load(SMTP, directive.format("x"), f"<unconfigure>{utility}</unconfigure>")
                self.assertEqual(utilities(), [("IMailer", "smtp")])


if __name__ == "__main__":
    unittest.main()
