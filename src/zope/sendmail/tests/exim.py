"""A real Exim on free ports of this host, with a folder of its own; nothing is installed or left behind.

It takes mail for everybody but ``nouser`` (550) and ``tempfail`` (451), and logs who pipelined and chunked.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from zope.sendmail.tests.conversation import authority

USERNAME, PASSWORD = "mailer", "s3cret"

_SETTINGS = """\
exim_user = {user}
exim_group = {group}
spool_directory = {home}/spool
log_file_path = {home}/log/%slog
pid_file_path = {home}/exim.pid
log_selector = +pipelining +received_recipients
write_rejectlog = false
primary_hostname = mx.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port} : {tls_port}
tls_on_connect_ports = {tls_port}
tls_advertise_hosts = *
tls_certificate = {home}/cert.pem
tls_privatekey = {home}/key.pem
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
chunking_advertise_hosts = {chunking}
smtputf8_advertise_hosts = *
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
message_size_limit = 1M
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
"""


def program() -> str | None:
    """Where it is, None if this host has none."""
    return shutil.which("exim4") or shutil.which("exim")


class Exim:
    """See the module.  `chunking`: whether it offers that."""

    host = "127.0.0.1"

    def __init__(self, *, chunking: bool = True) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="exim-"))
        self.home.chmod(0o755)
        self.port, self.tls_port = _free_ports(2)
        user = _owner()
        for name in ("spool", "log"):
            (self.home / name).mkdir()
            os.chown(self.home / name, user.pw_uid, user.pw_gid)
        certificate = authority().issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(str(self.home / "key.pem"))
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(str(self.home / "cert.pem"), append=True)
        os.chown(self.home / "key.pem", user.pw_uid, user.pw_gid)
        text = _SETTINGS.format(
            home=self.home,
            user=user.pw_name,
            group=grp.getgrgid(user.pw_gid).gr_name,
            port=self.port,
            tls_port=self.tls_port,
            chunking="*" if chunking else "",
            username=USERNAME,
            password=PASSWORD,
        )
        (self.home / "exim.conf").write_text(text)

    def start(self) -> None:
        """Return when it listens.  Raises `RuntimeError` with its own words."""
        output = (self.home / "output").open("wb")
        with output:
            self._process = subprocess.Popen(
                [program() or "exim4", "-bdf", "-C", str(self.home / "exim.conf")], stdout=output, stderr=output
            )
        until = time.monotonic() + 10.0
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(self.log())
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._process.terminate()
        self._process.wait(10.0)
        shutil.rmtree(self.home)

    def log(self) -> str:
        """All that it wrote down."""
        files = [self.home / "output", *sorted((self.home / "log").iterdir())]
        return "\n".join(each.read_text(errors="replace") for each in files)

    def arrivals(self) -> list[str]:
        """One log line for each message that it took."""
        return [line for line in self.log().splitlines() if " <= " in line]

    def texts(self) -> list[bytes]:
        """The bodies in its spool, in order of arrival, without the name in the first line."""
        files = {path.name[:-2]: path for path in (self.home / "spool" / "input").rglob("*-D")}
        names = [line.split(" <= ")[0].split()[-1] for line in self.arrivals()]
        return [files[name].read_bytes().partition(b"\n")[2] for name in names]

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.tls_port), 1.0).close()
            return True
        return False


def _owner() -> pwd.struct_passwd:
    """Exim insists on a user of its own when it is started by root."""
    return pwd.getpwnam("Debian-exim") if os.geteuid() == 0 else pwd.getpwuid(os.getuid())


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
