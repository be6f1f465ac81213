"""A shop in Django: an order and its mail are there both, or neither."""

from django.core.mail import send_mail
from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from zope.sendmail.interfaces import InvalidMail


@csrf_exempt
def order(request):
    customer = request.POST["customer"]
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("insert into orders values (%s)", [customer])
            send_mail("Your order", "Thank you!", "Shop <shop@example.org>", [customer])
            if "fail" in request.POST:
                raise ZeroDivisionError
    except InvalidMail as error:
        return HttpResponse(str(error), status=422)
    return HttpResponse("ordered", status=201)


urlpatterns = [path("orders", order)]
