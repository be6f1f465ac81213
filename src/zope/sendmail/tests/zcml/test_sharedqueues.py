"""Several deliveries on one queue."""

from __future__ import annotations

import os
import unittest

from zope.app.appsetup.product import setProductConfiguration
from zope.component import getGlobalSiteManager, provideUtility
from zope.testing.cleanup import cleanUp

from zope.sendmail import startup
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.interfaces import IMailDelivery
from zope.sendmail.tests.zcml.test_directives import SMTP, Fixture

BULK = '<mail:smtpMailer name="bulk" />'


def queued(name: str, mailer: str, path: str = "q", more: str = "") -> str:
    return f'<mail:queuedDelivery name="{name}" mailer="{mailer}" queuePath="{path}" {more} />'


class OneQueue(Fixture):
    def test_with_different_mailers_is_refused(self) -> None:
        """The text says what is meant instead."""
        self.assertRefused(
            "'Mail' and 'Bulk' share the queue /.*/q, but the mailer of one is 'smtp' and that of the other 'bulk'"
            '.* Write one delivery with mailer="smtp" and mailers="bulk", and name the mailer in send.relay=',
            SMTP + BULK,
            queued("Mail", "smtp"),
            queued("Bulk", "bulk"),
        )

    def test_that_zope_conf_names_is_the_same(self) -> None:
        """Neither directive names a queue: both have that of <product-config mail>."""
        for written in (queued("Bulk", "bulk"), '<mail:queuedDelivery name="Bulk" mailer="bulk" />'):
            cleanUp()
            setProductConfiguration("mail", {"queue-path": f"{self.directory}/q"})
            self.assertRefused("mailers=", SMTP + BULK, '<mail:queuedDelivery mailer="smtp" />', written)

    def test_is_known_by_any_path(self) -> None:
        """Through a link, and as one of several spools."""
        os.symlink(os.path.join(self.directory, "q"), os.path.join(self.directory, "link"))
        for one, other in (("q", "link"), ("spool:a;b", "spool:b")):
            cleanUp()
            self.assertRefused("mailers=", SMTP + BULK, queued("Mail", "smtp", one), queued("Bulk", "bulk", other))

    def test_with_different_routes_is_refused(self) -> None:
        """One processor could not send what the other one may be asked for."""
        routes = ('mailers="bulk"', 'relays="a.example.org:25"', 'recipientRoutes="@example.org=smtp"')
        for more in routes:
            cleanUp()
            self.assertRefused("share the queue", SMTP + BULK, queued("a", "smtp"), queued("b", "smtp", more=more))

    def test_with_the_same_mailers_may_have_several_names(self) -> None:
        """It makes no difference then which processor sends."""
        more = 'mailers="bulk" relays="a.example.org:25"'
        self.load(SMTP + BULK, queued("Mail", "smtp", more=more), queued("Letters", "smtp", more=more))
        self.assertEqual([each.name for each in startup.declared()], ["Mail", "Letters"])

    def test_that_one_processor_drains_may_have_several_names(self) -> None:
        """What is never started sends nothing."""
        self.load(SMTP + BULK, queued("Mail", "smtp"), queued("Bulk", "bulk", more='start="never"'))
        self.assertEqual(len(startup.declared()), 2)


class AnEarlierConfiguration(Fixture):
    def test_whose_delivery_is_gone_does_not_count(self) -> None:
        """Tests load one site after the other."""
        self.load(SMTP, queued("Mail", "smtp"))
        getGlobalSiteManager().unregisterUtility(provided=IMailDelivery, name="Mail")
        self.load(SMTP + BULK, queued("Bulk", "bulk"))
        self.assertEqual(self.mailers(), {"Bulk": "bulk"})

    def test_whose_delivery_was_replaced_does_not_count(self) -> None:
        """By a double, for instance."""
        self.load(SMTP, queued("Mail", "smtp"))
        provideUtility(object(), IMailDelivery, "Mail")
        self.load(SMTP + BULK, queued("Bulk", "bulk"))
        self.assertEqual(self.mailers(), {"Bulk": "bulk"})

    def test_is_replaced_under_the_same_name(self) -> None:
        """A delivery does not share a queue with itself."""
        self.load(SMTP, queued("Mail", "smtp"))
        self.load(BULK, queued("Mail", "bulk"))
        self.assertEqual(self.mailers(), {"Mail": "bulk"})

    @staticmethod
    def mailers() -> dict[str, str]:
        """The mailers of the deliveries that were declared, and whose deliveries are registered."""
        registered = {each.name: each for each in startup.declared()}
        deliveries = getGlobalSiteManager()
        return {
            name: each.options["routes"].default
            for name, each in registered.items()
            if isinstance(deliveries.queryUtility(IMailDelivery, name), QueuedMailDelivery)
        }


if __name__ == "__main__":
    unittest.main()
