"""What stands around the code on a page: names that it uses, what is done with it afterwards, who gets mail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """Code to run before and after the blocks of a page, and the first recipients of the mails that they send."""

    before: str = ""
    after: str = ""
    mails: tuple[str, ...] = ()


_MESSAGE = """
from email.message import EmailMessage
message = letter = EmailMessage()
message["From"], message["To"], message["Subject"] = "shop@example.org", "jane@example.org", "Your order"
message.set_content("Thank you!")
customer, readers = "jane@example.org", ["jane@example.org"]
"""

#: A delivery for a transaction, with a key for what bounces to it; nothing is sent.
_DELIVERY = """
import transaction
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.message.verpkey import VerpKey
secret = b"k" * 40
delivery = QueuedMailDelivery("/var/lib/shop/mail")
delivery.verp_key = VerpKey(secret)
queue = delivery.queue
"""

#: Sends what the page has put into its queue.
_DRAIN = """
from zope.sendmail.sender import MailSender
with MailSender("/var/lib/shop/mail", "mail.example.org", 587, username="shop", password="secret"):
    pass
"""

_EXAMPLE = """
import sys
sys.path.insert(0, EXAMPLES)
"""

JANE = "jane@example.org"

PAGES = {
    "howto/asyncio.rst": Page(
        f"from fastapi import FastAPI\nfrom fastapi.testclient import TestClient\n{_MESSAGE}",
        """
with TestClient(app) as client:
    assert client.post("/orders?customer=jane@example.org").is_success
""",
        (JANE,),
    ),
    "howto/bounces.rst": Page(
        f"""{_MESSAGE}{_DELIVERY}
message, return_path = message.as_bytes(), ""
def make_letter(reader):
    letter = EmailMessage()
    letter["From"] = "news@example.org"
    letter.set_content("News")
    return letter
""",
        f"transaction.commit()\n{_DRAIN}",
        (JANE, JANE),
    ),
    "howto/console.rst": Page(
        """
from pyramid.config import Configurator
from flask import Flask
config = Configurator()
app = Flask("shop")
from zope.sendmail.console import Console
""",
        """
config.make_wsgi_app()
answer = app.test_client().get("/ops/mail/", follow_redirects=True)
assert answer.status_code == 200, answer.data
""",
    ),
    "howto/django.rst": Page(
        "from django.urls import path",
        """
from django.conf import settings
settings.configure(EMAIL_BACKEND=EMAIL_BACKEND, EMAIL_HOST=EMAIL_HOST, EMAIL_PORT=EMAIL_PORT,
    EMAIL_HOST_USER=EMAIL_HOST_USER, ZOPE_SENDMAIL=ZOPE_SENDMAIL, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
import django
django.setup()
from django.core.mail import get_connection, send_mail
send_mail("Order", "Thank you!", "shop@example.org", ["jane@example.org"])
for pattern in urlpatterns:
    assert callable(pattern.callback)
"""
        + _DRAIN,
        (JANE,),
    ),
    "howto/flask.rst": Page(
        f"""{_MESSAGE}
from flask import Flask
app = Flask("shop")
settings = {{}}
exec(next(each for each in blocks if each.startswith("MAIL_SERVER")), settings)
app.config.from_mapping({{name: value for name, value in settings.items() if name.isupper()}})
app.app_context().push()
@app.post("/orders")
def order():
    return mail.send("shop@example.org", ["jane@example.org"], message)
""",
        f"""
{_DRAIN}
app.config["TESTING"] = True
mail = Mail(app)
test_order(app, app.test_client())
""",
        (JANE,),
    ),
    "howto/mailers.rst": Page(
        "PASSWORD = 'secret'",
        "sender.finish(30)  # the store is not there",
        ("jane@example.com",),
    ),
    "howto/messages.rst": Page(
        f"""{_EXAMPLE}{_DELIVERY}
from letter import make_letter
customer, logo, invoice = "jane@example.org", b"x", b"x"
""",
        f"transaction.commit()\n{_DRAIN}",
        (JANE,),
    ),
    "howto/pyramid.rst": Page(
        f"""{_MESSAGE}
import functools, pyramid_tm
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest
from webtest import TestApp
[found] = [each for each in blocks if each.startswith("mail.host")]
settings = dict(line.split(" = ") for line in found.splitlines())
config = Configurator(settings={{**settings, "mail.start": "never"}})
def prepared(settings, *includes):
    made = Configurator(settings=settings)
    for each in includes:
        made.include(each)
    made.add_route("order", "/orders")
    made.add_view(lambda request: order(request) or request.response, route_name="order")
    return made.make_wsgi_app()
registry = config.registry
class Later:  # the application with the view, made when it is used
    @functools.cached_property
    def made(self):
        return TestApp(prepared({{}}, "pyramid_tm", "zope.sendmail.contrib.pyramid.testing"))
    def __getattr__(self, name):
        return getattr(self.made, name)
app = Later()
""",
        _DRAIN,
        (JANE,),
    ),
    "howto/sqlalchemy.rst": Page(
        f"""{_MESSAGE}
import sqlalchemy
from sqlalchemy.orm import Session, declarative_base
from zope.sendmail.sender import MailWriter
Base = declarative_base()
class Order(Base):
    __tablename__ = "orders"
    number = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
    customer = sqlalchemy.Column(sqlalchemy.String)
engine = sqlalchemy.create_engine("sqlite://")
Base.metadata.create_all(engine)
order = Order(customer=customer)
sender = MailWriter("/var/lib/shop/mail")
""",
        _DRAIN,
        (JANE,),
    ),
    "howto/relays.rst": Page(
        _MESSAGE,
        "assert sender.finish(30)",
        (JANE, JANE),
    ),
    "howto/bulk.rst": Page(
        "secret, readers = b'k' * 40, ['jane@example.org', 'joe@example.org']",
        _DRAIN.replace("/mail", "/news"),
        (JANE, "joe@example.org"),
    ),
    "howto/staging.rst": Page(after="assert sender.finish(30)", mails=("testers@example.org",)),
    "howto/testing.rst": Page(
        f"""{_MESSAGE}
class make_shop:
    def __init__(self, sender):
        self.sender = sender
    def order(self, customer):
        self.sender.send("shop@example.org", [customer], message)
""",
    ),
}
