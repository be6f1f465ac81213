"""One shop for each framework: with what it commits, aborts, meets a relay that is down, and is tested itself.

.ci/switch runs it from the wheel, with the frameworks' names as arguments.
"""

import contextlib
import importlib.util
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from zope.sendmail.sender import MailReader, MailSender
from zope.sendmail.testing.outbox import Outbox
from zope.sendmail.testing.relay import Relay

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
GOOD, BAD = "jane@example.org", "jane@@example.org"


def load(name: str) -> object:
    """An example, as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Situation:
    """A database with a table, a queue, and a relay that may be down."""

    def __init__(self, directory: str, relay: Relay) -> None:
        self.database = os.path.join(directory, "rows.sqlite")
        self.queue = os.path.join(directory, "queue")
        self.relay = relay
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute("create table orders (customer text)")
            connection.commit()

    def rows(self) -> int:
        """How many orders have been committed."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute("select count(*) from orders").fetchone()[0]

    def waits(self) -> int:
        """How many mails are in the queue."""
        return sum(MailSender(self.queue).queue.admin.count().values()) if os.path.exists(self.queue) else 0


def walk(situation: Situation, order, *, has_rows: bool = True) -> None:
    """Order something in each way.

    `order` posts a form and returns the status, 500 for an error.
    """
    relay = situation.relay
    assert order(customer=GOOD, fail="1") == 500
    assert order(customer=BAD) == 422
    assert (situation.waits(), situation.rows(), relay.mails) == (0, 0, []), "something is left of what failed"
    relay.on("GREETING", "421 4.3.2 closed for the night", nth=1)
    assert order(customer=GOOD) == 201
    assert situation.rows() == int(has_rows)
    relay.wait_until(lambda: relay.mails)
    assert [mail.recipients for mail in relay.mails] == [(GOOD,)], relay.mails
    assert b"Subject: Your order" in relay.mails[0].data, relay.mails


def flask(situation: Situation) -> None:
    """Flask with SQLAlchemy."""
    shop = load("flask_shop")
    settings = {"DATABASE": f"sqlite:///{situation.database}", "MAIL_SERVER": situation.relay.host}
    settings |= {"MAIL_PORT": situation.relay.port, "MAIL_QUEUE_PATH": situation.queue}
    app = shop.make_app(**settings)
    client = app.test_client()
    with app.app_context():
        sender = shop.mail.site.sender
    walk(situation, lambda **form: client.post("/orders", data=form).status_code)
    assert sender.finish()
    app = shop.make_app(TESTING=True, **settings)
    with app.app_context():
        assert app.test_client().post("/orders", data={"customer": GOOD}).status_code == 201
        shop.mail.outbox.assert_sent(to=GOOD, subject="Your order")


def fastapi(situation: Situation) -> None:
    """FastAPI with SQLAlchemy's asyncio."""
    from fastapi.testclient import TestClient

    shop = load("fastapi_shop")
    database = f"sqlite+aiosqlite:///{situation.database}"
    sender = MailSender(situation.queue, situation.relay.host, situation.relay.port)
    with TestClient(shop.make_app(database, sender), raise_server_exceptions=False) as client:
        walk(situation, lambda **form: client.post("/orders", params=form).status_code)
    assert sender.finish()
    outbox = Outbox()
    with TestClient(shop.make_app(database, outbox.sender())) as client:
        assert client.post("/orders", params={"customer": GOOD}).status_code == 201
    outbox.assert_sent(to=GOOD, subject="Your order")


def pyramid(situation: Situation) -> None:
    """Pyramid with an explicit transaction manager."""
    from webtest import TestApp

    from zope.sendmail.contrib.pyramid import site_mailer
    from zope.sendmail.contrib.pyramid.testing import outbox

    shop = load("pyramid_shop")
    settings = {"database": f"sqlite:///{situation.database}", "mail.host": situation.relay.host}
    settings |= {"mail.port": str(situation.relay.port), "mail.queue_path": situation.queue}
    app = shop.main({}, **settings)

    def order(**form: str) -> int:
        try:
            return TestApp(app).post("/orders", form, expect_errors=True).status_code
        except ZeroDivisionError:
            return 500

    walk(situation, order)
    assert site_mailer(app.registry).sender.finish()
    tested = shop.main({}, testing="yes", **settings)
    assert TestApp(tested).post("/orders", {"customer": GOOD}).status_code == 201
    outbox(tested.registry).assert_sent(to=GOOD, subject="Your order")
    pyramid_tutorial(situation)


def pyramid_tutorial(situation: Situation) -> None:
    """The commands and the ini file of docs/tutorials/pyramid.rst, in a directory of their own, with our relay."""
    from pyramid.paster import get_app
    from webtest import TestApp

    from zope.sendmail.contrib.pyramid import site_mailer

    page = (EXAMPLES.parent / "tutorials" / "pyramid.rst").read_text(encoding="utf-8")
    [making] = re.findall(r"^ +(python -c .*create table.*)$", page, re.MULTILINE)
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(["sh", "-c", making], check=True, env=environment)
        ini = (EXAMPLES / "pyramid_shop.ini").read_text(encoding="utf-8")
        where = f"mail.host = {situation.relay.host}\nmail.port = {situation.relay.port}"
        assert "mail.host = localhost\nmail.port = 8025" in ini
        Path("pyramid_shop.ini").write_text(ini.replace("mail.host = localhost\nmail.port = 8025", where))
        app = get_app("pyramid_shop.ini")
        before = len(situation.relay.mails)
        client = TestApp(app)
        assert client.post("/orders", {"customer": GOOD}).text == "ordered"
        refused = client.post("/orders", {"customer": "jane@@example.org"}, status=422)
        assert "jane@@example.org" in refused.text
        with contextlib.suppress(ZeroDivisionError):
            client.post("/orders", {"customer": GOOD, "fail": "1"})
        assert site_mailer(app.registry).sender.finish()
        assert len(situation.relay.mails) == before + 1
        with contextlib.closing(sqlite3.connect("shop.sqlite")) as database:
            assert database.execute("select customer from orders").fetchall() == [(GOOD,)]


def django(situation: Situation) -> None:
    """Django, with MAILERS where it knows them."""
    import django as package
    from django.conf import settings

    options = {"host": situation.relay.host, "port": situation.relay.port, "queue_path": situation.queue}
    backend = "zope.sendmail.contrib.django.EmailBackend"
    if package.VERSION >= (6, 1):
        mail = {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    else:
        mail = {"EMAIL_BACKEND": backend, "EMAIL_HOST": options["host"], "EMAIL_PORT": options["port"]}
        mail |= {"ZOPE_SENDMAIL": {"QUEUE_PATH": options["queue_path"]}}
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": situation.database}
    settings.configure(
        DATABASES={"default": database},
        ROOT_URLCONF="django_shop",
        SECRET_KEY=os.urandom(9).hex(),
        ALLOWED_HOSTS=["*"],
        **mail,
    )
    package.setup()
    load("django_shop")
    from django.core import mail as outgoing
    from django.test import Client
    from django.test.utils import setup_test_environment, teardown_test_environment

    from zope.sendmail.contrib.django import global_options, site_of

    client = Client(raise_request_exception=False)
    walk(situation, lambda **form: client.post("/orders", form).status_code)
    assert site_of(options if package.VERSION >= (6, 1) else global_options()).mailer.sender.finish()
    setup_test_environment()
    assert client.post("/orders", {"customer": GOOD}).status_code == 201
    assert [message.to for message in outgoing.outbox] == [[GOOD]]
    teardown_test_environment()


def wsgi(situation: Situation) -> None:
    """A bare WSGI application."""
    import io

    import transaction

    shop = load("wsgi_shop")

    def order_of(sender: object):
        app = shop.make_app(sender)

        def order(**form: str) -> int:
            body = "&".join(f"{name}={value}" for name, value in form.items()).encode()
            started: list[str] = []
            environ = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
            try:
                list(app(environ, lambda status, headers: started.append(status)))
            except ZeroDivisionError:
                return 500
            return int(started[0].split()[0])

        return order

    relay = situation.relay
    with MailSender(situation.queue, relay.host, relay.port, transaction_manager=transaction.manager) as sender:
        walk(situation, order_of(sender), has_rows=False)
    outbox = Outbox()
    assert order_of(outbox.sender(transaction_manager=transaction.manager))(customer=GOOD) == 201
    outbox.assert_sent(to=GOOD, subject="Your order")


def celery(situation: Situation) -> None:
    """A worker of Celery with two processes."""
    relay, directory = situation.relay, os.path.dirname(situation.queue)
    for name in ("in", "control"):
        os.mkdir(os.path.join(directory, name))
    config = "celery_config"
    folders = dict.fromkeys(("data_folder_in", "data_folder_out"), f"{directory}/in")
    folders["control_folder"] = f"{directory}/control"
    Path(directory, f"{config}.py").write_text(f"broker_transport_options = {folders!r}\n", encoding="utf-8")
    os.environ.update(BROKER="filesystem://", CELERY_CONFIG=config, MAIL_QUEUE=situation.queue)
    sys.path.insert(0, directory)
    shop = load("celery_shop")
    for number in range(4):
        shop.confirm.delay(f"{number}@example.org", fail=number == 3)
    command = [sys.executable, "-m", "celery", "-A", "celery_shop", "worker", "-c", "2", "-l", "ERROR"]
    paths = os.pathsep.join((str(EXAMPLES), directory, *sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "C_FORCE_ROOT": "1"}
    worker = subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.DEVNULL)
    try:
        with MailReader(situation.queue, relay.host, relay.port):  # what zope-sendmail --daemon is
            relay.wait_until(lambda: len(relay.mails) == 3, 60)
    finally:
        worker.terminate()
        worker.wait(60)
    assert sorted(mail.recipients for mail in relay.mails) == [(f"{n}@example.org",) for n in range(3)], relay.mails
    assert situation.waits() == 0, "mail of the task that failed is left"


for name in sys.argv[1:]:
    program = globals()[name]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, Relay() as relay:
        program(Situation(directory, relay))
    print(f"{name}: {program.__doc__} Commits, aborts, waits for a relay, and is tested with an outbox.", flush=True)
