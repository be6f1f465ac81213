"""Each setting of a relay, wherever an operator or a program can write it: one table, so that none is forgotten."""

from __future__ import annotations

import inspect
import os
import re
import tempfile
import unittest
from collections.abc import Callable, Collection, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

import zope.component
import zope.security
from zope.app.appsetup.product import setProductConfiguration
from zope.component import getUtility
from zope.configuration import xmlconfig
from zope.testing.cleanup import cleanUp

import zope.sendmail
from zope.sendmail.cli.app import ConsoleApp
from zope.sendmail.config.options import RELAY, mailer_keywords
from zope.sendmail.config.settings import Mechanism, Notify, RelaySettings, Tls, TlsVersion
from zope.sendmail.config.tokens import TokenFromCommand, TokenFromFile
from zope.sendmail.errors import InvalidSettings
from zope.sendmail.interfaces import IMailer
from zope.sendmail.maildrop.config import RELAY_OPTIONS, parse_config
from zope.sendmail.maildrop.daemon import make_mailer
from zope.sendmail.mailer import MailerOptions, SMTPMailer
from zope.sendmail.mailer.attributes import MailerAttributes
from zope.sendmail.sender import MailReader, MailSender
from zope.sendmail.zcml.schema import ISMTPMailerDirective

Values = Mapping[str, str]
Effect = Callable[[SMTPMailer], object]

#: Settings without which another one makes no sense.
WITH_PASSWORD = {"username": "u", "password": "p"}
WITH_NAME = {"username": "u"}
WITH_CERTIFICATE = {"certfile": "/x/cert.pem"}


def settings(name: str) -> Effect:
    """Return what reads this attribute of the mailer's relay settings."""
    return lambda mailer: getattr(mailer.relay_settings(), name)


def timeout(name: str) -> Effect:
    """Return what reads one of its times."""
    return lambda mailer: (
        getattr(mailer.relay_settings().timeouts, name),
        getattr(mailer.relay_settings().interactive().timeouts, name),
    )


def token(mailer: SMTPMailer) -> object:
    """Return what the token comes from."""
    provider = mailer.relay_settings().token
    if isinstance(provider, TokenFromCommand):
        return provider.argv
    assert isinstance(provider, TokenFromFile)
    return provider.path


#: Setting, text, what has to be there besides, what is looked at, what it has to be.
TABLE: dict[str, tuple[str, Values, Effect, object]] = {
    "hostname": ("relay.example.org", {}, settings("hostname"), "relay.example.org"),
    "port": ("587", {}, settings("port"), 587),
    "username": ("u", {"password": "p"}, settings("username"), "u"),
    "password": ("secret", WITH_NAME, settings("password"), "secret"),
    "password_file": ("password", WITH_NAME, settings("password"), "of the file"),
    "tls": ("required", {}, settings("tls"), Tls.REQUIRED),
    "no_tls": ("yes", {}, settings("tls"), Tls.NEVER),
    "force_tls": ("yes", {}, settings("tls"), Tls.REQUIRED),
    "implicit_tls": ("yes", {}, settings("tls"), Tls.IMPLICIT),
    "verify": ("yes", {}, settings("verify"), True),
    "cafile": ("/x/ca.pem", {}, settings("cafile"), "/x/ca.pem"),
    "local_hostname": ("shop.example.org", {}, settings("local_hostname"), "shop.example.org"),
    "timeout": ("7s", {}, timeout("connect"), (7.0, 7.0)),
    "greeting_timeout": ("1m", {}, timeout("greeting"), (60.0, 60.0)),
    "command_timeout": ("50", {}, timeout("command"), (50.0, 50.0)),
    "data_timeout": ("2m", {}, timeout("block"), (120.0, 120.0)),
    "allow_clear_password": ("yes", {}, settings("allow_clear_password"), True),
    "token_command": ("oama access u", WITH_NAME, token, ("oama", "access", "u")),
    "token_file": ("/x/token", WITH_NAME, token, "/x/token"),
    "auth": ("login, plain", WITH_PASSWORD, settings("auth"), (Mechanism.LOGIN, Mechanism.PLAIN)),
    "certfile": ("/x/cert.pem", {}, settings("certfile"), "/x/cert.pem"),
    "keyfile": ("/x/key.pem", WITH_CERTIFICATE, settings("keyfile"), "/x/key.pem"),
    "tls_minimum": ("1.3", {}, settings("tls_minimum"), TlsVersion.TLS_1_3),
    "notify": ("FAILURE DELAY", {}, settings("notify"), Notify(("FAILURE", "DELAY"))),
    "notify_return": ("HDRS", {}, settings("notify"), Notify(ret="HDRS")),
    "rate": ("2.5", {}, lambda mailer: mailer.rate, 2.5),
    "shared_rate": ("7.5", {}, lambda mailer: mailer.shared_rate, 7.5),
    "connections": ("3", {}, lambda mailer: mailer.connections, 3),
    "mails_per_connection": ("50", {}, lambda mailer: mailer.relay_settings().keep.mails, 50),
    "recipient_limit": ("100", {}, settings("recipient_limit"), 100),
    "discard_extensions": (
        "PIPELINING chunking",
        {},
        settings("discard_extensions"),
        frozenset({"pipelining", "chunking"}),
    ),
}  # fmt: skip

#: Keywords that `MailSender` has by itself.
_PLACE_AND_LOGIN = {"hostname", "port", "username", "password"}

_SWITCHES = {"no_tls", "force_tls", "implicit_tls", "allow_clear_password", "verify"}

#: What MaildropHost calls these.
_MAILDROP = {
    "hostname": "SMTP_HOST",
    "port": "SMTP_PORT",
    "username": "MAILDROP_LOGIN",
    "password": "MAILDROP_PASSWORD",
    "password_file": "MAILDROP_PASSWORD_FILE",
    "cafile": "MAILDROP_CAFILE",
    "mails_per_connection": "MAILDROP_BATCH",
    **{name: f"MAILDROP_{name.upper()}" for name in RELAY_OPTIONS},
}

#: These have another form there: MAILDROP_TLS, MAILDROP_VERIFY and WAIT_INTERVAL; one connection is the rule.
_NOT_IN_MAILDROP = {
    "tls", "no_tls", "force_tls", "implicit_tls", "verify", "allow_clear_password", "rate", "connections",
}  # fmt: skip


class EverySetting(unittest.TestCase):
    """Each row of `TABLE`, at one place."""

    def setUp(self) -> None:
        cleanUp()
        self.addCleanup(cleanUp)
        self.directory = os.path.realpath(self.enterContext(tempfile.TemporaryDirectory()))
        self.file("password", "of the file\n")

    def file(self, name: str, text: str) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def check(self, make: Callable[[dict[str, str]], SMTPMailer], *, without: Collection[str] = ()) -> None:
        """Let `make` make a mailer of each row."""
        for name in TABLE.keys() - set(without):
            text, others, effect, expected = TABLE[name]
            text = os.path.join(self.directory, text) if name == "password_file" else text
            with self.subTest(name):
                self.assertEqual(effect(make({**others, name: text})), expected)

    def zcml(self, directive: str, texts: Values, product_config: Values | None = None) -> SMTPMailer:
        attributes = " ".join(f"{zcml_name(name)}={quoteattr(text)}" for name, text in texts.items())
        path = self.file(
            "site.zcml",
            '<configure xmlns="http://namespaces.zope.org/zope" xmlns:mail="http://namespaces.zope.org/mail">\n'
            f'<mail:{directive} name="relay" {attributes} />\n</configure>\n',
        )
        cleanUp()
        setProductConfiguration("mail", product_config)
        context = xmlconfig.file("meta.zcml", zope.component)
        context = xmlconfig.file("meta.zcml", zope.security, context=context)
        xmlconfig.file(path, context=xmlconfig.file("meta.zcml", zope.sendmail, context=context))
        mailer: SMTPMailer = getUtility(IMailer, "relay")
        return mailer

    def product_config(self, texts: Values) -> SMTPMailer:
        return self.zcml("smtpMailer", {}, {name.replace("_", "-"): text for name, text in texts.items()})

    def test_is_in_the_table(self) -> None:
        """A new setting needs a row here, so that every place is asked for it."""
        self.assertEqual(set(TABLE), set(RELAY))

    def test_in_zcml(self) -> None:
        """An attribute of mail:smtpMailer."""
        self.check(lambda texts: self.zcml("smtpMailer", texts))

    def test_in_zcml_for_a_mail_store(self) -> None:
        """An attribute of mail:lmtpMailer; TLS from the first byte does not exist there."""
        self.check(lambda texts: self.zcml("lmtpMailer", texts), without={"implicit_tls"})

    def test_in_the_schema(self) -> None:
        """Directives have no attribute that is not a setting."""
        self.assertEqual({*map(zcml_name, RELAY), "name", "settings"}, set(ISMTPMailerDirective))

    def test_in_zope_conf(self) -> None:
        """A key of <product-config mail>, which has `tls` in the place of three switches."""
        self.check(self.product_config, without={"no_tls", "force_tls", "implicit_tls"})

    def test_in_an_ini_file(self) -> None:
        """A line of [app:zope-sendmail]."""

        def make(texts: Values) -> SMTPMailer:
            lines = "\n".join(f"{name} = {text}" for name, text in texts.items())
            ini = self.file("mail.ini", f"[app:zope-sendmail]\nqueue_path = /q\n{lines}\n")
            mailer: SMTPMailer = ConsoleApp(["zope-sendmail", "--config", ini], verbose=False).mailer
            return mailer

        self.check(make)

    def test_on_the_command_line(self) -> None:
        """An option of zope-sendmail."""

        def make(texts: Values) -> SMTPMailer:
            said = [part for name, text in texts.items() for part in option(name, text)]
            mailer: SMTPMailer = ConsoleApp(["zope-sendmail", *said, "/q"], verbose=False).mailer
            return mailer

        self.check(make)

    def test_in_python(self) -> None:
        """A keyword of SMTPMailer, with the files and commands made into what they stand for."""
        self.check(lambda texts: SMTPMailer(**self.keywords(texts)))

    def test_in_what_settings_say(self) -> None:
        """A key of the dict that the mailer's `settings` gives; limits of a processor are the mailer's own."""
        self.check(
            lambda texts: SMTPMailer(settings=lambda: self.keywords(texts)),
            without={"rate", "shared_rate", "connections"},
        )

    def test_in_a_program_without_zope(self) -> None:
        """A keyword of MailSender and of MailReader."""
        directory = os.path.join(self.directory, "queue")
        for kind in (MailReader, lambda *given, **options: MailSender(*given, **options).reader):
            self.check(lambda texts, kind=kind: kind(directory, **self.keywords(texts))._mailer)  # type: ignore[misc]  # bound in this round

    def test_no_keyword_of_a_mailer_is_unknown_to_a_program(self) -> None:
        """Also those that are no settings of an operator, such as `ssl_context`."""
        attributes = {name for name in MailerAttributes.__annotations__ if not name.startswith("_")}
        self.assertEqual(set(MailerOptions.__annotations__), attributes - {"smtp", *_PLACE_AND_LOGIN})
        self.assertLessEqual(_PLACE_AND_LOGIN, set(inspect.signature(MailSender.__init__).parameters))

    def test_of_another_mailer(self) -> None:
        """What is about hostname and port is refused beside a mailer, by name."""
        with self.assertRaisesRegex(InvalidSettings, "tls, cafile: .* give it to the mailer"):
            MailReader(self.directory, mailer=SMTPMailer(), tls="implicit", cafile="/x/ca.pem")

    def test_in_the_configuration_of_maildrop(self) -> None:
        """A key of its own, or one of MaildropHost's."""

        def make(texts: Values) -> SMTPMailer:
            lines = [f'{_MAILDROP[name]} = "{text}"' for name, text in texts.items()]
            return make_mailer(parse_config("\n".join(("MAILDROP_HOME = '/x'", "MAILDROP_TLS = 1", *lines)), "/c"))

        self.check(make, without=_NOT_IN_MAILDROP)

    def test_keywords_have_the_names_of_the_settings(self) -> None:
        """What RelaySettings has, the mailer can be told, under one name everywhere."""
        names = _PLACE_AND_LOGIN | set(MailerOptions.__annotations__)
        values = {field for field in RelaySettings.__slots__ if field not in {"interactive_timeouts"}}
        self.assertLessEqual(values, names)

    def keywords(self, texts: Values) -> dict[str, Any]:
        return mailer_keywords({name: RELAY[name](text) for name, text in texts.items()})


def zcml_name(name: str) -> str:
    """Return the attribute for a setting: camelCase, but for three that are older."""
    if name in {"no_tls", "force_tls", "implicit_tls"}:
        return name
    return re.sub("_(.)", lambda match: match[1].upper(), name)


def option(name: str, text: str) -> list[str]:
    """Return the option of the command line for a setting."""
    flag = f"--{name.replace('_', '-')}"
    return [flag] if name in _SWITCHES else [flag, text]
