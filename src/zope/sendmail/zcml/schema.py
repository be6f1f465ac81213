"""The schemas of the ZCML directives: what people read in the API documentation, and what ZCML checks."""

from __future__ import annotations

from typing import Any

from zope.configuration.fields import GlobalObject, Path
from zope.interface import Interface, implementer
from zope.schema import Field, Int, TextLine, ValidationError
from zope.schema.interfaces import IFromUnicode

from zope.sendmail.config.location import DATABASES, SPOOL, directories_of, is_maildir, scheme_of, usable_location
from zope.sendmail.config.options import QUEUE, RELAY, ROUTING, SENDING, Parser, boolean, one_of
from zope.sendmail.directmail import OnRefused
from zope.sendmail.startup import Start

try:
    from zope.security.interfaces import PUBLIC_PERMISSION_NAME
    from zope.security.permission import checkPermission
    from zope.security.zcml import Permission as _Permission

    SECURITY_SUPPORT = True
except ImportError:
    SECURITY_SUPPORT = False

if SECURITY_SUPPORT:

    class Permission(_Permission):  # type: ignore[misc]  # it says nothing about its types
        """The id of a permission.

        The directive checks it when it is executed: the check of zope.security's field stays behind where the
        directive is overridden.
        """

        def _validate(self, value: str) -> None:
            super(_Permission, self)._validate(value)

    def check_permission(permission: str) -> None:
        """Raise `ValueError` for a permission that is not defined."""
        if permission != PUBLIC_PERMISSION_NAME:
            checkPermission(None, permission)
else:
    Permission = TextLine  # type: ignore[misc, assignment]  # the other one needs zope.security

    def check_permission(permission: str) -> None:
        """Say nothing about a permission: without zope.security there is none."""


@implementer(IFromUnicode)
class Setting(Field):
    """An attribute that means the same here as in zope.conf, in an ini file and on the command line."""

    def __init__(self, parse: Parser, *, required: bool = False, **kw: Any) -> None:
        super().__init__(required=required, **kw)
        self.parse = parse

    def fromUnicode(self, value: str) -> Any:
        """See `IFromUnicode`."""
        try:
            return self.parse(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class QueuePath(Path):  # type: ignore[misc]  # it says nothing about its types
    """A directory, or ``spool:`` with directories of MaildropHost's; relative ones begin at the ZCML file."""

    def fromUnicode(self, value: str) -> str:
        """See `IFromUnicode`."""
        if not value.strip():  # it would be the directory of the ZCML file
            raise ValidationError("queuePath is empty; name a directory")
        try:
            directories = directories_of(usable_location(value.strip()))
        except ValueError as error:
            raise ValidationError(str(error)) from None
        if scheme_of(value.strip()) in DATABASES:
            return value.strip()
        paths = [super(QueuePath, self).fromUnicode(each) for each in directories]
        return paths[0] if is_maildir(value.strip()) else SPOOL + ";".join(paths)


class IDeliveryDirective(Interface):
    """A mail delivery."""

    name = TextLine(
        title="Name",
        description="Name under which applications find the delivery.",
        default="Mail",
        required=False,
    )
    mailer = TextLine(title="Mailer", description="Name of the mailer that speaks with the relay.")
    permission = Permission(
        title="Permission",
        description="Permission that is needed to send mail; if omitted, the delivery is not protected.",
        required=False,
    )
    envelopeSender = TextLine(
        title="Envelope sender",
        description="Replaces the sender that applications pass: the one address for bounces.  The headers stay.",
        required=False,
    )
    verpKeyFile = Path(
        title="VERP key file",
        description="A file with a secret that signs the return paths of mail sent with verp=True, so that bounces to "
        "them are no forgeries; see zope-sendmail bounce.",
        required=False,
    )


class IQueuedDeliveryDirective(IDeliveryDirective):
    """A delivery that puts mail into a queue, which a thread of this process or ``zope-sendmail`` drains."""

    queuePath = QueuePath(
        title="Queue path",
        description="Directory of the queue, relative to the ZCML file, or spool: and a spool directory of "
        "MaildropHost, or postgresql://user@host/database?queue=name.  A directory is made with the first mail.",
        required=False,
    )
    connection = GlobalObject(
        title="Connection",
        description="Of a queue in PostgreSQL: dotted name of the application's connection on which mail is written, "
        "so that it commits with the application's rows; see zope.sendmail.queue.postgresql.joining.",
        required=False,
    )
    processorThread = Setting(
        boolean, title="Processor thread", description="The older form: false is start='never'.", default=True
    )
    start = Setting(
        one_of(Start),
        title="Start",
        description="When the thread that drains the queue is started: 'database', when the database is "
        "opened; 'explicit', by zope.sendmail.startup.start(); 'never'.",
        default=Start.DATABASE,
    )
    interval = Setting(
        QUEUE["interval"],
        title="Interval",
        description="Seconds between two looks at the queue when nothing wakes the processor.",
        default=3.0,
    )
    concurrency = Setting(
        QUEUE["concurrency"],
        title="Concurrency",
        description="Connections to a relay at most; if omitted, as many as are worth while, up to 20.  "
        "With 1, mail reaches the relay in the order in which it was committed.",
    )
    firstRetry = Setting(
        QUEUE["first_retry"],
        title="First retry",
        description="Time until the second attempt: seconds, or with s, m, h, d as in 10m.",
        default=60.0,
    )
    retryFactor = Setting(
        QUEUE["retry_factor"],
        title="Retry factor",
        description="By this the time grows with every attempt.",
        default=2.0,
    )
    maxRetry = Setting(
        QUEUE["max_retry"],
        title="Longest retry",
        description="Longest time between two attempts.",
        default=3600.0,
    )
    lifetime = Setting(
        QUEUE["lifetime"],
        title="Lifetime",
        description="After this time a mail is given up, e.g. 5d.",
        default=432000.0,
    )
    onUnknown = Setting(
        QUEUE["on_unknown"],
        title="On unknown",
        description="What to do when it cannot be known whether the relay has a mail: 'resend' or 'hold'.",
        default="resend",
    )
    notifySender = Setting(
        QUEUE["notify_sender"],
        title="Notify sender",
        description="Whether the sender gets a delivery status notification (RFC 3464) about rejected recipients.",
        default=False,
    )
    suppressRefused = Setting(
        QUEUE["suppress_refused"],
        title="Suppress refused",
        description="Whether a recipient that does not exist, as a relay says, gets no mail of this queue any "
        "more: it is put on the suppression list.",
        default=False,
    )
    priority = Setting(
        SENDING["priority"],
        title="Priority",
        description="Of mail whose sender asks for none: 'high', 'normal' or 'low'.",
        default="normal",
    )
    notBefore = Setting(
        SENDING["not_before"],
        title="Not before",
        description="How long after it was handed over mail leaves, if its sender asks for nothing else, e.g. 30s.",
    )
    expires = Setting(
        SENDING["expires"],
        title="Expires",
        description="How long after it was handed over mail is given up, if its sender asks for nothing else, e.g. 2d.",
    )
    keyLifetime = Setting(
        SENDING["key_lifetime"],
        title="Key lifetime",
        description="How long the key of a mail is kept after the mail may have left.",
        default=604800.0,
    )
    keepRejected = Setting(
        QUEUE["keep_rejected"],
        title="Keep rejected",
        description="After this time rejected mail is removed, e.g. 30d.  By default an operator removes it.",
    )

    mailers = Setting(
        ROUTING["mailers"],
        title="Mailers",
        description="Names of further mailers that this queue may use.  Mail may name any of them: send(relay='name').",
    )
    relays = Setting(
        ROUTING["relays"],
        title="Relays",
        description="Addresses (host:port) that mail may name besides.  The password is that of the mailer which is "
        "registered for the address; without one there is none.",
    )
    recipientRoutes = Setting(
        ROUTING["recipient_routes"],
        title="Recipient routes",
        description="pattern=mailer ...: which addresses go to which mailer.  Patterns are addresses, @domain, and "
        "@.domain for all below it.",
    )
    senderRoutes = Setting(
        ROUTING["sender_routes"],
        title="Sender routes",
        description="Likewise for the envelope sender, where no recipient route fits.",
    )
    legacyPasswords = Setting(
        ROUTING["legacy_passwords"],
        title="Legacy passwords",
        description="Use the username and password in queue files of CPSMailAccess, over verified TLS only.",
        default=False,
    )


class IDirectDeliveryDirective(IDeliveryDirective):
    """A delivery that speaks with the relay while the transaction commits."""

    onRefused = Setting(
        one_of(OnRefused),
        title="On refused",
        description="What a recipient that the relay refuses means: 'tell', the others are served, and the log and an "
        "event tell of this one; 'abort', all of them are asked about before the commit, which fails then.",
        default=OnRefused.TELL,
    )
    queue = TextLine(
        title="Queue",
        description="Name of a queued delivery.  It takes what the relay defers and what could not be sent, and a "
        "relay that is down stops no transaction any more.",
        required=False,
    )


class IMailerDirective(Interface):
    """A mailer."""

    name = TextLine(title="Name", description="Name by which deliveries refer to the mailer.")


class ISMTPMailerDirective(IMailerDirective):
    """A mailer that speaks SMTP with one relay."""

    settings = GlobalObject(
        title="Settings",
        description="Dotted name of a function that is asked before each mail: a dict of hostname, port, username, ... "
        "that count instead of what stands here.",
        required=False,
    )

    hostname = TextLine(title="Hostname", description="Name of the relay.", default="localhost", required=False)
    port = Int(title="Port", description="TCP port of the relay.", default=25, required=False)
    username = TextLine(title="Username", description="Username for SMTP AUTH.", required=False)
    password = TextLine(title="Password", description="Password for SMTP AUTH; better: passwordFile.", required=False)
    passwordFile = Path(
        title="Password file", description="File that holds the password and nothing else.", required=False
    )
    tls = Setting(
        RELAY["tls"],
        title="TLS",
        description="'never', 'opportunistic' (if the relay offers it; with a password: required), "
        "'required', or 'implicit' (from the first byte, usually port 465).",
        default="opportunistic",
    )
    no_tls = Setting(boolean, title="No TLS", description="The older form of tls='never'.", default=False)
    force_tls = Setting(boolean, title="Force TLS", description="The older form of tls='required'.", default=False)
    implicit_tls = Setting(
        boolean, title="Implicit TLS", description="The older form of tls='implicit'.", default=False
    )
    verify = Setting(
        boolean,
        title="Verify",
        description="Whether the relay has to prove its name; if omitted, wherever a password goes or TLS is required.",
    )
    cafile = Path(title="CA file", description="File of CA certificates (PEM) instead of the system's.", required=False)
    allowClearPassword = Setting(
        boolean,
        title="Allow clear password",
        description="Let the password go over a connection without TLS.",
        default=False,
    )
    localHostname = Setting(
        RELAY["local_hostname"],
        title="Local hostname",
        description="The name in EHLO; if omitted, this host's name.  What is no host name becomes an address literal.",
    )
    timeout = Setting(RELAY["timeout"], title="Timeout", description="Time to wait for a connection.", default=10.0)
    greetingTimeout = Setting(
        RELAY["greeting_timeout"],
        title="Greeting timeout",
        description="Time to wait for the relay's first words; if omitted, five minutes in a queue, 30 seconds for a "
        "caller that waits.",
    )
    commandTimeout = Setting(
        RELAY["command_timeout"],
        title="Command timeout",
        description="Likewise for the reply to each command.",
    )
    dataTimeout = Setting(
        RELAY["data_timeout"],
        title="Data timeout",
        description="Time until the relay is ready for the message, and for each piece of it to go; if omitted, two "
        "and three minutes in a queue, 30 seconds for a caller that waits.  After the final dot it is ten minutes.",
    )
    tokenCommand = Setting(
        RELAY["token_command"],
        title="Token command",
        description="Instead of a password: a command that prints an OAuth 2 access token, or JSON that holds one; "
        "it is run without a shell.",
    )
    tokenFile = Path(title="Token file", description="Likewise: a file that holds the token now.", required=False)
    auth = Setting(
        RELAY["auth"],
        title="AUTH mechanisms",
        description="Those that are tried, in this order, such as 'SCRAM-SHA-256 PLAIN'; if omitted, those that fit.",
    )
    certfile = Path(
        title="Certificate file",
        description="File of our own certificate and those of its issuers (PEM), for relays that ask for it.",
        required=False,
    )
    keyfile = Path(
        title="Key file", description="File of its key (PEM), unless it is in the same file.", required=False
    )
    tlsMinimum = Setting(
        RELAY["tls_minimum"], title="Least TLS", description="Least version of TLS: '1.2' or '1.3'.", default="1.2"
    )
    notify = Setting(
        RELAY["notify"],
        title="Notify",
        description="What the relay is asked to report to the sender: 'NEVER', or some of 'SUCCESS FAILURE DELAY'; "
        "if omitted, as it likes.",
    )
    notifyReturn = Setting(
        RELAY["notify_return"],
        title="Notify return",
        description="What such a report returns: 'FULL' or 'HDRS'; if omitted, as the relay likes.",
    )
    rate = Setting(RELAY["rate"], title="Rate", description="Mails per second at most; if omitted, any number.")
    sharedRate = Setting(
        RELAY["shared_rate"],
        title="Shared rate",
        description="Mails per second at most, by all processors together that share the queue.",
    )
    connections = Setting(
        RELAY["connections"],
        title="Connections",
        description="Connections that a queue processor may have open at most.",
    )
    mailsPerConnection = Setting(
        RELAY["mails_per_connection"],
        title="Mails per connection",
        description="After so many mails a connection is closed and another one is made.",
        default=1000,
    )
    recipientLimit = Setting(
        RELAY["recipient_limit"],
        title="Recipient limit",
        description="Recipients that the relay is given with one mail at most; the others get it with the next one.  "
        "If omitted, as many as it takes.",
    )
    discardExtensions = Setting(
        RELAY["discard_extensions"],
        title="Discard extensions",
        description="SMTP extensions that are not used although the relay offers them, such as 'PIPELINING CHUNKING'.",
    )


class ILMTPMailerDirective(ISMTPMailerDirective):
    """A mailer that speaks LMTP with a mail store (Dovecot, Cyrus), over TCP or a Unix socket."""

    hostname = TextLine(title="Hostname", description="Name of the store.", default="localhost", required=False)
    port = Int(title="Port", description="TCP port of the store.", default=24, required=False)
    socket = Path(title="Socket", description="Unix socket of the store, instead of these two.", required=False)
