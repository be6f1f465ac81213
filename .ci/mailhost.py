"""Products.MailHost in a real Zope, with whichever zope.sendmail is installed: run by ``.ci/switch``.

The Zope is made from its own configuration file and asked through its WSGI application, as a browser would ask it.
Fails with the first promise that is not kept; prints how many were.
"""

import base64
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

PASSWORD = "secret"
kept: list[str] = []


def promise(text: str, *, holds: object) -> None:
    """Fail unless it holds."""
    if not holds:
        raise SystemExit(f"not kept: {text}")
    kept.append(text)


def soon(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


class Browser:
    """Asks a WSGI application as the administrator."""

    def __init__(self, application: Any) -> None:
        self.application = application

    def __call__(self, path: str, **form: object) -> tuple[int, str]:
        """Post a form; the status and the page."""
        body = urlencode(form).encode()
        environ = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_AUTHORIZATION": "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode(),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        answer: list[str] = []

        def start_response(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], None]:
            answer.append(status)
            return lambda data: None

        try:
            page = b"".join(self.application(environ, start_response))
        except Exception as error:  # noqa: BLE001 - a bare application lets the server show it
            return 500, f"{type(error).__name__}: {error}"
        return int(answer[0].split()[0]), page.decode("utf-8", "replace")


def make_zope(directory: str) -> Browser:
    """A new instance, started."""
    here = os.path.dirname(sys.executable)
    subprocess.run(
        [os.path.join(here, "mkwsgiinstance"), "-d", directory, "-u", f"admin:{PASSWORD}", "--python", sys.executable],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    from Zope2.Startup.run import make_wsgi_app

    return Browser(make_wsgi_app({}, os.path.join(directory, "etc", "zope.conf")))


class Story:
    """The administrator sets up mail; pages send it."""

    def __init__(self, browser: Browser, relay: Any, directory: str) -> None:
        self.browser = browser
        self.relay = relay
        self.queue = os.path.join(directory, "queue")

    def tell(self) -> None:
        """All of it."""
        self.set_up()
        self.direct()
        self.refused()
        self.immediate()
        self.not_a_queue()
        self.queued()
        self.thread_again()

    def visit(self, who: str) -> int:
        """A page with dtml-sendmail; its status."""
        return self.browser("/page", who=who)[0]

    def got(self, who: str) -> int:
        """How often that mail arrived."""
        return sum(mail.recipients == (f"{who}@example.org",) for mail in self.relay.mails)

    def configure(self, **more: object) -> None:
        """The form of the mail host."""
        usual = {"title": "", "smtp_host": self.relay.host, "smtp_port": self.relay.port}
        status, page = self.browser("/MailHost/manage_makeChanges", **{**usual, **more})
        promise("settings are stored", holds=status < 400 or page)

    def ask(self, question: str) -> str:
        """What the mail host says of itself; Zope shows nothing for False and 0."""
        return self.browser(f"/MailHost/{question}")[1].strip()

    def set_up(self) -> None:
        """A mail host, and a page that sends."""
        status, _ = self.browser("/manage_addProduct/MailHost/manage_addMailHost", id="MailHost", title="")
        promise("a mail host can be added", holds=status < 400)
        self.configure()
        text = (
            '<dtml-sendmail mailhost="MailHost">To: <dtml-var who>@example.org\nFrom: shop@example.org\n'
            "Subject: Hello\n\nText\n</dtml-sendmail>sent"
        )
        add = "/manage_addProduct/OFSP/manage_addDTMLMethod"
        promise("a page can be added", holds=self.browser(add, id="page", title="", file=text)[0] < 400)

    def direct(self) -> None:
        """Without a queue the mail leaves while the request commits."""
        promise("a page sends directly", holds=self.visit("direct") == 200 and self.got("direct") == 1)

    def refused(self) -> None:
        """What the relay refuses is told by an event and the log; the page is what it was, as with 7.3."""
        self.relay.on("RCPT", "550 5.1.1 nobody", about="nobody@")
        promise("a refused recipient stops no page", holds=self.visit("nobody") == 200 and self.got("nobody") == 0)

    def immediate(self) -> None:
        """In Python: at once, whatever the transaction does; or not at all if it aborts."""
        import transaction
        import Zope2

        host = Zope2.app().MailHost
        text = "Subject: x\n\nx\n"
        host.send(text, "immediate@example.org", "shop@example.org", immediate=True)
        host.send(text, "aborted@example.org", "shop@example.org")
        transaction.abort()
        promise("immediate mail is sent at once", holds=self.got("immediate") == 1)
        promise("aborted mail is not sent", holds=self.got("aborted") == 0)

    def not_a_queue(self) -> None:
        """A directory of something else is refused, and nothing is left running."""
        directory = os.path.dirname(self.queue)
        self.configure(smtp_queue="on", smtp_queue_directory=directory)
        promise("it says that this is no queue", holds="not a maildir" in self.ask("queueLength"))
        promise("a page fails then", holds=self.visit("lost") >= 500)
        promise("and starts no thread", holds=self.ask("queueThreadAlive") == "")

    def queued(self) -> None:
        """With a queue a thread sends the mail."""
        self.configure(smtp_queue="on", smtp_queue_directory=self.queue)
        os.environ["MAILHOST_QUEUE_ONLY"] = "1"
        promise("a page queues", holds=self.visit("queued") == 200)
        promise("the queue has one mail", holds=self.ask("queueLength") == "1")
        promise("no thread was started", holds=self.ask("queueThreadAlive") == "")
        del os.environ["MAILHOST_QUEUE_ONLY"]
        self.browser("/MailHost/manage_restartQueueThread", action="start")
        promise("the thread sends what waits", holds=soon(lambda: self.got("queued") == 1))
        promise("the queue is empty", holds=soon(lambda: self.ask("queueLength") in ("", "0")))
        promise("the thread lives", holds=self.ask("queueThreadAlive") == "True")

    def thread_again(self) -> None:
        """It can be stopped and comes back with the next mail."""
        self.browser("/MailHost/manage_restartQueueThread", action="stop")
        promise("the thread can be stopped", holds=self.ask("queueThreadAlive") == "")
        promise("a page queues again", holds=self.visit("again") == 200)
        promise("its mail starts the thread", holds=soon(lambda: self.got("again") == 1))
        self.relay.stop()
        promise("a page queues while the relay is down", holds=self.visit("later") == 200)
        self.relay.start()
        promise("its mail goes when the relay is back", holds=soon(lambda: self.got("later") == 1))
        promise("every mail went once", holds=len(self.relay.mails) == 5)


def main() -> None:
    """Tell the story."""
    from zope.sendmail.testing.relay import Relay

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, Relay() as relay:
        Story(make_zope(os.path.join(directory, "instance")), relay, directory).tell()
        print(f"{len(kept)} promises kept by Products.MailHost in Zope")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
