"""The application of the demo: a shop that stores an order and confirms it by mail, in one transaction.

`configure`, `open_database` and `Shop.order` are all that an application has to do in order to send mail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import EmailMessage
from typing import Any

import transaction
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from zope.app.appsetup.appsetup import config, database
from zope.app.appsetup.product import setProductConfiguration
from zope.component import getUtility

from zope.sendmail.interfaces import IMailDelivery
from zope.sendmail.message.address import parse_mailbox

SITE = os.path.join(os.path.dirname(__file__), "site.zcml")
SENDER = "shop@example.org"
STOCK = 1000


def configure(queue_path: str, port: int) -> None:
    """Load site.zcml; its relay is on `port` of this machine.  Nothing is started, nothing is sent."""
    # What a deployment writes into <product-config mail> of zope.conf:
    setProductConfiguration("mail", {"hostname": "127.0.0.1", "port": str(port), "queue-path": queue_path})
    config(SITE)


def open_database(path: str) -> Any:
    """Open the FileStorage at `path`, which ends in ``.fs``: from now on a thread drains the queue."""
    opened = database(path)
    with opened.transaction() as connection:
        connection.root()["stock"] = PersistentMapping(left=STOCK)
        connection.root()["orders"] = PersistentList()
    return opened


class Shop:
    """The shop, as one thread sees it through its connection to the database."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.stock = connection.root()["stock"]
        self.orders = connection.root()["orders"]

    def order(self, customer: str, subject: str, text: str = "It is on its way.") -> str:
        """Store an order and mail a confirmation, when the transaction commits; return the Message-Id."""
        customer = parse_mailbox(customer)  # EmailMessage raises an IndexError for some that are none
        self.stock["left"] -= 1
        self.orders.append(customer)
        message = EmailMessage()
        message["From"] = SENDER
        message["To"] = customer
        message["Subject"] = subject
        message.set_content(text)
        message_id: str = getUtility(IMailDelivery).send(SENDER, [customer], message)
        return message_id

    def count_orders(self) -> int:
        """Return how many orders the database has."""
        transaction.begin()
        return len(self.orders)


@contextmanager
def visit(opened: Any) -> Iterator[Shop]:
    """Yield the shop in the database `opened`, for this thread; what was not committed at the end is forgotten."""
    with closing(opened.open()) as connection:
        try:
            yield Shop(connection)
        finally:
            transaction.abort()
