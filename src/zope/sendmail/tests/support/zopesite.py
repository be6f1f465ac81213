"""A real Zope on a port that the kernel chooses: its own instance, process and database, nothing left behind.

In it are DTML methods that send mail and views that make a request fail or conflict; see `zopeviews`.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from pathlib import Path

USER = "admin:ad-min"

#: Seconds for what takes a few, on a machine that has a lot to do.
PATIENCE = 300.0

#: Around a proxy that the environment may name: it knows nothing of what runs here.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_SITE = """\
<configure xmlns="http://namespaces.zope.org/zope" xmlns:browser="http://namespaces.zope.org/browser">
  <include package="zope.sendmail.maildrop" />
  <browser:page for="*" name="send-and-conflict" class="zope.sendmail.tests.support.zopeviews.SendAndConflict"
                permission="zope2.View" />
</configure>
"""


class ZopeSite:
    """See the module.  `configurations`: key in zope.conf -> path."""

    def __init__(self, home: str, configurations: dict[str, str]) -> None:
        self.home = Path(home)
        self.url = ""
        self._configurations = configurations
        self._said: deque[str] = deque(maxlen=200)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Make the instance and wait until it serves."""
        self._make()
        code = "import sys; from Zope2.Startup.serve import main; sys.exit(main())"
        self._process = python(code, "-v", str(self.home / "etc/zope.ini"))
        ready = threading.Event()
        threading.Thread(target=self._listen, args=(ready,), name="zope", daemon=True).start()
        if not ready.wait(PATIENCE) or not self.url:
            self.stop()
            raise RuntimeError("Zope does not start:\n" + self.said())

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def ask(self, path: str, **form: str) -> tuple[int, str]:
        """POST a form as the manager, or GET without one; the status and the page."""
        data = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(f"{self.url}/{path}", data)
        request.add_header("Authorization", "Basic " + base64.b64encode(USER.encode()).decode())
        request.add_header("Origin", self.url)
        try:
            with _DIRECTLY.open(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def said(self) -> str:
        """The end of its log."""
        return "".join(self._said)

    def dtml(self, name: str, text: str) -> None:
        """Add a DTML method."""
        status, _ = self.ask("manage_addProduct/OFSP/manage_addDTMLMethod", id=name, title="", file=text)
        assert status == 200, status

    def _make(self) -> None:
        code = "from Zope2.utilities.mkwsgiinstance import main; main()"
        maker = python(code, "-d", str(self.home), "-u", USER, "-p", sys.executable)
        said, _ = maker.communicate(timeout=PATIENCE)
        if maker.returncode:
            raise RuntimeError(f"no Zope instance: {said}")
        lines = "".join(f"  {key} {path}\n" for key, path in self._configurations.items())
        with open(self.home / "etc/zope.conf", "a", encoding="utf-8") as conf:
            conf.write(f"\n<product-config maildrophost>\n{lines}</product-config>\n")
        ini = self.home / "etc/zope.ini"
        ini.write_text(ini.read_text("utf-8").replace("port = 8080", "port = 0"), "utf-8")
        included = self.home / "etc/package-includes"
        included.mkdir()
        (included / "maildrop-configure.zcml").write_text(_SITE, "utf-8")

    def _listen(self, ready: threading.Event) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)
            if served := re.search(r"Serving on (http://127\.0\.0\.1:\d+)", line):
                self.url = served[1]
                ready.set()
        ready.set()


def python(code: str, *args: str) -> subprocess.Popen[str]:
    """Another Python that finds what this one finds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
