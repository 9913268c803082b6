"""Invoices as PDF, with reportlab (which brings some hundred modules along)."""

from __future__ import annotations

import io
from pathlib import Path

from django.conf import settings
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from shop.files import write_whole
from shop.models import Order

TABLE_STYLE = TableStyle(
    [
        ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
        ("FONTNAME", (0, -1), (-1, -1), "Helvetica-Bold"),
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, colors.black),
        ("LINEABOVE", (0, -1), (-1, -1), 0.8, colors.black),
        ("ROWBACKGROUNDS", (0, 1), (-1, -2), [colors.whitesmoke, colors.white]),
        ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
    ]
)


def write(order_number: int) -> Path:
    """Write the invoice of an order to var/invoices/ and return its path."""
    order = (
        Order.objects.select_related("customer")
        .prefetch_related("lines__product")
        .get(number=order_number)
    )
    return write_whole(f"invoices/invoice-{order.number}.pdf", render(order))


def render(order: Order) -> bytes:
    """Return the invoice of *order* as PDF: the same bytes each time."""
    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        title=f"Invoice {order.number}",
        author=settings.DEFAULT_FROM_EMAIL,
        invariant=True,
    )
    document.build(story(order))
    return buffer.getvalue()


def story(order: Order) -> list[Flowable]:
    """Lay out the page: to whom, for what, how much."""
    styles = getSampleStyleSheet()
    address = "<br/>".join([order.customer.name, *order.customer.address.splitlines()])
    rows = [["Product", "Quantity", "Price", "Amount"]]
    for line in order.lines.all():
        rows.append([line.product.name, str(line.quantity), f"{line.unit_price}", f"{line.amount}"])
    rows.append(["Total in EUR", "", "", f"{order.total}"])
    return [
        Paragraph(f"Invoice {order.number}", styles["Title"]),
        Paragraph(address, styles["Normal"]),
        Spacer(0, 8 * mm),
        Paragraph(f"Ordered on {order.placed_on:%d %B %Y}.", styles["Normal"]),
        Spacer(0, 8 * mm),
        Table(rows, colWidths=[80 * mm, 25 * mm, 30 * mm, 30 * mm], style=TABLE_STYLE),
        Spacer(0, 12 * mm),
        Paragraph("Payable within 14 days. Thank you for your order.", styles["Normal"]),
    ]
