"""OpenSMTPD; see `zope.sendmail.tests.support.servers`.

It knows neither PIPELINING nor CHUNKING nor SMTPUTF8, and hangs up on who sends a command before its reply.
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

from zope.sendmail.tests.support.servers import LIMIT, PASSWORD, USERNAME, Arrival, Server, cache, maildir

_SETTINGS = """\
pki mx.test cert "/srv/cert.pem"
pki mx.test key "/srv/key.pem"
smtp max-message-size "{limit}"
table users {{ "{username}" = "{password}" }}
table nouser {{ "nouser@test.org" }}
table tempfail {{ "tempfail@test.org" }}
filter nouser phase rcpt-to match rcpt-to <nouser> reject "550 5.1.1 no such user"
filter tempfail phase rcpt-to match rcpt-to <tempfail> reject "451 4.3.0 try again"
filter mixed chain {{ nouser, tempfail }}
listen on 127.0.0.1 port {port} hostname mx.test {tls} auth-optional <users> filter mixed
listen on 127.0.0.1 port {tls_port} hostname mx.test {smtps} auth-optional <users> filter mixed
action "store" maildir "/srv/mail" user nobody virtual {{ "@" = "nobody" }}
match from any for any action "store"
"""

_FIRST_WITH_TLS = (7, 0)


class OpenSMTPD(Server):
    """See the module."""

    name = "opensmtpd"
    title = "OpenSMTPD"
    connected = " smtp connected "
    offers = frozenset({"8bitmime", "auth", "size"})
    mechanisms = ("PLAIN", "LOGIN")

    @classmethod
    def excuse_for_tls(cls) -> str:
        """See `Server`."""
        if cls.excuse() or version() >= _FIRST_WITH_TLS:
            return ""
        return f"STARTTLS does not work in OpenSMTPD {'.'.join(map(str, version()))} with OpenSSL 3"

    @classmethod
    def login_shown(cls, mechanism: str) -> str:
        """See `Server`: the mechanism is not shown."""
        return f" smtp authentication user={cls.username} result=ok"

    def configure(self) -> None:
        """See `Server`."""
        nobody = self.id_of("nobody")
        self.make_directory("/var/spool/smtpd", 0, mode=0o711)
        self.make_directory("/srv/mail", nobody, nobody)
        self.certify()
        self.write("/etc/ssl/certs/ca-certificates.crt", (self.home / "cert.pem").read_text())  # it insists
        words = self.chroot("/usr/sbin/smtpctl", "encrypt", PASSWORD)
        hashed = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        layout = {"port": self.port, "tls_port": self.tls_port, "tls": "tls pki mx.test", "smtps": "smtps pki mx.test"}
        text = _SETTINGS.format(limit=LIMIT, username=USERNAME, password=hashed, **layout)
        self.write("/srv/smtpd.conf", text)

    def command(self) -> list[str]:
        """See `Server`."""
        return self.chroot("/usr/sbin/smtpd", "-d", "-f", "/srv/smtpd.conf")

    def logs(self) -> list[Path]:
        """See `Server`: it has none but its output."""
        return []

    def arrivals(self) -> list[Arrival]:
        """See `Server`."""
        return maildir(self.home / "mail", b"Delivered-To:")


@functools.cache
def version() -> tuple[int, ...]:
    """Of the unpacked one, such as (7, 4)."""
    told = subprocess.run(["chroot", cache() / "opensmtpd", "/usr/sbin/smtpd", "-h"], capture_output=True, check=False)
    found = re.search(rb"OpenSMTPD (\d+)\.(\d+)", told.stderr + told.stdout)
    return tuple(map(int, found.groups())) if found else ()
