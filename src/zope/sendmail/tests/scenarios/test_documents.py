"""Every block of code and every command in README and docs is run, or says which test does that, or why none can.

Python and commands run as they stand there, in processes of their own.  What they find is near: each host of another
party is a relay of ours, with TLS and a login; ``/etc`` and ``/var`` are directories of the test.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import trustme
import zope.component
import zope.security
from zope.app.appsetup.product import setProductConfiguration
from zope.configuration import xmlconfig
from zope.testing.cleanup import cleanUp

import zope.sendmail
from zope.sendmail.sender import MailWriter
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support import pagenames
from zope.sendmail.tests.support.documents import DOCS, HERE, README, Block, blocks, page_text, pages
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.servers import wait_until

TESTS = Path(__file__).resolve().parents[1]

#: Pages of frameworks that are there, where .ci/switch asks for them: only these, and none may be skipped.
ALONE = os.environ.get("ZOPE_SENDMAIL_PAGES", "").split()

#: Languages whose blocks are run or loaded here; ``text`` is for people.
RUN_HERE = {"python", "shell", "xml", "ini", "apacheconf", "text"}

SITE = '<configure xmlns="http://namespaces.zope.org/zope" xmlns:mail="http://namespaces.zope.org/mail">%s</configure>'

#: What the pages say to ``--config``.
MAIL_INI = """\
[app:zope-sendmail]
queue_path = /var/lib/shop/mail
hostname = mail.example.org
port = 587
username = shop
password_file = /etc/shop/mail-password
"""

#: Pages whose blocks in a language are all run by a test of its own.
RUN_BY = {("howto/operating.rst", "console"): "scenarios.test_night"}

#: Hosts of other parties are here; `python` reads it when it starts.
NEARBY = """
import os, socket
there = socket.getaddrinfo
def nearby(host, port, *args, **options):
    if str(host).endswith((".example.org", ".office365.com", ".gmail.com", ".amazonaws.com")):
        host, port = "127.0.0.1", int(os.environ["RELAY_PORT"])
    return there(host, port, *args, **options)
socket.getaddrinfo = nearby
"""

#: Programs by the names that the pages call them.
PROGRAMS = {
    "zope-sendmail": 'exec "$PYTHON" "$HERE/program.py" "$@"',
    "maildrop": 'exec "$PYTHON" -m zope.sendmail.maildrop.script "$@"',
    "oama": 'test "$1" = access && echo token',
    "pip": 'exec "$PYTHON" -c "$PIP" "$@"',
}  # fmt: skip

#: The command ``zope-sendmail``.  A daemon says where it is; the console, which would serve, reads its arguments only.
PROGRAM = """
import os, sys
from zope.sendmail.cli import app, consolecommand
arguments = [":0" if each == ":9464" else each for each in sys.argv[1:]]
if arguments[0] == "console":
    consolecommand.make_parser().parse_args(arguments[1:])
    sys.exit()
if "--daemon" in arguments:
    with open(os.environ["HERE"] + "/daemon", "w") as file:
        file.write(str(os.getpid()))
sys.argv[1:] = arguments
sys.exit(app.main())
"""

#: The command that reads an ini file, by its section.
READERS = {"app:zope-sendmail": (), "bounces": ("bounce", "--recipient", "news@example.org")}

#: Stands in for pip, which would ask an index: it knows our name and our extras.
PIP = """
import os, re, sys
extras = re.findall(r'^ +"(\\w+)": [A-Z]+,$', open(os.environ["SETUP"]).read(), re.MULTILINE)
command, *requirements = sys.argv[1:]
for requirement in requirements:
    name, _, extra = re.fullmatch(r"([\\w.-]+)(\\[(\\w+)\\])?(?:>=8)?", requirement).groups()
    if command != "install" or name == "zope.sendmail" and extra and extra not in extras:
        sys.exit(f"no such extra: {requirement}")
"""

#: Runs the blocks of a page one behind the other, with the page's names and line numbers.
PYTHON = """
import json, sys, types
sys.modules["page"] = types.ModuleType("page")
names = vars(sys.modules["page"])
before, found, after, names["blocks"] = json.load(sys.stdin)
try:
    exec(before, names)
except ModuleNotFoundError as error:
    print(error)
    sys.exit(77)
for page, line, text in found:
    exec(compile("\\n" * line + text, page, "exec"), names)
exec(after, names)
"""


class Place(unittest.TestCase):
    """A directory with what the pages speak of, and a relay with TLS, a user and a token."""

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("etc/shop", "var/lib/shop", "var/lib/node", "bin", "work/dkim"):
            (self.directory / name).mkdir(parents=True)
        self.write("etc/shop/mail-password", "secret\n")
        self.write("etc/shop/bounce-key", "k" * 40 + "\n")
        self.write("work/FILE", "secret\n")
        self.write("etc/shop/mail.ini", self.placed(MAIL_INI))
        self.write("sitecustomize.py", NEARBY)
        self.write("program.py", PROGRAM)
        for name, script in PROGRAMS.items():
            self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def placed(self, text: str) -> str:
        """Return the text with our directories."""
        text = text.replace("EXAMPLES", repr(str(DOCS / "examples")))
        return re.sub(r"(?<![\w/.])/(etc/shop|var/lib|var/spool)\b", rf"{self.directory}/\1", text)

    def start_relay(self) -> Relay:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        hosts = "mail.example.org", "smtp.office365.com", "smtp.gmail.com", "email-smtp.eu-central-1.amazonaws.com"
        authority.issue_cert(*hosts).configure_cert(context)
        authority.cert_pem.write_to_path(str(self.directory / "ca.pem"))
        users, tokens = {"shop": "secret"}, {"shop@example.org": "token"}
        return self.enterContext(Relay(tls=context, users=users, tokens=tokens))

    def environment(self, relay: Relay) -> dict[str, str]:
        """Return what the programs of a page find in their environment."""
        names = {
            "HERE": self.directory, "PYTHON": sys.executable, "PIP": PIP, "SETUP": HERE / "setup.py",
            "RELAY_PORT": relay.port, "SSL_CERT_FILE": self.directory / "ca.pem", "PYTHONWARNINGS": "ignore",
            "PATH": f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(self.directory), *filter(None, sys.path)]),
        }  # fmt: skip
        return {**os.environ, **{name: str(value) for name, value in names.items()}}


class EachBlock(unittest.TestCase):
    def test_is_run_or_says_why_not(self) -> None:
        """A new one that is neither is an error, and so is a mark that names no test."""
        found = [block for page in pages() for block in blocks(page)]
        self.assertGreater(len(found), 100)
        self.assertEqual([f"{block}: {fault}" for block in found if (fault := self.fault_of(block))], [])

    def fault_of(self, block: Block) -> str:
        """Return what is wrong with how a block is tested; nothing if nothing is."""
        if (block.page, block.language) in RUN_BY:
            return ""
        if block.tested_by:
            path = HERE / block.tested_by
            module = TESTS / f"{block.tested_by.replace('.', '/')}.py"
            return "" if path.is_file() or module.is_file() else f"there is no test {block.tested_by}"
        if block.not_run:
            return "" if len(block.not_run) > 15 else "that is no reason"
        if block.language == "file":
            return "" if self.is_named(block.text) else "no test names this file"
        return "" if block.language in RUN_HERE else f"not run, and no reason why: {block.language or 'no language'}"

    def is_named(self, path: str) -> bool:
        """Return whether a test has the name of this file."""
        name = Path(path).stem
        sources = [*TESTS.rglob("test_*.py"), *(HERE / ".ci").iterdir()]
        texts = (each.read_text(encoding="utf-8") for each in sources if each.is_file())
        return any(re.search(rf'["/]{name}\b', text) for text in texts)


def to_run(page: str, language: str) -> list[Block]:
    """Return the blocks of a page that are run here."""
    return [block for block in blocks(page, language) if not (block.tested_by or block.not_run)]


class Python(Place):
    def test_runs(self) -> None:
        """The blocks of a page follow each other, and send what the page says they send."""
        for page in ALONE or pages():
            if found := to_run(page, "python"):
                with self.subTest(page):
                    self.run_page(page, found)

    def run_page(self, page: str, found: list[Block]) -> None:
        relay = self.start_relay()
        names = pagenames.PAGES.get(page, pagenames.Page())
        shutil.rmtree(self.directory / "var/lib/shop")
        (self.directory / "var/lib/shop").mkdir()
        told = [(block.page, block.line + 1, self.placed(block.text)) for block in found]
        texts = [self.placed(block.text) for block in blocks(page)]
        process = subprocess.run(
            [sys.executable, "-c", PYTHON], cwd=self.directory / "work", env=self.environment(relay),
            input=json.dumps([self.placed(names.before), told, self.placed(names.after), texts]),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if process.returncode == 77 and page not in ALONE:
            self.skipTest(process.stdout.strip())
        self.assertEqual(process.returncode, 0, process.stdout + process.stderr)
        self.assertEqual([mail.recipients[0] for mail in relay.mails], [*names.mails])


class ACommand(unittest.TestCase):
    def test_quotes_urls_that_a_shell_would_change(self) -> None:
        """Some shells refuse a ``?`` that names no file, and ``&`` and ``;`` end a command."""
        unquoted = []
        for page in pages():
            for block in (*blocks(page, "shell"), *blocks(page, "console")):
                text = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'|(?m:(?:^|(?<=\s))#.*$)", "", block.text)
                unquoted += [f"{block}: {url}" for url in re.findall(r"\S+://\S*[?&;*]\S*", text)]
        self.assertEqual(unquoted, [])


class Commands(Place):
    def test_run(self) -> None:
        """With a mail in the queue; a daemon runs until it has sent that."""
        for page in pages():
            for block in to_run(page, "shell"):
                with self.subTest(str(block)):
                    self.run_block(block, block.text)

    def test_of_cron_run(self) -> None:
        """A line of a crontab, without its five fields and its user."""
        for page in pages():
            for block in to_run(page, "text"):
                if line := re.match(r"(?:\S+ +){5}(?:shop +)?(zope-sendmail .*)", block.text):
                    with self.subTest(str(block)):
                        self.run_block(block, line[1])

    def run_block(self, block: Block, text: str) -> None:
        relay = self.start_relay()
        for path in ("var/lib/shop/mail", "work/mail-queue"):
            shutil.rmtree(self.directory / path, ignore_errors=True)
            MailWriter(str(self.directory / path)).send("shop@example.org", ["jane@example.org"], "Subject: x\n\nx\n")
        if foreign := {"openssl", "systemd-analyze"} & set(text.split()):
            missing = [each for each in foreign if not shutil.which(each)]
            if missing:
                self.skipTest(f"not installed: {missing}")
        text = self.placed(re.sub(r"\bDIR\b", str(self.directory / "work/mail-queue"), text))
        daemon = self.directory / "daemon"
        daemon.unlink(missing_ok=True)
        process = subprocess.Popen(
            ["bash", "-euc", text], env=self.environment(relay), cwd=self.directory / "work",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            if "--daemon" in text:
                wait_until(lambda: bool(relay.mails) or process.poll() is not None)
                if process.poll() is None:
                    os.kill(int(daemon.read_text()), signal.SIGTERM)
            output = process.communicate(timeout=300)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        allowed = (
            {0, 1} if "queue doctor" in text else {0}
        )  # it may have something to say about a queue without processor
        self.assertIn(process.returncode, allowed, output)


class Configuration(Place):
    def setUp(self) -> None:
        super().setUp()
        cleanUp()
        self.addCleanup(cleanUp)

    def load(self, text: str) -> None:
        """Load ZCML, with a mailer for each name that it only refers to."""
        named = {name.partition("=")[0] for each in re.findall(r'mailers?="([^"]*)"', text) for name in each.split()}
        missing = named - set(re.findall(r'Mailer\s+name="(\w+)"', text))
        mailers = "".join(f'<mail:smtpMailer name="{name}" />' for name in sorted(missing))
        context = xmlconfig.file("meta.zcml", zope.component)
        for package in zope.security, zope.sendmail:
            xmlconfig.file("meta.zcml", package, context)
        context.basepath = str(self.directory / "work")
        xmlconfig.string(SITE % (mailers + self.placed(text)), context)

    def test_in_zcml_loads(self) -> None:
        """Each fragment alone."""
        self.write("work/partner-password", "secret\n")
        key = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(self.directory / "work/dkim/example.org.pem")]
        subprocess.run(key, check=True, capture_output=True)
        for page in pages():
            for block in to_run(page, "xml"):
                with self.subTest(str(block)):
                    cleanUp()
                    self.load(block.text)

    def test_in_zope_conf_makes_a_mailer(self) -> None:
        """A section for us says all that a mailer and a delivery without attributes need."""
        for page in pages():
            for block in to_run(page, "apacheconf"):
                with self.subTest(str(block)):
                    cleanUp()
                    body = re.fullmatch(r"<product-config mail>\n(.*)</product-config>", block.text, re.DOTALL)
                    assert body is not None
                    lines = (line.split(maxsplit=1) for line in self.placed(body[1]).splitlines())
                    setProductConfiguration("mail", dict(lines))
                    path = "" if "queue-path" in block.text else f'queuePath="{self.directory}/mail"'
                    self.load(f'<mail:smtpMailer name="relay" /><mail:queuedDelivery mailer="relay" {path} />')

    def test_in_ini_files_is_understood(self) -> None:
        """By the command that reads it."""
        for page in pages():
            for block in to_run(page, "ini"):
                with self.subTest(str(block)):
                    config = configparser.ConfigParser(interpolation=None)
                    config.read_string(block.text)
                    [section] = config.sections()
                    path = self.write("etc/shop/page.ini", self.placed(block.text))
                    (self.directory / "var/lib/shop/mail").mkdir(exist_ok=True)
                    self.start(*READERS[section], "--config", str(path))

    def start(self, *arguments: str) -> None:
        """Run the command; a mail that is no bounce comes on its standard input."""
        command = [sys.executable, "-m", "zope.sendmail.cli", *arguments]
        done = subprocess.run(
            command, input="Subject: x\n\nx\n", env=self.environment(self.start_relay()), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        self.assertIn(done.returncode, (0, 1), done.stderr)


class TheEnvironment(unittest.TestCase):
    def test_has_a_page_with_each_name(self) -> None:
        """Those that the code has as constants, and no others."""
        sources = [path for path in (HERE / "src").rglob("*.py") if "tests" not in path.parts]
        pattern = r'^[A-Z_]+ = "((?:ZOPE_SENDMAIL|MAILDROP)_[A-Z_]+)"'
        known = {name for path in sources for name in re.findall(pattern, path.read_text("utf-8"), re.MULTILINE)}
        terms = re.findall(r"^(``.*)$", page_text("reference/environment.rst"), re.MULTILINE)
        described = {name for term in terms for name in re.findall(r"``(\w+)``", term)}
        of_others = {"NOTIFY_SOCKET", "ORIGINAL_RECIPIENT", "RECIPIENT", "LOCAL_PART"}
        self.assertEqual(described, known | of_others)


class TheReadme(unittest.TestCase):
    def test_is_among_the_pages(self) -> None:
        """So its blocks are held to the same."""
        self.assertEqual(pages()[0], README.name)
        self.assertGreater(len(blocks(README.name)), 6)


load_tests = in_layer(Servers)
