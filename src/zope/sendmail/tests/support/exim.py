"""Exim; see `zope.sendmail.tests.support.servers`.

Where the host has one of its own and none is unpacked, that is used, and root is not needed.  It leaves all mail in its
spool.  With `slow_speech` it offers neither CHUNKING nor PIPELINING, and refuses who pipelines nevertheless.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from zope.sendmail.tests.support.servers import INSIDE, LIMIT, PASSWORD, USERNAME, Arrival, Server, excuse

_SETTINGS = """\
exim_user = {user}
exim_group = {group}
spool_directory = {home}/spool
log_file_path = {home}/log/%slog
pid_file_path = {home}/exim.pid
log_selector = +pipelining +received_recipients +smtp_connection
write_rejectlog = false
primary_hostname = mx.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port} : {tls_port}
daemon_startup_retries = 0
tls_on_connect_ports = {tls_port}
tls_advertise_hosts = *
tls_certificate = {home}/cert.pem
tls_privatekey = {home}/key.pem
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
chunking_advertise_hosts = {hurried}
pipelining_advertise_hosts = {hurried}
smtputf8_advertise_hosts = *
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
message_size_limit = {limit}
queue_only = true
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
begin acl
rcpt:
  deny local_parts = nouser
       message = no such user
  defer local_parts = tempfail
       message = try again
  accept
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{username}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{username}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
cram_md5:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{username}}}{{{password}}}fail}}
  server_set_id = $auth1
"""


class Exim(Server):
    """See the module."""

    name = "exim"
    title = "Exim"
    connected = "(TCP/IP connection count = "
    offers = frozenset({"8bitmime", "auth", "chunking", "pipelining", "size", "smtputf8"})
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5")

    @classmethod
    def excuse(cls) -> str:
        """See `Server`."""
        reason = excuse(cls.name, cls.title)
        return "" if program() else reason

    @classmethod
    def login_shown(cls, mechanism: str) -> str:
        """See `Server`."""
        return f" A={mechanism.lower().replace('-', '_')}:{cls.username} "

    @property
    def inside(self) -> str:
        """See `Server`."""
        return f"{self.root}{INSIDE}" if self._in_place() else INSIDE

    def make_root(self) -> Path:
        """See `Server`."""
        if not self._in_place():
            return super().make_root()
        root = Path(tempfile.mkdtemp(prefix="exim-"))
        root.chmod(0o755)
        return root

    def configure(self) -> None:
        """See `Server`."""
        uid, gid, user, group = self._owner()
        for name in ("spool", "log"):
            self.make_directory(f"{INSIDE}/{name}", uid, gid)
        self.certify(owner=(uid, gid))
        text = _SETTINGS.format(
            home=self.inside,
            user=user,
            group=group,
            port=self.port,
            tls_port=self.tls_port,
            hurried="" if self.slow_speech else "*",
            limit=LIMIT,
            username=USERNAME,
            password=PASSWORD,
        )
        self.write(f"{INSIDE}/exim.conf", text)

    def command(self) -> list[str]:
        """See `Server`."""
        words = ("-bdf", "-C", f"{self.inside}/exim.conf")
        return [program() or "", *words] if self._in_place() else self.chroot("/usr/sbin/exim4", *words)

    def logs(self) -> list[Path]:
        """See `Server`."""
        return sorted((self.home / "log").iterdir())

    def lines(self) -> list[str]:
        """One log line for each message that it took, in order."""
        return [line for line in self.log().splitlines() if " <= " in line]

    def arrivals(self) -> list[Arrival]:
        """See `Server`."""
        spool = {path.name.removesuffix("-D"): path for path in (self.home / "spool" / "input").rglob("*-D")}
        found = []
        for line in self.lines():
            name = line.split(" <= ")[0].split()[-1]
            if name not in spool:  # it has left: a queue run bounced it
                continue
            text = _text(spool[name])
            found += [Arrival(recipient, text) for recipient in line.rpartition(" for ")[2].split()]
        return found

    @staticmethod
    def _in_place() -> bool:
        return bool(excuse("exim", "Exim"))

    def _owner(self) -> tuple[int, int, str, str]:
        """Exim insists on a user of its own when it is started by root."""
        if not self._in_place():
            number = self.id_of("Debian-exim")
            return number, number, "Debian-exim", "Debian-exim"
        user = pwd.getpwnam("Debian-exim") if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
        return user.pw_uid, user.pw_gid, user.pw_name, grp.getgrgid(user.pw_gid).gr_name


def program() -> str | None:
    """The host's own, None if it has none."""
    return shutil.which("exim4") or shutil.which("exim")


def _text(body: Path) -> bytes:
    """A mail in the spool: the header is in another file, each field with its length and a mark before it."""
    header = body.with_name(body.name.removesuffix("D") + "H").read_bytes().partition(b"\n\n")[2]
    fields = []
    while header:
        size = int(header[:3])
        mark, field, header = header[3:4], header[5 : 5 + size], header[5 + size :]
        fields += [field] if mark not in b"P*" else []  # P: Received
    return b"".join(fields) + b"\n" + body.read_bytes().partition(b"\n")[2]
