"""ZCML directives, and the package's own configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import traceback
import unittest
from typing import Any

import transaction
import zope.component
import zope.security
from zope.app.appsetup.product import setProductConfiguration
from zope.component import ComponentLookupError, getGlobalSiteManager, getUtility, queryUtility
from zope.configuration import xmlconfig
from zope.configuration.config import ConfigurationConflictError, ConfigurationMachine
from zope.configuration.exceptions import ConfigurationError
from zope.event import notify
from zope.interface import Interface
from zope.processlifetime import DatabaseOpenedWithRoot
from zope.schema.interfaces import IVocabularyFactory
from zope.security.checker import ProxyFactory
from zope.security.interfaces import IPermission, Unauthorized
from zope.security.management import endInteraction, newInteraction
from zope.testing.cleanup import cleanUp

import zope.sendmail
from zope.sendmail import startup, zcml
from zope.sendmail.config.settings import Mechanism, Notify, Tls, TlsVersion
from zope.sendmail.config.tokens import TokenFromCommand, TokenFromFile
from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery, queued_delivery
from zope.sendmail.interfaces import IMailDelivery, IMailer, InvalidRelay
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.queue import open_queue
from zope.sendmail.startup import Start

SMTP = '<mail:smtpMailer name="smtp" />'
SMTP_ONLY = frozenset({"smtp"})


class Fixture(unittest.TestCase):
    """Directives are written as in site.zcml, in a directory of their own."""

    def setUp(self) -> None:
        cleanUp()
        self.directory = os.path.realpath(self.enterContext(tempfile.TemporaryDirectory()))
        self.addCleanup(transaction.abort)
        self.addCleanup(cleanUp)  # before the directory goes: it ends the threads that work there

    def context(self) -> ConfigurationMachine:
        context = xmlconfig.file("meta.zcml", zope.component)
        xmlconfig.file("meta.zcml", zope.security, context=context)
        return xmlconfig.file("meta.zcml", zope.sendmail, context=context)

    def load(self, *directives: str) -> None:
        path = os.path.join(self.directory, "site.zcml")
        with open(path, "w", encoding="utf-8") as file:
            file.write('<configure xmlns="http://namespaces.zope.org/zope"\n')
            file.write('  xmlns:mail="http://namespaces.zope.org/mail" i18n_domain="test">\n')
            file.write("\n".join(directives))
            file.write("\n</configure>\n")
        xmlconfig.file(path, context=self.context())

    def refusal(self, *directives: str) -> str:
        """What people see of an error, with all that it was caused by."""
        try:
            self.load(*directives)
        except ConfigurationError as error:
            return "".join(traceback.format_exception(error))
        raise AssertionError("that was not refused")

    def assertRefused(self, text: str, *directives: str) -> None:
        with self.assertRaisesRegex(ConfigurationError, text):
            self.load(*directives)

    def mailer(self, name: str = "smtp") -> SMTPMailer:
        mailer: SMTPMailer = getUtility(IMailer, name)
        return mailer

    def declaration(self, name: str = "Mail") -> startup.Declaration:
        return next(each for each in startup.declared() if each.name == name)

    def how_to_drain(self) -> dict[str, Any]:
        """All that is said to the processor but where to."""
        options = dict(self.declaration().options)
        self.assertEqual((options.pop("routes"), list(options.pop("mailers"))), (Routes("smtp", SMTP_ONLY), ["smtp"]))
        return options

    def in_directory(self, name: str, text: str = "") -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class AMailer(Fixture):
    def test_speaks_with_localhost_by_default(self) -> None:
        """Nothing but a name is needed."""
        self.load(SMTP)
        self.assertEqual((self.mailer().hostname, self.mailer().port), ("localhost", 25))

    def test_is_what_the_directive_says(self) -> None:
        """Every attribute reaches the mailer under its own name."""
        password = self.in_directory("password", "secret\n")
        self.load(
            '<mail:smtpMailer name="relay" hostname="mail.example.org" port="587" username="user"',
            '  passwordFile="password" tls="required" verify="no" cafile="ca.pem" timeout="1m"',
            '  allowClearPassword="on" />',
        )
        mailer = self.mailer("relay")
        self.assertTrue(os.path.exists(password))
        self.assertEqual(
            (mailer.hostname, mailer.port, mailer.username, mailer.password),
            ("mail.example.org", 587, "user", "secret"),
        )
        self.assertEqual((mailer.tls, mailer.verify, mailer.timeout), (Tls.REQUIRED, False, 60.0))
        self.assertEqual(mailer.cafile, os.path.join(self.directory, "ca.pem"))
        self.assertTrue(mailer.allow_clear_password)

    def test_logs_in_as_the_directive_says(self) -> None:
        """Certificate, token, mechanisms, least TLS, and what the relay is to report."""
        self.load(
            '<mail:smtpMailer name="microsoft" username="user" tokenCommand="oama access user" auth="XOAUTH2"',
            '  tlsMinimum="1.3" notify="FAILURE DELAY" notifyReturn="HDRS" />',
            '<mail:smtpMailer name="partner" certfile="our.pem" keyfile="key.pem" auth="external" />',
            '<mail:smtpMailer name="file" username="user" tokenFile="token" />',
        )
        mailer = self.mailer("microsoft")
        assert isinstance(mailer.token, TokenFromCommand)
        self.assertEqual(mailer.token.argv, ("oama", "access", "user"))
        self.assertEqual(mailer.auth, (Mechanism.XOAUTH2,))
        self.assertEqual(mailer.notify, Notify(("FAILURE", "DELAY"), "HDRS"))
        self.assertEqual(mailer.relay_settings().tls_minimum, TlsVersion.TLS_1_3)
        paths = [os.path.join(self.directory, name) for name in ("our.pem", "key.pem", "token")]
        partner, file = self.mailer("partner"), self.mailer("file")
        assert isinstance(file.token, TokenFromFile)
        self.assertEqual([partner.certfile, partner.keyfile, file.token.path], paths)

    def test_with_implicit_tls_uses_tls(self) -> None:
        """implicit_tls is TLS from the first byte, and never the opposite."""
        self.load('<mail:smtpMailer name="relay" port="465" implicit_tls="true" />')
        self.assertTrue(self.mailer("relay").implicit_tls)
        self.assertFalse(self.mailer("relay").no_tls)

    def test_knows_the_older_switches(self) -> None:
        """force_tls and no_tls arrive as such, in every spelling of yes."""
        self.load('<mail:smtpMailer name="forced" force_tls="on" />', '<mail:smtpMailer name="not" no_tls="yes" />')
        self.assertTrue(self.mailer("forced").force_tls)
        self.assertTrue(self.mailer("not").no_tls)

    def test_is_refused_if_it_contradicts_itself(self) -> None:
        """No TLS and forced TLS, or half a login, are refused."""
        self.assertRefused("contradict", '<mail:smtpMailer name="x" no_tls="1" force_tls="1" />')
        self.assertRefused("password is missing", '<mail:smtpMailer name="x" username="u" />')
        both = 'username="u" password="p" tokenFile="f"'
        self.assertRefused("password and token contradict", f'<mail:smtpMailer name="x" {both} />')
        self.assertRefused("EXTERNAL, which needs", '<mail:smtpMailer name="x" auth="EXTERNAL" />')

    def test_is_refused_with_the_value_and_the_cure(self) -> None:
        """A wrong word is named together with the right ones."""
        self.assertRefused("'maybe' is not one of never, opp", '<mail:smtpMailer name="x" tls="maybe" />')
        self.assertRefused("'x' is neither yes nor no", '<mail:smtpMailer name="x" verify="x" />')
        self.assertRefused("'None' is not a duration", '<mail:smtpMailer name="x" timeout="None" />')
        self.assertRefused("(?s)'auth'.*'NTLM': only these", '<mail:smtpMailer name="x" auth="NTLM" />')
        self.assertRefused("(?s)'notify'.*'SOMETIMES': write", '<mail:smtpMailer name="x" notify="SOMETIMES" />')

    def test_of_the_same_name_conflicts(self) -> None:
        """Two mailers of one name are a conflict, as with any utility."""
        with self.assertRaises(ConfigurationConflictError):
            self.load(
                SMTP,
                '<utility component="zope.sendmail" name="smtp"',
                '  provides="zope.sendmail.interfaces.IMailer" />',
            )

    def test_is_made_with_keywords_that_were_given_only(self) -> None:
        """A constructor that knows few keywords is content (Plone wraps it)."""
        original = SMTPMailer.__init__

        def old_init(mailer: SMTPMailer, **kw: Any) -> None:
            self.assertEqual(kw, {"hostname": "h", "port": 26})
            original(mailer, **kw)

        self.addCleanup(setattr, SMTPMailer, "__init__", original)
        SMTPMailer.__init__ = old_init  # type: ignore[method-assign,assignment]  # as the patch does
        self.load('<mail:smtpMailer name="x" hostname="h" port="26" />')
        self.assertEqual(self.mailer("x").port, 26)


class APasswordInZcml(Fixture):
    """It is better in a file; where it is not, it stays where it is."""

    def test_is_in_no_error(self) -> None:
        """Though an error quotes the lines of other directives: not of one action, nor of two that contradict."""
        login = 'username="u" password="s3cr3t"'
        wrong = (
            (f'<mail:smtpMailer name="x" hostname="mx:587" {login} />',),
            (f'<mail:smtpMailer name="x" tokenCommand="t" {login} />',),
            (f'<mail:lmtpMailer name="x" hostname="mx:24" {login} />',),
            (f'<mail:smtpMailer name="x" {login} />', f'<mail:smtpMailer name="x" hostname="mx" {login} />'),
        )
        for directives in wrong:
            cleanUp()
            text = self.refusal(*directives)
            self.assertIn('site.zcml", line 3', text)
            self.assertNotIn("s3cr3t", text)

    def test_is_not_among_what_the_registry_tells(self) -> None:
        """Where a utility comes from is shown by documentation and debuggers."""
        self.load('<mail:smtpMailer name="x" username="u" password="s3cr3t" />')
        [info] = [str(each.info) for each in getGlobalSiteManager().registeredUtilities() if each.provided is IMailer]
        self.assertIn('site.zcml", line 3', info)
        self.assertNotIn("s3cr3t", info)


class SeveralRelays(Fixture):
    """One queue, several mailers."""

    BULK = '<mail:smtpMailer name="bulk" hostname="bulk.example" rate="20" connections="2" mailsPerConnection="50" />'

    def test_mail_may_name_them(self) -> None:
        """By name, by an address from the list; others are refused before anything is written."""
        self.load(
            SMTP,
            self.BULK,
            '<mail:queuedDelivery mailer="smtp" mailers="bulk" relays="relay.example:26, [::1]:25" queuePath="q" />',
        )
        delivery = getUtility(IMailDelivery, "Mail")
        arguments = "a@example.org", ["b@example.org"], "Subject: x\n\n"
        for relay in "bulk", "smtp", "relay.example:26", ("relay.example", 26), ("::1", 25), None:
            delivery.send(*arguments, relay=relay)
        transaction.commit()
        self.assertEqual(len(list(open_queue(os.path.join(self.directory, "q")).admin.names())), 6)
        for relay in "other", "evil.example:25", ("relay.example", 25), "a\nb":
            self.assertRaises(InvalidRelay, delivery.send, *arguments, relay=relay)
        transaction.commit()
        self.assertEqual(len(list(open_queue(os.path.join(self.directory, "q")).admin.names())), 6)

    def test_the_processor_knows_the_same(self) -> None:
        """Routes and mailers reach it, with the limits of each relay."""
        self.load(
            '<mail:queuedDelivery mailer="smtp" mailers="bulk" queuePath="q" start="explicit"',
            '  recipientRoutes="@Partner.example=bulk one@example.org=smtp"',
            '  senderRoutes="@lists.example.org=bulk" legacyPasswords="true" />',
            SMTP,
            self.BULK,
        )
        processor = self.declaration().make()
        recipients = {"@partner.example": "bulk", "one@example.org": "smtp"}
        senders = {"@lists.example.org": "bulk"}
        names = frozenset({"smtp", "bulk"})
        self.assertEqual(
            processor.relays.routes, Routes("smtp", names, frozenset(), recipients, senders, legacy_passwords=True)
        )
        self.assertEqual(processor.relays.of(RelayName(mailer="bulk")).limit, 2)
        mailer = self.mailer("bulk")
        self.assertEqual((mailer.rate, mailer.connections, mailer.keep.mails), (20.0, 2, 50))

    def test_an_empty_path_is_refused(self) -> None:
        """It is no wish to have the queue beside the ZCML file."""
        self.assertRefused("queuePath is empty", SMTP, '<mail:queuedDelivery mailer="smtp" queuePath=" " />')

    def test_what_does_not_fit_is_refused(self) -> None:
        """A missing mailer, a route to nowhere, things that are no address and no route."""
        for attributes, said in (
            ('mailers="bulk"', "bulk"),
            ('recipientRoutes="@example.org=bulk"', "leads to none"),
            ('senderRoutes="example.org=smtp"', "write @example.org"),
            ('senderRoutes="@example.org"', "is not a route"),
            ('relays="relay.example"', "is not the address"),
            ('relays="relay.example:0"', "port"),
        ):
            with self.subTest(attributes=attributes):
                self.assertRefused(said, SMTP, f'<mail:queuedDelivery mailer="smtp" {attributes} queuePath="q" />')
                self.assertIsNone(queryUtility(IMailDelivery, "Mail"))
                cleanUp()

    def test_a_direct_delivery_has_one_relay(self) -> None:
        """And says so."""
        self.load(SMTP, '<mail:directDelivery mailer="smtp" />')
        with self.assertRaisesRegex(InvalidRelay, "has one relay"):
            getUtility(IMailDelivery, "Mail").send("a@example.org", "b@example.org", "Subject: x\n\n", relay="smtp")


#: A delivery that leaves to a queue what it cannot send.
DIRECT_LATER = '<mail:directDelivery mailer="smtp" queue="later" />'


def panel() -> dict[str, object]:
    """What a control panel says."""
    return {"hostname": "panel.example", "port": 2525}


class SettingsOfASite(Fixture):
    def test_are_asked_for(self) -> None:
        """By the dotted name of a function."""
        self.load(
            f'<mail:smtpMailer name="smtp" hostname="zcml.example" settings="{__name__}.panel" />',
            f'<mail:lmtpMailer name="lmtp" settings="{__name__}.panel" />',
        )
        self.assertEqual(str(self.mailer().relay_settings()), "panel.example:2525")
        self.assertEqual(self.mailer("lmtp").open_session().relay, "panel.example:2525")
        self.assertEqual(self.mailer().hostname, "zcml.example")

    def test_must_be_a_function(self) -> None:
        """A module, for one, cannot be asked."""
        for kind in ("smtp", "lmtp"):
            self.assertRefused("is not a function", f'<mail:{kind}Mailer name="x" settings="{__name__}" />')


class ADirectDelivery(Fixture):
    QUEUED = '<mail:queuedDelivery name="later" mailer="smtp" queuePath="q" permission="zope.Public" />'

    def test_says_what_a_refusal_means(self) -> None:
        """The others are served, unless it says otherwise."""
        self.load(SMTP, '<mail:directDelivery mailer="smtp" />')
        self.assertEqual(getUtility(IMailDelivery, "Mail").onRefused, "tell")
        cleanUp()
        self.load(SMTP, '<mail:directDelivery mailer="smtp" onRefused="abort" />')
        self.assertEqual(getUtility(IMailDelivery, "Mail").onRefused, "abort")
        self.assertRefused("not one of tell, abort", SMTP, '<mail:directDelivery mailer="smtp" onRefused="x" />')

    def test_names_a_queue_for_what_it_cannot_send(self) -> None:
        """One that is defined before or behind it, with or without a permission."""
        for directives in ([self.QUEUED, DIRECT_LATER], [DIRECT_LATER, self.QUEUED]):
            self.load(SMTP, *directives)
            queued = queued_delivery(getUtility(IMailDelivery, "Mail").queue)
            self.assertEqual(queued.queuePath, os.path.join(self.directory, "q"))
            cleanUp()

    def test_names_no_queue_that_is_none(self) -> None:
        """A missing one, or a direct delivery."""
        for further in ("", '<mail:directDelivery mailer="smtp" name="later" />'):
            self.assertRefused("which is no queued delivery", SMTP, DIRECT_LATER, further)
            cleanUp()

    def test_has_the_mailer_it_names(self) -> None:
        """The delivery speaks through that mailer."""
        self.load(SMTP, '<mail:directDelivery mailer="smtp" />')
        delivery = getUtility(IMailDelivery, "Mail")
        self.assertIsInstance(delivery, DirectMailDelivery)
        self.assertIs(delivery.mailer, self.mailer())

    def test_may_stand_before_its_mailer(self) -> None:
        """The order in the file does not matter."""
        self.load('<mail:directDelivery mailer="smtp" />', SMTP)
        self.assertIs(getUtility(IMailDelivery, "Mail").mailer, self.mailer())

    def test_conflicts_with_a_queued_one_of_its_name(self) -> None:
        """One name is one delivery."""
        with self.assertRaises(ConfigurationConflictError):
            self.load(
                SMTP,
                '<mail:directDelivery mailer="smtp" />',
                '<mail:queuedDelivery mailer="smtp" queuePath="q" />',
            )


class AQueuedDelivery(Fixture):
    def test_may_have_the_spool_of_a_maildrop_daemon(self) -> None:
        """Relative directories begin at the ZCML file as well."""
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="spool:one; /two" start="never" />')
        delivery: QueuedMailDelivery = getUtility(IMailDelivery, "Mail")
        self.assertEqual(delivery.queuePath, f"spool:{self.directory}/one;/two")
        self.assertEqual(delivery.queue.location, delivery.queuePath)
        self.assertIs(delivery.queue, delivery.queue)

    def test_has_its_queue_beside_the_file(self) -> None:
        """A relative path is relative to the ZCML file."""
        self.load(SMTP, '<mail:queuedDelivery name="Bulk" mailer="smtp" queuePath="./queue" />')
        delivery = getUtility(IMailDelivery, "Bulk")
        self.assertIsInstance(delivery, QueuedMailDelivery)
        self.assertEqual(delivery.queuePath, os.path.join(self.directory, "queue"))

    def test_may_stand_before_its_mailer(self) -> None:
        """The order in the file does not matter."""
        self.load('<mail:queuedDelivery mailer="smtp" queuePath="q" />', SMTP)
        self.assertIs(self.declaration().mailer, self.mailer())

    def test_touches_nothing_while_it_is_loaded(self) -> None:
        """Loading starts no thread and makes no directory."""
        before = set(threading.enumerate())  # those of other tests may end
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="q" />')
        self.assertEqual(os.listdir(self.directory), ["site.zcml"])
        self.assertEqual(set(threading.enumerate()) - before, set())

    def test_waits_for_the_database_by_default(self) -> None:
        """Its processor is declared to start with the database, with the processor's own defaults."""
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="q" />')
        self.assertEqual((self.declaration().start, self.how_to_drain()), (Start.DATABASE, {}))

    def test_passes_on_how_to_drain(self) -> None:
        """Interval, concurrency and schedule reach the processor."""
        self.load(
            SMTP,
            '<mail:queuedDelivery mailer="smtp" queuePath="q" start="explicit" interval="1.5"',
            '  concurrency="4" firstRetry="90s" retryFactor="3" maxRetry="2h" lifetime="2d"',
            '  onUnknown="hold" />',
        )
        schedule = Schedule(first=90, factor=3, maximum=7200, lifetime=172800, on_unknown=OnUnknown.HOLD)
        self.assertEqual(self.how_to_drain(), {"interval": 1.5, "concurrency": 4, "schedule": schedule})
        self.assertEqual(self.declaration().start, Start.EXPLICIT)

    def test_may_be_drained_by_somebody_else(self) -> None:
        """The older processorThread="false" means the same as start="never"."""
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="q" processorThread="no" />')
        self.assertEqual(self.declaration().start, Start.NEVER)

    def test_is_refused_if_it_contradicts_itself(self) -> None:
        """No thread, and a thread that starts, are refused."""
        self.assertRefused(
            "start=explicit and processorThread=false contradict",
            SMTP,
            '<mail:queuedDelivery mailer="smtp" queuePath="q" processorThread="no" start="explicit" />',
        )
        self.assertRefused("do not fit", SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="q" firstRetry="1d" />')

    def test_needs_a_queue(self) -> None:
        """Without a path anywhere it is refused, and the text says where to write one."""
        self.assertRefused(
            "queuedDelivery 'Mail' has no queue; give queuePath",
            SMTP,
            '<mail:queuedDelivery mailer="smtp" />',
        )


class AMissingMailer(Fixture):
    def test_is_named_together_with_the_cure(self) -> None:
        """The text says which one, and how to define it."""
        self.assertRefused(
            "Mailer 'smtq' is not defined; add <mail:smtpMailer name=\"smtq\"",
            SMTP,
            '<mail:directDelivery mailer="smtq" />',
        )

    def test_leaves_no_delivery_behind(self) -> None:
        """Not even those that are right are registered then."""
        self.assertRefused(
            "'smtq' is not defined",
            SMTP,
            '<mail:queuedDelivery name="good" mailer="smtp" queuePath="q" />',
            '<mail:queuedDelivery name="bad" mailer="smtq" queuePath="q" />',
        )
        self.assertIsNone(queryUtility(IMailDelivery, "good"))
        self.assertIsNone(queryUtility(IMailDelivery, "bad"))
        self.assertEqual(startup.declared(), [])


class Visitor:
    """A participation of somebody without any permission."""

    principal = object()
    interaction: object = None


class APermission(Fixture):
    def delivery(self, permission: str) -> Any:
        self.load(
            SMTP,
            '<permission id="test.Send" title="Send" />',
            f'<mail:queuedDelivery mailer="smtp" queuePath="q" permission="{permission}" />',
        )
        return ProxyFactory(getUtility(IMailDelivery, "Mail"))

    def test_is_asked_for(self) -> None:
        """Who does not have it cannot send."""
        newInteraction(Visitor())
        self.addCleanup(endInteraction)
        with self.assertRaises(Unauthorized):
            self.delivery("test.Send").send("a@example.org", ["b@example.org"], "")

    def test_may_be_public(self) -> None:
        """zope.Public lets everybody send."""
        newInteraction(Visitor())
        self.addCleanup(endInteraction)
        self.assertTrue(callable(self.delivery("zope.Public").send))

    def test_that_is_not_defined_leaves_no_delivery_behind(self) -> None:
        """A misspelled permission is found before the delivery is registered."""
        with self.assertRaisesRegex(ConfigurationError, "Undefined permission ID"):
            self.delivery("test.Sent")
        self.assertIsNone(queryUtility(IMailDelivery, "Mail"))


class ProductConfig(Fixture):
    """<product-config mail> in zope.conf."""

    def config(self, **texts: str) -> None:
        setProductConfiguration("mail", {name.replace("_", "-"): text for name, text in texts.items()})

    def test_fills_in_what_zcml_leaves_out(self) -> None:
        """Relay, queue and processor can be set without touching ZCML."""
        self.config(queue_path="/var/mail/q", hostname="mx", port="26", interval="9", lifetime="1d", start="explicit")
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" />')
        self.assertEqual((self.mailer().hostname, self.mailer().port), ("mx", 26))
        self.assertEqual(getUtility(IMailDelivery, "Mail").queuePath, "/var/mail/q")
        self.assertEqual(self.how_to_drain(), {"interval": 9.0, "schedule": Schedule(lifetime=86400)})
        self.assertEqual(self.declaration().start, Start.EXPLICIT)

    def test_gives_way_to_zcml(self) -> None:
        """What ZCML says explicitly holds."""
        self.config(queue_path="/var/mail/q", interval="9", start="database", port="26")
        self.load(
            '<mail:smtpMailer name="smtp" port="27" />',
            '<mail:queuedDelivery mailer="smtp" queuePath="/q" interval="1" processorThread="false" />',
        )
        self.assertEqual(self.mailer().port, 27)
        self.assertEqual(self.declaration().queue_path, "/q")
        self.assertEqual(self.how_to_drain(), {"interval": 1.0})
        self.assertEqual(self.declaration().start, Start.NEVER)

    def test_keeps_the_password_out_of_zcml(self) -> None:
        """The login may stand in zope.conf, the relay in ZCML."""
        self.config(username="u", password_file=self.in_directory("password", "secret"))
        self.load('<mail:smtpMailer name="relay" hostname="mx" />')
        self.assertEqual((self.mailer("relay").username, self.mailer("relay").password), ("u", "secret"))

    def test_does_not_tell_its_password_to_another_relay(self) -> None:
        """A mailer for another relay, or another user, gets no password that is not its own."""
        self.config(hostname="mx", username="u", password="secret", tls="required")
        self.load(
            '<mail:smtpMailer name="other" hostname="elsewhere" />',
            '<mail:smtpMailer name="same" hostname="mx" username="v" password="own" />',
        )
        self.assertEqual((self.mailer("other").username, self.mailer("other").password), (None, None))
        self.assertEqual((self.mailer("same").username, self.mailer("same").password), ("v", "own"))
        self.assertRefused("password is missing", '<mail:smtpMailer name="half" hostname="mx" username="v" />')

    def test_does_not_tell_its_token_to_another_user(self) -> None:
        """Nor does a mailer for another user have to log in with the first one's mechanisms."""
        self.config(hostname="mx", username="u", token_command="oama access u", auth="XOAUTH2")
        self.load(
            '<mail:smtpMailer name="theirs" hostname="mx" />',
            '<mail:smtpMailer name="other" hostname="mx" username="v" password="own" />',
        )
        self.assertIsNotNone(self.mailer("theirs").token)
        self.assertEqual((self.mailer("other").token, tuple(self.mailer("other").auth)), (None, ()))

    def test_lets_a_password_go_in_clear(self) -> None:
        """That of the user it is about, and of nobody else."""
        self.config(hostname="mx", username="u", password="secret", allow_clear_password="yes")
        self.load('<mail:smtpMailer name="theirs" />', '<mail:smtpMailer name="other" username="v" password="own" />')
        self.assertTrue(self.mailer("theirs").allow_clear_password)
        self.assertFalse(self.mailer("other").allow_clear_password)

    def test_must_have_whole_paths(self) -> None:
        """A relative path is refused, because nobody knows to what."""
        self.config(queue_path="queue")
        self.assertRefused("queue-path 'queue' is relative", SMTP)
        for name in ("certfile", "keyfile", "token_file"):
            self.config(**{name: "some.pem"})
            self.assertRefused("'some.pem' is relative", SMTP)

    def test_must_not_have_unknown_keys(self) -> None:
        """A misspelled key is refused together with the known ones."""
        self.config(queuepath="/q")
        self.assertRefused(r"<product-config mail>: unknown: queuepath; did you mean queue-path\?; known are: ", SMTP)

    def test_must_have_values_that_can_be_meant(self) -> None:
        """A wrong value is refused with its key and the cure."""
        self.config(first_retry="soon")
        self.assertRefused("<product-config mail>: first-retry: 'soon' is not a duration", SMTP)


class TheSchemas(unittest.TestCase):
    def test_are_where_they_were(self) -> None:
        """Other packages subclass the schemas and use the helpers of zope.sendmail.zcml."""
        for name in ("IDeliveryDirective", "IQueuedDeliveryDirective", "IDirectDeliveryDirective"):
            self.assertTrue(getattr(zcml, name).isOrExtends(zcml.IDeliveryDirective))
        self.assertTrue(zcml.ISMTPMailerDirective.isOrExtends(zcml.IMailerDirective))
        self.assertIs(zcml.SECURITY_SUPPORT, True)

    def test_have_valid_defaults(self) -> None:
        """The documented defaults are values of their fields."""
        for schema in (zcml.IQueuedDeliveryDirective, zcml.IDirectDeliveryDirective, zcml.ISMTPMailerDirective):
            fields = {name: schema[name] for name in schema.names(all=True) if schema[name].default is not None}
            self.assertTrue(fields)
            for name, field in fields.items():
                with self.subTest(schema.__name__, name=name):
                    self.assertIsNone(field.validate(field.default))

    def test_know_no_unknown_settings(self) -> None:
        """A misspelled keyword from Python is an error as well."""
        with self.assertRaisesRegex(TypeError, "unknown: verifi"):
            zcml.smtpMailer(ConfigurationMachine(), "x", verifi=True)


class Helpers(Fixture):
    def test_find_mailers(self) -> None:
        """_get_mailer gives the utility, and says from what a missing one came."""
        mailer = object()
        getGlobalSiteManager().registerUtility(mailer, IMailer, "m")
        self.assertIs(zcml._get_mailer("m"), mailer)
        with self.assertRaises(ConfigurationError) as caught:
            zcml._get_mailer("n")
        self.assertIsInstance(caught.exception.__cause__, ComponentLookupError)

    def test_protect_components(self) -> None:
        """_assertPermission puts a component behind a proxy that still is the component to its users."""
        component = object()
        self.assertIsNot(zcml._assertPermission("zope.Public", Interface, component), component)
        self.assertEqual(zcml._assertPermission("zope.Public", Interface, component), component)


class ThePackage(Fixture):
    def load_package(self) -> None:
        xmlconfig.file("configure.zcml", zope.sendmail, context=self.context())

    def test_registers_what_it_did(self) -> None:
        """Permission, mailer, vocabulary and interface are there as in 7.3."""
        self.load_package()
        permission = getUtility(IPermission, "zope.SendMail")
        self.assertEqual((permission.title, permission.title.domain), ("send-mail-permission", "zope"))
        self.assertEqual((self.mailer().hostname, self.mailer().port), ("localhost", 25))
        self.assertEqual(len(getUtility(IVocabularyFactory, "Mail Delivery Names")(None)), 0)
        self.assertEqual(
            zope.component.interface.getInterface(None, "zope.sendmail.interfaces.IMailDelivery"),
            IMailDelivery,
        )

    def test_starts_with_the_database(self) -> None:
        """The opening of the database reaches what is declared."""
        self.load_package()
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="q" />')
        notify(DatabaseOpenedWithRoot(object()))
        self.assertEqual([each.queuePath for each in startup.running()], [os.path.join(self.directory, "q")])

    def test_starts_with_the_database_also_without_its_configuration(self) -> None:
        """Sites that include only meta.zcml get their mail sent, too."""
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="q" />')
        notify(DatabaseOpenedWithRoot(object()))
        self.assertEqual(len(startup.running()), 1)

    def test_subscribes_once(self) -> None:
        """However many deliveries there are, the database's opening is heard once."""
        self.load_package()
        self.load(SMTP, '<mail:queuedDelivery mailer="smtp" queuePath="q" />')
        heard = [
            each for each in getGlobalSiteManager().registeredHandlers() if each.handler is startup.database_opened
        ]
        self.assertEqual(len(heard), 1)


PROGRAM = """
import sys
sys.modules["zope.security"] = None
sys.modules["zope.app.appsetup"] = None
from zope.configuration import xmlconfig
import zope.component, zope.sendmail
context = xmlconfig.file("meta.zcml", zope.component)
xmlconfig.file("configure.zcml", zope.sendmail, context=context)
load = '<configure xmlns="http://namespaces.zope.org/mail">%s</configure>'
xmlconfig.string(load % '<queuedDelivery name="Mail" mailer="smtp" queuePath="/q" />', context=context)
from zope.component import getUtility
from zope.sendmail.interfaces import IMailDelivery
assert getUtility(IMailDelivery, "Mail").queuePath == "/q"
try:
    xmlconfig.string(load % '<directDelivery name="x" permission="p.q" mailer="smtp" />', context=context)
except Exception as error:
    assert "zope.security is not installed" in str(error), error
else:
    raise AssertionError("the permission was ignored")
"""


class WithoutZopeSecurity(unittest.TestCase):
    def test_everything_but_permissions_works(self) -> None:
        """Only a permission needs zope.security, and it is never silently ignored."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
