"""Mails to customers."""

from __future__ import annotations

from django.core.mail import EmailMessage
from django.utils import timezone

from shop import invoices
from shop.models import Order

TEXT = """\
Dear {name},

thank you for order {number}. Your invoice over {total} EUR is attached.

The Small Shop
"""


def send(order_number: int) -> str:
    """Mail the invoice of an order to its customer, note it, and return the address."""
    invoice = invoices.write(order_number)
    order = Order.objects.select_related("customer").get(number=order_number)
    customer = order.customer
    mail = EmailMessage(
        subject=f"Your order {order.number}",
        body=TEXT.format(name=customer.name, number=order.number, total=order.total),
        to=[customer.email],
    )
    mail.attach(invoice.name, invoice.read_bytes(), "application/pdf")
    mail.send()
    order.mailed_at = timezone.now()
    order.save(update_fields=["mailed_at"])
    return customer.email
