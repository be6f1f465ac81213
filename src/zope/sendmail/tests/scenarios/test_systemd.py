"""The unit that is shipped, ``zope-sendmail@.service``, under a real systemd.

It runs in namespaces of its own, as their first process, over an overlay of the directories of this machine: nothing of
it stays.  Only the unit is started, none of the machine's own.  Where that cannot be done, the reason is told.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import unittest
from collections.abc import Callable

import zope.sendmail
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.layers import Servers, in_layer

#: What the drop-in changes: no journal runs here, and no target that would start the machine's own units.
_DROP_IN = "[Unit]\nDefaultDependencies=no\n[Service]\nRestartSec=0\nStandardError=append:/run/log\n"

#: A Python that is not where it was made for does not find its own library.
_LIBRARY = "LD_LIBRARY_PATH=/opt/python/lib"

_SYSTEMD = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")

#: Directories of the machine that are covered, so that what is written below them is not.
_COVERED = ("/etc", "/var/lib", "/opt", "/usr/bin")

_SECONDS = 300.0

_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mount -t tmpfs none /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd none /sys/fs/cgroup/systemd || true
mount -t cgroup2 none /sys/fs/cgroup/unified || mount -t cgroup2 none /sys/fs/cgroup
mkdir /run/covers
for each in {covered}; do
    mkdir -p /run/covers$each/upper /run/covers$each/work
    mount -t overlay overlay -o lowerdir=$each,upperdir=/run/covers$each/upper,workdir=/run/covers$each/work $each
done
mkdir -p /opt/python /opt/site /opt/src /etc/zope-sendmail /run/systemd/system/zope-sendmail@.service.d
mount --bind {python} /opt/python
mount --bind {site} /opt/site
mount --bind {source} /opt/src
echo 'zope-sendmail:x:4711:4711::/nonexistent:/usr/sbin/nologin' >> /etc/passwd
echo 'zope-sendmail:x:4711:' >> /etc/group
cp {made}/zope-sendmail /usr/bin/zope-sendmail
chmod 755 /usr/bin/zope-sendmail
cp {made}/unit /run/systemd/system/zope-sendmail@.service
cp {made}/drop-in /run/systemd/system/zope-sendmail@.service.d/test.conf
cp {made}/shop.ini /etc/zope-sendmail/shop.ini
chmod 755 /etc/zope-sendmail
chmod 644 /etc/zope-sendmail/shop.ini
ln -s /dev/null /run/systemd/system/network-online.target
printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/only.target
export container=test
exec {systemd} --system --unit=only.target --log-target=null --show-status=no
"""

_PROGRAM = """\
#!/opt/python/bin/{python}
import site, sys
sys.path.insert(0, "/opt/src")
site.addsitedir("/opt/site")
from zope.sendmail.cli.app import main
sys.exit(main())
"""


class TheUnitUnderSystemd(unittest.TestCase):
    """One story: what `systemctl` says at each step is what systemd has found out."""

    def setUp(self) -> None:
        systemd = next(filter(os.path.exists, _SYSTEMD), "")
        share = os.path.join(os.path.dirname(__file__), *[os.pardir] * 5, "share", "systemd", "system")
        if os.geteuid() != 0 or not systemd or not shutil.which("unshare") or not shutil.which("nsenter"):
            self.skipTest("root, systemd, unshare and nsenter are needed")
        if not os.path.isdir(share):
            self.skipTest("share/ is not beside the package: this is not a checkout")
        self.relay = self.enterContext(Relay())
        self.made = self.enterContext(tempfile.TemporaryDirectory())
        with open(os.path.join(share, "zope-sendmail@.service"), encoding="utf-8") as file:
            self.write("unit", file.read())
        self.write("drop-in", f"{_DROP_IN}Environment={_LIBRARY}\n")
        self.write("zope-sendmail", _PROGRAM.format(python=f"python{sys.version_info[0]}.{sys.version_info[1]}"))
        self.write("shop.ini", self.settings(self.relay.port))
        self.boot(systemd)

    def settings(self, port: int) -> str:
        return (
            "[app:zope-sendmail]\nqueue_path = /var/lib/zope-sendmail/shop/mail\n"
            f"hostname = 127.0.0.1\nport = {port}\ninterval = 1\n"
        )

    def write(self, name: str, text: str) -> None:
        with open(os.path.join(self.made, name), "w", encoding="utf-8") as file:
            file.write(text)

    def boot(self, systemd: str) -> None:
        """Start systemd; it ends with the process that is told here."""
        [source] = {os.path.dirname(os.path.dirname(path)) for path in zope.sendmail.__path__}
        script = _BOOT.format(
            covered=" ".join(_COVERED),
            python=shlex.quote(sys.base_prefix),
            site=shlex.quote(sysconfig.get_path("purelib")),
            source=shlex.quote(source),
            made=shlex.quote(self.made),
            systemd=systemd,
        )
        before = _groups()
        namespaces = ["--pid", "--fork", "--mount-proc", "--mount", "--cgroup", "--uts", "--ipc", "--kill-child"]
        errors = self.enterContext(open(os.path.join(self.made, "errors"), "w+", encoding="utf-8"))
        process = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )

        def end() -> None:
            process.kill()
            process.wait()
            self.comes(lambda: _removed(_groups() - before))

        self.addCleanup(end)
        self.first = ""

        def runs() -> bool:
            if process.poll() is not None:
                errors.seek(0)
                self.skipTest(f"systemd does not run in namespaces here: {errors.read()[-300:]}")
            with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
                self.first = file.read().strip()
            return bool(self.first) and self.systemctl("is-system-running").stdout.strip() in ("running", "degraded")

        if not self.comes(runs):
            errors.seek(0)
            self.skipTest(f"systemd does not come up in namespaces here: {errors.read()[-300:]}")

    def comes(self, condition: Callable[[], bool]) -> bool:
        """Return whether this comes true in time."""
        until = time.monotonic() + _SECONDS
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def inside(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = ["nsenter", "-t", self.first, "-p", "-m", "-C", "-u", "-i", *words]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=300, check=False)

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.inside("systemctl", "--no-pager", *words)

    def ask(self, name: str) -> str:
        """Return a property of the unit."""
        return self.systemctl("show", "--value", "-p", name, "zope-sendmail@shop").stdout.strip()

    def told(self) -> str:
        """Return what the log has, for a failure."""
        return self.inside("cat", "/run/log").stdout + self.systemctl("status", "zope-sendmail@shop").stdout

    def put(self, recipient: str) -> None:
        """Commit a mail as the owner of the queue."""
        script = (
            "import site, sys; sys.path.insert(0, '/opt/src'); site.addsitedir('/opt/site');"
            "from zope.sendmail.sender import MailWriter;"
            "MailWriter('/var/lib/zope-sendmail/shop/mail').send('s@example.org',"
            f" [{recipient!r}], b'Subject: s\\r\\n\\r\\ntext\\r\\n')"
        )
        python = f"/opt/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
        done = self.inside(
            "setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "env", _LIBRARY, python, "-c", script
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def assertLeaves(self, recipient: str, relay: Relay) -> None:
        """The mail to this address comes to this relay."""
        arrived = self.comes(lambda: any(recipient in mail.recipients for mail in relay.mails))
        self.assertTrue(arrived, self.told() if not arrived else "")

    def test_holds(self) -> None:
        """It starts when it is ready, sends, reloads its settings, comes back after kill -9, and stops in time."""
        started = self.systemctl("start", "zope-sendmail@shop")
        self.assertEqual(started.returncode, 0, started.stderr + self.told())
        self.put("1@example.org")
        self.assertLeaves("1@example.org", self.relay)
        process = self.ask("MainPID")

        with Relay() as other:
            text = self.settings(other.port)
            self.inside("sh", "-c", "cat > /etc/zope-sendmail/shop.ini", given=text)
            self.assertEqual(self.systemctl("reload", "zope-sendmail@shop").returncode, 0)
            number = 0

            def goes_there() -> bool:
                nonlocal number
                number += 1
                self.put(f"reloaded{number}@example.org")
                return bool(other.mails)

            self.assertTrue(self.comes(goes_there), self.told())
            self.assertEqual(self.ask("MainPID"), process)

            self.inside("kill", f"-{signal.SIGKILL:d}", process)
            came_back = self.comes(lambda: self.ask("NRestarts") == "1" and self.ask("ActiveState") == "active")
            self.assertTrue(came_back, self.told())
            self.put("2@example.org")
            self.assertLeaves("2@example.org", other)

            self.assertEqual(self.systemctl("stop", "zope-sendmail@shop").returncode, 0)
            self.assertEqual((self.ask("ActiveState"), self.ask("Result")), ("inactive", "success"), self.told())


def _groups() -> set[str]:
    """Return the control groups of systemd's own trees; it makes some, and leaves them when it is killed."""
    trees = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
    return {path for tree in trees for path, _, _ in os.walk(tree)}


def _removed(groups: set[str]) -> bool:
    """Remove control groups; return whether all are gone: processes that were killed may not be, yet."""
    for path in sorted(groups, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    return not any(map(os.path.exists, groups))


if __name__ == "__main__":
    unittest.main()


load_tests = in_layer(Servers)
