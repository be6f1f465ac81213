"""A shop that keeps its orders in ZODB: an order and its mail are there both, or neither."""

from contextlib import closing
from email.message import EmailMessage
from html import escape
from urllib.parse import parse_qs

import transaction
from zope.app.wsgi import config
from zope.component import getUtility

from zope.sendmail.interfaces import IMailDelivery, InvalidMail

database = config("zope.conf")  # reads site.zcml, and opens the database, which starts what sends

PAGE = """<!DOCTYPE html><title>Shop</title><h1>Shop</h1><p>{}</p>
<form method="post"><label>Your address <input name="customer"></label> <button>Order</button></form>"""


def application(environ, start_response):
    status, text = "200 OK", "What may we send you?"
    if environ["REQUEST_METHOD"] == "POST":
        form = parse_qs(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode())
        try:
            text = order(form.get("customer", [""])[0])
        except InvalidMail as error:
            status, text = "422 Unprocessable Content", str(error)
    start_response(status, [("Content-Type", "text/html; charset=utf-8")])
    return [PAGE.format(escape(text)).encode()]


def order(customer):
    """Keep an order, and confirm it. If anything here fails, there is no order, and no mail."""
    with closing(database.open()) as connection, transaction.manager:
        orders = connection.root().setdefault("orders", ())
        connection.root()["orders"] = (*orders, customer)
        message = EmailMessage()
        message["From"], message["To"] = "Shop <shop@example.org>", customer
        message["Subject"] = f"Your order {len(orders) + 1}"
        message.set_content("Thank you!\n")
        getUtility(IMailDelivery).send("shop@example.org", [customer], message)
    return f"Thank you, {customer}! That was order {len(orders) + 1}."
