"""A shop in FastAPI with SQLAlchemy's asyncio: an order and its mail are there both, or neither."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from zope.sendmail.contrib.asyncio import AsyncSender
from zope.sendmail.contrib.sqlalchemy import SessionTransactions
from zope.sendmail.interfaces import InvalidMail


def make_app(database, sender):
    mail = AsyncSender(sender)
    app = FastAPI(lifespan=mail.lifespan)
    session_of = async_sessionmaker(create_async_engine(database))

    @app.post("/orders", status_code=201)
    async def order(customer: str, fail: bool = False):
        async with session_of() as session, session.begin():
            await session.execute(text("insert into orders values (:customer)"), {"customer": customer})
            message = "From: shop@example.org\nSubject: Your order\n\nThank you!\n"
            number = await mail.bind(SessionTransactions(session)).send("shop@example.org", [customer], message)
            if fail:
                raise ZeroDivisionError
        return number

    @app.exception_handler(InvalidMail)
    async def refused(request, error):
        return JSONResponse({"detail": str(error)}, 422)

    return app
