"""Postfix; see `zope.sendmail.tests.support.servers`.

It delivers into one Maildir.  With `slow_speech` it offers neither CHUNKING nor PIPELINING, and refuses who
pipelines nevertheless.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from zope.sendmail.tests.support.servers import LIMIT, PASSWORD, USERNAME, Arrival, Server, maildir

_MAIN = """\
compatibility_level = 3.6
maillog_file = /var/log/postfix.log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.test
mydomain = test
mynetworks = 127.0.0.1/32
mydestination =
alias_maps =
virtual_mailbox_domains = static:ALL
virtual_mailbox_maps = static:all/
virtual_mailbox_base = /srv/mail
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
smtpd_tls_cert_file = /srv/cert.pem
smtpd_tls_key_file = /srv/key.pem
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = test
smtpd_sasl_authenticated_header = yes
smtpd_discard_ehlo_keywords = {hidden}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{
    {{tempfail@test.org=451 4.3.0 try again}}, {{nouser@test.org=550 5.1.1 no such user}} }}, permit
smtpd_data_restrictions = reject_unauth_pipelining
message_size_limit = {limit}
smtputf8_enable = yes
smtpd_peername_lookup = no
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{tls_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
error unix - - n - - error
virtual unix - n n - - virtual
"""

_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: /etc/postfix/sasl/sasldb2
mech_list: {mechanisms}
"""

_SASL_WITHOUT_SECRETS = """\
pwcheck_method: alwaystrue
auxprop_plugin: sasldb
sasldb_path: /etc/postfix/sasl/nothing
mech_list: {mechanisms}
"""

_QUEUES = ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"]


class Postfix(Server):
    """See the module."""

    name = "postfix"
    title = "Postfix"
    connected = "]: connect from "
    offers = frozenset({"8bitmime", "auth", "chunking", "pipelining", "size", "smtputf8"})
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256")
    username = f"{USERNAME}@test"

    @classmethod
    def login_shown(cls, mechanism: str) -> str:
        """See `Server`."""
        return f"sasl_method={mechanism}, sasl_username={cls.username}"

    def configure(self) -> None:
        """See `Server`."""
        postfix, postdrop, nobody = map(self.id_of, ("postfix", "postdrop", "nobody"))
        hidden = "chunking, pipelining" if self.slow_speech else ""
        main = self.write("/etc/postfix/main.cf", _MAIN.format(nobody=nobody, limit=LIMIT, hidden=hidden))
        os.utime(main, (0, 0))  # it waits two seconds where it finds a file that was just written
        self.write("/etc/postfix/master.cf", _MASTER.format(port=self.port, tls_port=self.tls_port))
        self.write("/etc/postfix/sasl/smtpd.conf", _SASL.format(mechanisms=" ".join(self.mechanisms)))
        for queue in _QUEUES:
            self.make_directory(f"/var/spool/postfix/{queue}", postfix)
        self.make_directory("/var/spool/postfix/pid", 0, mode=0o755)
        self.make_directory("/var/spool/postfix/maildrop", postfix, postdrop, mode=0o1730)
        self.make_directory("/var/spool/postfix/public", postfix, postdrop, mode=0o2710)
        self.make_directory("/var/lib/postfix", postfix)
        self.make_directory("/var/log", 0, mode=0o755)
        self.make_directory("/srv/mail", nobody, nobody)
        self.certify()
        words = ("saslpasswd2", "-p", "-c", "-f", "/etc/postfix/sasl/sasldb2", "-u", "test", USERNAME)
        subprocess.run(self.chroot(*words), input=PASSWORD.encode(), check=True, capture_output=True)
        (self.root / "etc/postfix/sasl/sasldb2").chmod(0o644)

    def command(self) -> list[str]:
        """See `Server`."""
        return self.chroot("/usr/lib/postfix/sbin/master", "-d", "-c", "/etc/postfix")

    def logs(self) -> list[Path]:
        """See `Server`."""
        return [self.root / "var/log/postfix.log"]

    def arrivals(self) -> list[Arrival]:
        """See `Server`."""
        return maildir(self.home / "mail" / "all", b"X-Original-To:")


class PostfixWithoutSecrets(Postfix):
    """Its Cyrus SASL takes any password that is sent, and can prove none: as where PAM or LDAP knows the passwords."""

    def configure(self) -> None:
        """See `Server`."""
        super().configure()
        self.write("/etc/postfix/sasl/smtpd.conf", _SASL_WITHOUT_SECRETS.format(mechanisms=" ".join(self.mechanisms)))
