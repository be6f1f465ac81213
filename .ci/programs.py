"""What the README shows, in the real FastAPI and Flask, to a real relay; .ci/switch runs it."""

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import flask
from fastapi.testclient import TestClient

from zope.sendmail.sender import MailSender
from zope.sendmail.testing.relay import Relay

#: A program that forks after its sender was made, as servers do that load the application first, and ends at once.
FORKS = """
import os, sys
from zope.sendmail.sender import MailSender
sender = MailSender(sys.argv[1], sys.argv[2], int(sys.argv[3]))
sender.start()
for number in range(4):
    if os.fork() == 0:
        sender.send("shop@example.org", [f"{number}@example.com"], "Subject: Hello\\n\\nText\\n")
        sys.exit()
for _ in range(4):
    os.wait()
"""


def fastapi(directory: str) -> None:
    """The application of docs/howto/asyncio.rst, without coroutines."""
    page = Path("docs/howto/asyncio.rst").read_text(encoding="utf-8")
    text = textwrap.dedent(page.split(".. code-block:: python\n")[2].partition("\n``send()``")[0])
    with Relay() as first, Relay() as second:
        text = text.replace("/var/lib/shop/mail", directory)
        text = text.replace('"mail.example.org"', f'"{first.host}", {first.port}')
        text = text.replace("news.example.org:25", f"{second.host}:{second.port}")
        text = text.replace('hostname="news.example.org"', f'hostname="{second.host}", port={second.port}')
        module: dict = {}
        exec(text, module)  # noqa: S102 - our own page
        with TestClient(module["app"]) as client:
            assert "@" in client.post("/orders/7?customer=jane@example.org").json()
            refused = client.post("/orders/8?customer=nobody%0A@example.org")
            assert (refused.status_code, "nobody" in refused.text) == (422, True), refused.text
            assert client.post("/news?letter=Subject: News", json=["a@example.com", "b@example.com"]).is_success
        assert [mail.recipients for mail in first.mails] == [("jane@example.org",)], first.mails
        assert {mail.sender for mail in second.mails} == {f"news+{who}=example.com@example.org" for who in "ab"}


def wsgi(directory: str) -> None:
    """A handler of Flask."""
    with Relay() as relay:
        application, sender = flask.Flask(__name__), MailSender(directory, relay.host, relay.port)

        @application.post("/orders/<int:number>")
        def order(number: int) -> str:
            return sender.send("shop@example.org", [flask.request.args["customer"]], f"Subject: Order {number}\n\n")

        identifier = application.test_client().post("/orders/8?customer=joe@example.org").text
        assert sender.finish(), "it still sends"
        assert sender.status(identifier).standing == "sent", sender.status(identifier)
        assert [mail.recipients for mail in relay.mails] == [("joe@example.org",)], relay.mails


def forks(directory: str) -> None:
    """Each child's mail leaves once."""
    with Relay() as relay:
        subprocess.run([sys.executable, "-c", FORKS, directory, relay.host, str(relay.port)], check=True)
        assert sorted(mail.recipients for mail in relay.mails) == [(f"{n}@example.com",) for n in range(4)], relay.mails


#: A program under gevent or eventlet, which put green threads in the place of the system's.
GREEN = """
import faulthandler, sys
faulthandler.dump_traceback_later(60, exit=True)
if sys.argv[4] == "gevent":
    from gevent import monkey
    monkey.patch_all()
else:
    import eventlet
    eventlet.monkey_patch()
from zope.sendmail.sender import MailSender, MailWriter
from zope.sendmail.system.greenthreads import GreenThreads
sender = MailSender(sys.argv[1], sys.argv[2], int(sys.argv[3]))
mail = "shop@example.org", [f"{sys.argv[4]}@example.com"], "Subject: Hello\\n\\nText\\n"
if sys.argv[4] == "gevent":
    for _ in range(3):
        sender.send(*mail)
    assert sender.finish(30)
else:
    try:
        sender.send(*mail)
    except GreenThreads:
        MailWriter(sys.argv[1]).send(*mail)
    import transaction
    from zope.sendmail.delivery import DirectMailDelivery
    from zope.sendmail.mailer import SMTPMailer
    DirectMailDelivery(SMTPMailer(sys.argv[2], int(sys.argv[3]))).send(*mail)
    transaction.commit()
"""


def green(directory: str) -> None:
    """gevent drains its queue; eventlet is refused before a mail is written, may write, and sends directly."""
    with Relay() as relay:
        for name in ("gevent", "eventlet"):
            command = [sys.executable, "-W", "ignore", "-c", GREEN, directory, relay.host, str(relay.port), name]
            subprocess.run(command, check=True, timeout=120)
        expected = [("gevent@example.com",)] * 3 + [("eventlet@example.com",)]
        assert [mail.recipients for mail in relay.mails] == expected, relay.mails
        MailSender(directory, relay.host, relay.port).reader.send_waiting()
        assert [mail.recipients for mail in relay.mails][4:] == [("eventlet@example.com",)], relay.mails


for program in fastapi, wsgi, forks, green:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        program(os.path.join(directory, "queue"))
    print(f"{program.__name__}: {program.__doc__} It sends.")
