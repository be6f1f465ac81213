"""The directives of the mailers beyond SMTP."""

from __future__ import annotations

import os
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from zope.app.appsetup.product import setProductConfiguration
from zope.component import getUtility
from zope.configuration.config import ConfigurationConflictError
from zope.interface import Interface
from zope.testing.cleanup import cleanUp

from zope.sendmail.config.tokens import TokenFromCommand
from zope.sendmail.interfaces import IMailDelivery, IMailer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.tests.zcml.test_directives import SMTP, Fixture
from zope.sendmail.transports.dkim import DKIMSigner
from zope.sendmail.transports.failover import BalancedMailer, FailoverMailer
from zope.sendmail.transports.file import FileFormat, FileMailer
from zope.sendmail.transports.program import ProgramMailer
from zope.sendmail.transports.redirect import RedirectMailer
from zope.sendmail.zcml import mailerdirectives as mailer_directives
from zope.sendmail.zcml.schema import ILMTPMailerDirective, IMailerDirective, ISMTPMailerDirective

DOCS = os.path.join(os.path.dirname(__file__), *[os.pardir] * 5, "docs")


def mailer(name: str) -> object:
    return getUtility(IMailer, name)


def _write_key(path: str) -> None:
    """Make a private key."""
    with open(path, "wb") as file:
        key = Ed25519PrivateKey.generate()
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class AProgram(Fixture):
    def test_is_sendmail_by_default(self) -> None:
        """Nothing but a name is needed."""
        self.load('<mail:sendmailMailer name="local" />')
        made = mailer("local")
        assert isinstance(made, ProgramMailer)
        self.assertEqual((made.program, made.options, made.timeout), ("/usr/sbin/sendmail", (), 600.0))

    def test_is_what_the_directive_says(self) -> None:
        """Every attribute arrives; options are separated by blanks, and no shell reads them."""
        self.load(
            '<mail:sendmailMailer name="local" program="/opt/msmtp" options="-C /etc/x $HOME" timeout="2m"',
            '  recipientLimit="1" />',
        )
        made = mailer("local")
        assert isinstance(made, ProgramMailer)
        self.assertEqual((made.program, made.options), ("/opt/msmtp", ("-C", "/etc/x", "$HOME")))
        self.assertEqual((made.timeout, made.recipient_limit), (120.0, 1))

    def test_that_would_ask_the_message_for_recipients_is_refused(self) -> None:
        """While ZCML is loaded, with the cure."""
        self.assertRefused("leave it out", '<mail:sendmailMailer name="local" options="-oi -t" />')


class AFile(Fixture):
    def test_lies_where_the_zcml_is(self) -> None:
        """A relative path is one from the ZCML file; nothing is made by loading."""
        self.load('<mail:fileMailer name="file" path="mails" />')
        made = mailer("file")
        assert isinstance(made, FileMailer)
        self.assertEqual((made.path, made.format), (os.path.join(self.directory, "mails"), FileFormat.MAILDIR))
        self.assertEqual(os.listdir(self.directory), ["site.zcml"])

    def test_may_be_an_mbox_or_standard_output(self) -> None:
        """And nothing else."""
        self.load('<mail:fileMailer name="a" path="mbox" format="mbox" />', '<mail:fileMailer name="b" path="-" />')
        a, b = mailer("a"), mailer("b")
        assert isinstance(a, FileMailer)
        assert isinstance(b, FileMailer)
        self.assertEqual((a.format, b.path), (FileFormat.MBOX, "-"))
        self.assertRefused("'mh' is not one of maildir, mbox", '<mail:fileMailer name="c" path="x" format="mh" />')


class ASigner(Fixture):
    def test_finds_its_keys_where_the_zcml_is(self) -> None:
        """And its mailer by name, wherever that stands."""
        _write_key(os.path.join(self.directory, "ed.pem"))
        self.load(
            '<mail:dkimSigner name="signed" mailer="smtp" keys="example.org=s1:ed.pem a.example=s2:ed.pem" />', SMTP
        )
        made = mailer("signed")
        assert isinstance(made, DKIMSigner)
        self.assertEqual(
            [(key.domain, key.selector) for key in made.keys], [("example.org", "s1"), ("a.example", "s2")]
        )
        self.assertIs(made.mailer, mailer("smtp"))

    def test_without_a_key_is_refused(self) -> None:
        """With what is wrong, and how a key is written."""
        for keys, text in (
            ("", "keys"),
            ("example.org", "is not a key; write example.org=mail2026:"),
            ("example.org=s:nowhere.pem", "nowhere.pem' cannot be read: No such file"),
            ("ex!ample=s:x.pem", "domain 'ex!ample'"),
        ):
            self.assertRefused(text, f'<mail:dkimSigner name="signed" mailer="smtp" keys="{keys}" />', SMTP)


class ADeliveryThatRedirects(Fixture):
    """Its mailer is for staging."""

    REDIRECT = '<mail:redirectMailer name="staging" mailer="smtp" to="t@example.com" />'
    OTHER = '<mail:redirectMailer name="other" mailer="smtp" to="u@example.com" />'
    BOTH = '<mail:failoverMailer name="both" mailers="staging other" />'

    def test_has_no_way_around(self) -> None:
        """Further mailers and addresses are refused by name, with the cure."""
        for default in "staging", "both":
            for more, named in ('mailers="smtp"', "mailer 'smtp'"), ('relays="h.example:25"', "relay h.example:25"):
                delivery = f'<mail:queuedDelivery mailer="{default}" queuePath="q" {more} />'
                self.assertRefused(named, SMTP, self.REDIRECT, self.OTHER, self.BOTH, delivery)

    def test_may_have_others_that_redirect(self) -> None:
        """Each to its own people."""
        delivery = '<mail:queuedDelivery mailer="staging" mailers="other both" queuePath="q" />'
        self.load(SMTP, self.REDIRECT, self.OTHER, self.BOTH, delivery)
        self.assertIsNotNone(getUtility(IMailDelivery, "Mail"))


class ARedirection(Fixture):
    REDIRECT = '<mail:redirectMailer name="staging" mailer="smtp" to="t@example.com u@example.com" allow="@ok.org" />'

    def test_finds_its_mailer_wherever_that_stands(self) -> None:
        """Before or behind it, and a delivery may stand in front of both."""
        delivery = '<mail:directDelivery mailer="staging" />'
        for directives in (delivery, self.REDIRECT, SMTP), (SMTP, self.REDIRECT, delivery):
            self.doCleanups()
            self.setUp()
            self.load(*directives)
            made = mailer("staging")
            assert isinstance(made, RedirectMailer)
            self.assertIsInstance(made.mailer, SMTPMailer)
            self.assertEqual((made.to, set(made.allow)), (("t@example.com", "u@example.com"), {"@ok.org"}))
            self.assertIs(getUtility(IMailDelivery, "Mail").mailer, made)

    def test_without_its_mailer_is_refused(self) -> None:
        """Before any delivery is registered."""
        self.assertRefused("Mailer 'smtp' is not defined", self.REDIRECT, '<mail:directDelivery mailer="staging" />')

    def test_to_nobody_is_refused(self) -> None:
        """And to what is no address."""
        for to, text in ("", "no address to redirect mail to"), ("nobody", "no domain"):
            self.assertRefused(text, SMTP, f'<mail:redirectMailer name="staging" mailer="smtp" to="{to}" />')

    def test_to_itself_is_refused(self) -> None:
        """Also by way of others."""
        circle = '<mail:redirectMailer name="{}" mailer="{}" to="t@example.com" />'
        self.assertRefused("'a' leads back to itself", circle.format("a", "a"))
        self.assertRefused(
            "leads back to itself",
            circle.format("a", "b"),
            '<mail:failoverMailer name="b" mailers="smtp c" />',
            circle.format("c", "a"),
            SMTP,
        )


class SeveralRelays(Fixture):
    TWO = ('<mail:smtpMailer name="one" hostname="one" />', '<mail:smtpMailer name="two" hostname="two" />')

    def test_are_tried_in_the_order_of_their_names(self) -> None:
        """As they stand in the attribute."""
        self.load('<mail:failoverMailer name="both" mailers="two one" />', *self.TWO)
        made = mailer("both")
        assert isinstance(made, FailoverMailer)
        self.assertEqual(made.mailers, (mailer("two"), mailer("one")))

    def test_have_their_weights(self) -> None:
        """One, where nothing is said."""
        self.load('<mail:balancedMailer name="both" mailers="one=3 two" />', *self.TWO)
        made = mailer("both")
        assert isinstance(made, BalancedMailer)
        self.assertEqual(
            [(each.mailer, each.weight) for each in made.members], [(mailer("one"), 3), (mailer("two"), 1)]
        )

    def test_may_have_commas_between_them(self) -> None:
        """As everywhere else where ZCML takes several."""
        self.load(
            '<mail:failoverMailer name="both" mailers="one, two" />',
            '<mail:balancedMailer name="spread" mailers="one=3, two" />',
            '<mail:redirectMailer name="staging" mailer="both" to="a@x.org, b@x.org" allow="x.org, y.org" />',
            *self.TWO,
        )
        both, spread, staging = map(mailer, ("both", "spread", "staging"))
        assert isinstance(both, FailoverMailer)
        assert isinstance(spread, BalancedMailer)
        assert isinstance(staging, RedirectMailer)
        self.assertEqual([len(each) for each in (both.mailers, spread.mailers, staging.to, staging.allow)], [2] * 4)

    def test_are_a_must(self) -> None:
        """Their attributes cannot be left out."""
        for directive, missing in ("failover", "mailers"), ("balanced", "mailers"), ("redirect", "to"):
            more = 'mailer="one"' if directive == "redirect" else ""
            self.assertRefused(f"(?i)missing.*{missing}", *self.TWO, f'<mail:{directive}Mailer name="x" {more} />')

    def test_must_be_there_and_be_named_once(self) -> None:
        """With weights that are some."""
        for text, mailers in (
            ("Mailer 'three' is not defined", "one three"),
            ("none twice", "one one"),
            ("one mailer at least", ""),
        ):
            self.assertRefused(text, *self.TWO, f'<mail:failoverMailer name="both" mailers="{mailers}" />')
        for text, mailers in ("a whole number from 1 on", "one=0"), ("is not a share", "one=x"):
            self.assertRefused(text, *self.TWO, f'<mail:balancedMailer name="both" mailers="{mailers}" />')

    def test_may_stand_behind_a_redirection(self) -> None:
        """Mailers may be made of mailers that are made of mailers; the same relay may be behind two of them."""
        self.load(
            '<mail:redirectMailer name="staging" mailer="any" to="t@example.com" />',
            '<mail:failoverMailer name="any" mailers="both one" />',
            '<mail:balancedMailer name="both" mailers="one two" />',
            *self.TWO,
        )
        made = mailer("staging")
        assert isinstance(made, RedirectMailer)
        self.assertIs(made.mailer, mailer("any"))


class TheNames(Fixture):
    def test_conflict_as_those_of_any_utility(self) -> None:
        """Two mailers of one name."""
        with self.assertRaises(ConfigurationConflictError):
            self.load(SMTP, '<mail:sendmailMailer name="smtp" />')

    def test_leave_those_of_launchpad_free(self) -> None:
        """It defines directives of its own in this namespace, and two definitions of one name conflict."""
        path = os.path.join(os.path.dirname(os.path.dirname(mailer_directives.__file__)), "meta.zcml")
        with open(path, encoding="utf-8") as file:
            ours = set(re.findall(r'name="(\w+)"', file.read()))
        self.assertTrue({"sendmailMailer", "fileMailer"} <= ours)
        self.assertEqual(ours & {"stubMailer", "testMailer", "mboxMailer"}, set())


class TheDocumentation(Fixture):
    def read(self, name: str) -> str:
        """The text of one of the docs; files that it names are in our directory."""
        path = os.path.join(DOCS, name)
        if not os.path.exists(path):
            self.skipTest("the docs are not beside the package: this is not a checkout")
        with open(path, encoding="utf-8") as stream:
            return stream.read().replace("/etc/shop", self.directory).replace("/var/lib/shop", self.directory)

    def test_names_every_attribute(self) -> None:
        """Each directive has a section, and each attribute is in it, or in the pages of SMTP that it points to."""
        parts = re.split(r"^``mail:(\w+)``\n=+\n", self.read("howto/mailers.rst"), flags=re.MULTILINE)
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        attributes = {
            f"{name[1:2].lower()}{name[2:].removesuffix('Directive')}": set(schema.names(all=True)) - {"name"}
            for name, schema in vars(mailer_directives).items()
            if name.endswith("Directive") and isinstance(schema, type(Interface)) and schema is not IMailerDirective
        }
        attributes["lmtpMailer"] = set(ILMTPMailerDirective.names())
        attributes["smtpMailer"] = set(ISMTPMailerDirective.names()) - {"no_tls", "force_tls", "implicit_tls"}
        self.assertEqual(set(sections), set(attributes))
        sections["smtpMailer"] += self.read("howto/authentication.rst")
        for name, expected in attributes.items():
            named = set(re.findall(r'(?:``|[^=]\b)(\w+)(?:``|=")', sections[name]))
            self.assertEqual(expected - named, set(), name)

    def test_has_examples_that_can_be_loaded(self) -> None:
        """All together, as they stand there."""
        examples = re.findall(_EXAMPLE, self.read("howto/mailers.rst"), re.MULTILINE)
        self.assertGreaterEqual(len(examples), 5)
        os.mkdir(os.path.join(self.directory, "dkim"))
        _write_key(os.path.join(self.directory, "dkim", "example.org.pem"))
        self.load(*examples)

    def test_has_logins_that_can_be_loaded(self) -> None:
        """Each alone: they are several ways for one relay."""
        with open(os.path.join(self.directory, "mail-password"), "w", encoding="utf-8") as stream:
            stream.write("secret\n")
        pages = ("authentication", "microsoft365", "gmail", "ses")
        examples = re.findall(_EXAMPLE, "".join(self.read(f"howto/{page}.rst") for page in pages), re.MULTILINE)
        self.assertGreaterEqual(len(examples), 4)
        for example in examples:
            with self.subTest(example):
                cleanUp()
                self.load(example)
                made = mailer("relay")
                assert isinstance(made, SMTPMailer)
                self.assertTrue(made.relay_settings().must_verify)

    def test_has_a_login_for_zope_conf(self) -> None:
        """Which says all that a mailer without attributes needs."""
        [config] = re.findall(
            r"<product-config mail>\n(.*?)</product-config>", self.read("howto/authentication.rst"), re.DOTALL
        )
        said = (line.split(maxsplit=1) for line in config.splitlines() if line.strip())
        setProductConfiguration("mail", dict(said))
        self.load('<mail:smtpMailer name="relay" />')
        made = mailer("relay")
        assert isinstance(made, SMTPMailer)
        self.assertEqual(str(made.relay_settings()), "smtp.office365.com:587")
        self.assertIsInstance(made.token, TokenFromCommand)


#: A mailer in the docs.
_EXAMPLE = r"^ +<mail:\w+Mailer[^>]*/>"
