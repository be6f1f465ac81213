"""``getUtility(IMailDelivery)``: the delivery that is meant without a name."""

from __future__ import annotations

import copy
import pickle
import unittest
from typing import Any

import transaction
from zope.component import getGlobalSiteManager, getUtility, provideUtility, queryUtility
from zope.component.hooks import resetHooks, setHooks, setSite
from zope.configuration.exceptions import ConfigurationError
from zope.interface import implementer
from zope.interface.interfaces import ComponentLookupError
from zope.security.checker import ProxyFactory
from zope.security.interfaces import Unauthorized
from zope.security.management import endInteraction, newInteraction
from zope.security.proxy import removeSecurityProxy
from zope.site.folder import Folder
from zope.site.site import LocalSiteManager
from zope.testing.cleanup import cleanUp

from zope.sendmail.interfaces import IMailDelivery, IQueuedMailDelivery
from zope.sendmail.queue import open_queue
from zope.sendmail.tests.zcml.test_directives import SMTP, Fixture, Visitor
from zope.sendmail.vocabulary import MailDeliveryNames, UtilityVocabulary

MAIL = ("shop@example.org", ["jane@example.org"], b"Subject: Order\r\n\r\nThank you\r\n")
QUEUED = '<mail:queuedDelivery mailer="smtp" queuePath="{0}" name="{0}" />'


@implementer(IMailDelivery)
class Recorder:
    """A delivery of an application or of its tests."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.sent: list[Any] = []

    def send(self, *arguments: Any, **options: Any) -> str:
        self.sent.append((arguments, options))
        return f"sent by {self.name}"


def send() -> str:
    """What applications do."""
    answer: str = getUtility(IMailDelivery).send(*MAIL)
    return answer


class OneDelivery(Fixture):
    def test_is_found_without_its_name(self) -> None:
        """Whatever it is called; its mail follows the transaction."""
        self.load(SMTP, QUEUED.format("letters"))
        message_id = send()
        transaction.commit()
        [mail] = open_queue(f"{self.directory}/letters").admin.mails()
        self.assertEqual(mail.message_id, message_id)

    def test_of_the_default_name_is_found(self) -> None:
        """A directive without a name, as in the README."""
        self.load(SMTP, '<mail:directDelivery mailer="smtp" />')
        self.assertIs(getUtility(IMailDelivery).mailer, self.mailer())

    def test_is_what_was_found(self) -> None:
        """All that it can do and provides is there, and nothing else."""
        self.load(SMTP, QUEUED.format("letters"))
        found = getUtility(IMailDelivery)
        self.assertEqual(found.queuePath, f"{self.directory}/letters")
        self.assertTrue(IQueuedMailDelivery.providedBy(found))
        message_id = found.send_now(*MAIL)
        self.assertEqual(found.status(message_id).standing, "queued")
        with self.assertRaises(AttributeError):
            found.mailer  # noqa: B018 - looked up, which raises

    def test_may_be_named_as_ever(self) -> None:
        """A look-up with a name gives the delivery itself."""
        self.load(SMTP, QUEUED.format("letters"))
        self.assertEqual(type(getUtility(IMailDelivery, "letters")).__name__, "QueuedMailDelivery")

    def test_is_listed_once(self) -> None:
        """Forms offer deliveries, not ways to them."""
        self.load(SMTP, QUEUED.format("letters"))
        self.assertEqual([term.value for term in MailDeliveryNames()], ["letters"])
        vocabulary = UtilityVocabulary(None, interface=IMailDelivery, nameOnly=True)
        self.assertEqual([term.value for term in vocabulary], ["letters"])

    def test_can_be_copied_and_pickled_without_being_used(self) -> None:
        """Objects that keep it can be stored: it has no state."""
        self.load(SMTP, QUEUED.format("letters"))
        found = getUtility(IMailDelivery)
        for same in (copy.copy(found), pickle.loads(pickle.dumps(found))):
            self.assertEqual(same.queuePath, found.queuePath)


class SeveralDeliveries(Fixture):
    def test_the_one_named_mail_is_meant(self) -> None:
        """In whatever order they are written."""
        for order in (1, -1):
            cleanUp()
            self.load(SMTP, *[QUEUED.format("Mail"), QUEUED.format("bulk")][::order])
            self.assertEqual(getUtility(IMailDelivery).queuePath, f"{self.directory}/Mail")

    def test_without_such_a_name_the_error_names_them(self) -> None:
        """It is a LookupError, as where nothing is registered."""
        self.load(SMTP, QUEUED.format("news"), QUEUED.format("bulk"))
        with self.assertRaisesRegex(ComponentLookupError, "There are 'bulk', 'news'; say .*'bulk'"):
            send()
        self.assertEqual([term.value for term in MailDeliveryNames()], ["bulk", "news"])

    def test_what_is_registered_later_counts(self) -> None:
        """A test that puts a double in the place of a delivery gets what is sent without a name."""
        self.load(SMTP, QUEUED.format("Mail"), QUEUED.format("bulk"))
        provideUtility(Recorder("double"), IMailDelivery, "Mail")
        self.assertEqual(send(), "sent by double")

    def test_what_is_gone_does_not(self) -> None:
        """One delivery of two is left; then none, which is told."""
        self.load(SMTP, QUEUED.format("news"), QUEUED.format("bulk"))
        registry = getGlobalSiteManager()
        registry.unregisterUtility(provided=IMailDelivery, name="news")
        self.assertEqual(getUtility(IMailDelivery).queuePath, f"{self.directory}/bulk")
        registry.unregisterUtility(provided=IMailDelivery, name="bulk")
        with self.assertRaisesRegex(ComponentLookupError, "there is no mail delivery .*; add <mail:queuedDelivery"):
            send()


class AnOwnDeliveryWithoutAName(Fixture):
    OWN = '<utility provides="zope.sendmail.interfaces.IMailDelivery" factory="{}" />'.format(
        f"{Recorder.__module__}.{Recorder.__name__}"
    )

    def test_wins_without_a_conflict(self) -> None:
        """In whatever order, and in the same file."""
        for order in (1, -1):
            cleanUp()
            self.load(SMTP, *[self.OWN, QUEUED.format("Mail")][::order])
            self.assertIsInstance(getUtility(IMailDelivery), Recorder)
            self.assertEqual([term.value for term in MailDeliveryNames()], ["", "Mail"])

    def test_wins_when_it_comes_later(self) -> None:
        """Code that registers it is not asked when."""
        self.load(SMTP, QUEUED.format("Mail"))
        found = getUtility(IMailDelivery)
        provideUtility(Recorder("own"), IMailDelivery)
        self.assertEqual(send(), "sent by own")
        self.assertEqual(found.send(*MAIL), "sent by own")  # what was found before goes there as well

    def test_may_be_a_directive(self) -> None:
        """An empty name is none."""
        self.load(SMTP, QUEUED.format("bulk"), '<mail:queuedDelivery mailer="smtp" queuePath="own" name="" />')
        self.assertEqual(getUtility(IMailDelivery).queuePath, f"{self.directory}/own")


class NoDelivery(Fixture):
    def test_leaves_nothing_behind(self) -> None:
        """The package alone registers no delivery, and a clean-up takes it away."""
        self.load(SMTP)
        self.assertIsNone(queryUtility(IMailDelivery))
        self.load(SMTP, QUEUED.format("letters"))
        cleanUp()
        self.assertIsNone(queryUtility(IMailDelivery))

    def test_is_left_by_one_that_is_refused(self) -> None:
        """An error in a directive leaves none without a name either."""
        with self.assertRaises(ConfigurationError):
            self.load(SMTP, QUEUED.format("good"), '<mail:directDelivery mailer="nowhere" name="bad" />')
        self.assertIsNone(queryUtility(IMailDelivery))


class ALocalSite(Fixture):
    def setUp(self) -> None:
        super().setUp()
        self.load(SMTP, QUEUED.format("Mail"), QUEUED.format("bulk"))
        self.site = Folder()
        self.site.setSiteManager(LocalSiteManager(self.site))
        self.local = self.site.getSiteManager()
        setHooks()
        self.addCleanup(resetHooks)
        setSite(self.site)
        self.addCleanup(setSite, None)

    def test_without_deliveries_has_those_of_all(self) -> None:
        """The global choice."""
        self.assertEqual(getUtility(IMailDelivery).queuePath, f"{self.directory}/Mail")

    def test_may_have_its_own_under_the_same_name(self) -> None:
        """It is meant within the site, and nowhere else."""
        self.local.registerUtility(Recorder("local"), IMailDelivery, "Mail")
        self.assertEqual(send(), "sent by local")
        setSite(None)
        self.assertEqual(getUtility(IMailDelivery).queuePath, f"{self.directory}/Mail")

    def test_may_have_its_own_without_a_name(self) -> None:
        """Also for what was found outside."""
        setSite(None)
        found = getUtility(IMailDelivery)
        setSite(self.site)
        self.local.registerUtility(Recorder("local"), IMailDelivery)
        self.assertEqual([send(), found.send(*MAIL)], ["sent by local"] * 2)


class APermission(Fixture):
    def setUp(self) -> None:
        super().setUp()
        self.load(
            SMTP,
            '<permission id="test.Send" title="Send" />',
            '<mail:queuedDelivery mailer="smtp" queuePath="q" permission="test.Send" />',
        )
        newInteraction(Visitor())
        self.addCleanup(endInteraction)

    def test_is_asked_for_without_a_name_as_well(self) -> None:
        """There is no way around it for code that is not trusted."""
        for name in ("", "Mail"):
            untrusted = ProxyFactory(getUtility(IMailDelivery, name))
            with self.assertRaises(Unauthorized):
                untrusted.send(*MAIL)
            self.assertTrue(IMailDelivery.providedBy(untrusted))

    def test_stops_no_trusted_code(self) -> None:
        """As with a name."""
        for name in ("", "Mail"):
            self.assertTrue(removeSecurityProxy(ProxyFactory(getUtility(IMailDelivery, name))).send(*MAIL))


if __name__ == "__main__":
    unittest.main()
