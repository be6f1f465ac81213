"""Dovecot; see `zope.sendmail.tests.support.servers`.

It does two things.  As a submission server it wants a login, and gives mail to `behind`, a relay of ours.  As a mail
store it takes mail by LMTP, over TCP and through a Unix socket, for ``one`` and ``two``; ``full`` (552 after the
message) and ``tempfail`` (451 after it) are there as well, ``nouser`` is not.

Tokens (RFC 7519) are signed with a key that it knows, so nobody has to be asked about them.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zope.sendmail.testing.relay import ReceivedMail, Relay
from zope.sendmail.tests.support.servers import (
    LIMIT,
    PASSWORD,
    USERNAME,
    Arrival,
    Server,
    cache,
    hold_ports,
    without_trace,
)

_KEY = b"the key of those who make tokens"

#: The settings of 2.4 are written in another way.
_KNOWN = "2.3."

_SETTINGS = """\
base_dir = /run/dovecot
log_path = /srv/log
protocols = lmtp submission
listen = 127.0.0.1
hostname = mx.test
postmaster_address = postmaster@test.org
default_login_user = dovenull
default_internal_user = dovecot
default_internal_group = dovecot
first_valid_uid = 1
ssl_cert = </srv/cert.pem
ssl_key = </srv/key.pem
auth_mechanisms = {mechanisms}
auth_username_format = %Ln
auth_failure_delay = 0
mail_location = maildir:~/Maildir
mail_plugins = quota
plugin {{
  quota = count:User
  quota_vsizes = yes
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = /srv/oauth2.conf
}}
passdb {{
  driver = passwd-file
  args = /srv/users
}}
userdb {{
  driver = passwd-file
  args = /srv/users
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service lmtp {{
  unix_listener /srv/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    port = {lmtp_port}
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {port}
  }}
  inet_listener submissions {{
    port = {tls_port}
    ssl = yes
  }}
}}
submission_relay_host = {behind.host}
submission_relay_port = {behind.port}
submission_max_mail_size = {limit}
"""

_TOKENS = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix=/srv/keys/
username_attribute = sub
scope = mail
"""

#: Where `full` has room for nothing, and nobody can make a directory for `tempfail`.
_PLACES = {USERNAME: "mail", "one": "mail", "two": "mail", "full": "mail", "tempfail": "no-directory"}
_EXTRA = {"full": "userdb_quota_rule=*:bytes=1"}


class Dovecot(Server):
    """See the module."""

    name = "dovecot"
    title = "Dovecot"
    connected = " submission-login: Info: "
    offers = frozenset({"8bitmime", "auth", "chunking", "pipelining", "size"})
    #: With a password; XOAUTH2 and OAUTHBEARER take tokens.
    mechanisms = ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5")

    @classmethod
    def excuse(cls) -> str:
        """See `Server`."""
        return super().excuse() or ("" if version().startswith(_KNOWN) else f"Dovecot {version()} has other settings")

    @classmethod
    def login_shown(cls, mechanism: str) -> str:
        """See `Server`."""
        return f"Login: user=<{cls.username}>, method={mechanism}, "

    @property
    def lmtp_socket(self) -> str:
        """Where it takes mail as a store."""
        return str(self.home / "lmtp")

    def configure(self) -> None:
        """See `Server`."""
        self.behind = _relay()
        self.behind.start()
        (self.lmtp_port,) = hold_ports(1, self.held)
        nobody = self.id_of("nobody")
        self.certify()
        self.make_directory("/srv/mail", nobody, nobody)
        self.write("/srv/no-directory", "")
        self.write("/srv/users", "".join(_account(name, nobody) for name in _PLACES))
        self.write("/srv/oauth2.conf", _TOKENS)
        self.write("/srv/keys/default/HS256/default", base64.b64encode(_KEY).decode())
        mechanisms = " ".join((*self.mechanisms, "XOAUTH2", "OAUTHBEARER"))
        layout = {"port": self.port, "tls_port": self.tls_port, "lmtp_port": self.lmtp_port, "behind": self.behind}
        self.write("/srv/dovecot.conf", _SETTINGS.format(mechanisms=mechanisms, limit=LIMIT, **layout))

    def command(self) -> list[str]:
        """See `Server`."""
        return self.chroot("/usr/sbin/dovecot", "-F", "-c", "/srv/dovecot.conf")

    def stop(self) -> None:
        """See `Server`."""
        try:
            super().stop()
        finally:
            self.behind.stop()

    def logs(self) -> list[Path]:
        """See `Server`."""
        return [self.home / "log"]

    def arrivals(self) -> list[Arrival]:
        """See `Server`: what was submitted."""
        return [arrival for mail in self.behind.mails for arrival in _arrivals(mail)]

    def stored(self, user: str) -> list[bytes]:
        """The mails in the mailbox of `user`, each as an `Arrival` has it."""
        place = self.home / "mail" / user / "Maildir" / "new"
        return [without_trace(each.read_bytes()) for each in place.glob("*")]


@functools.cache
def version() -> str:
    """Of the unpacked one, such as ``2.3.19.1``."""
    told = subprocess.run(
        ["chroot", cache() / "dovecot", "/usr/sbin/dovecot", "--version"], capture_output=True, text=True, check=False
    )
    return told.stdout.partition(" ")[0]


def token(**claims: Any) -> str:
    """A token for `USERNAME`, valid from 2020 to 2100 unless `claims` say otherwise."""
    usual = {"sub": USERNAME, "scope": "mail", "iat": 1577836800, "exp": 4102444800}
    parts = ({"typ": "JWT", "alg": "HS256"}, {**usual, **claims})
    text = ".".join(map(_encoded, parts))
    return f"{text}.{_base64url(hmac.digest(_KEY, text.encode(), hashlib.sha256))}"


def _encoded(part: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(part).encode())


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def _account(name: str, nobody: int) -> str:
    return f"{name}:{{PLAIN}}{PASSWORD}:{nobody}:{nobody}::/srv/{_PLACES[name]}/{name}::{_EXTRA.get(name, '')}\n"


def _relay() -> Relay:
    relay = Relay()
    relay.on("RCPT", "550 5.1.1 no such user", about="nouser@")
    relay.on("RCPT", "451 4.3.0 try again", about="tempfail@")
    return relay


def _arrivals(mail: ReceivedMail) -> list[Arrival]:
    text = without_trace(mail.data.replace(b"\r\n", b"\n"))
    return [Arrival(recipient, text) for recipient in mail.recipients]
