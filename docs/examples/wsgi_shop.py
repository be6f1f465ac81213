"""A shop as a bare WSGI application: the mail follows the thread's transaction."""

from urllib.parse import parse_qs

import transaction

from zope.sendmail.interfaces import InvalidMail


def make_app(sender):
    """`sender` is a ``MailSender(..., transaction_manager=transaction.manager)``."""

    def application(environ, start_response):
        form = parse_qs(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode())
        message = "From: shop@example.org\nSubject: Your order\n\nThank you!\n"
        try:
            with transaction.manager:
                sender.send("shop@example.org", form["customer"], message)
                if "fail" in form:
                    raise ZeroDivisionError
        except InvalidMail as error:
            start_response("422 Unprocessable Content", [("Content-Type", "text/plain; charset=utf-8")])
            return [str(error).encode()]
        start_response("201 Created", [("Content-Type", "text/plain")])
        return [b"ordered"]

    return application
