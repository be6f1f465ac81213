"""Tasks of Celery: mail of a task that fails, or that is tried again, does not leave.

Started as usual, ``celery -A celery_shop worker``, and beside it what sends: ``zope-sendmail --daemon``.  A worker's
processes end without a word to their threads, so they only write.
"""

import os

import transaction
from celery import Celery

from zope.sendmail.sender import MailWriter

app = Celery("shop", broker=os.environ["BROKER"])
if "CELERY_CONFIG" in os.environ:
    app.config_from_object(os.environ["CELERY_CONFIG"])
writer = MailWriter(os.environ["MAIL_QUEUE"], transaction_manager=transaction.manager)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=True)
def confirm(customer, *, fail=False):
    with transaction.manager:  # the mail leaves if the block ends well
        writer.send("shop@example.org", [customer], "From: shop@example.org\nSubject: Your order\n\nThank you!\n")
        if fail:
            raise ZeroDivisionError
