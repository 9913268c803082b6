"""A few customers and orders to work on. The same ones each time."""

from __future__ import annotations

import csv
import datetime
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from shop.models import Customer, Order, OrderLine, Product

FIRST_NUMBER = 1001
#: What each order holds: (place of the product in data/products.csv, how many).
BASKETS = [
    [(0, 4), (1, 1)],
    [(4, 2), (5, 3), (6, 1)],
    [(2, 1)],
    [(3, 2), (0, 6), (7, 1)],
    [(5, 10)],
    [(6, 1), (7, 2)],
]


@transaction.atomic
def make_orders() -> list[Order]:
    """Return the sample orders; what is not there yet is made."""
    products = [
        Product.objects.get_or_create(sku=row.pop("sku"), defaults=row)[0]
        for row in rows("products.csv")
    ]
    customers = [
        Customer.objects.get_or_create(email=row.pop("email"), defaults=row)[0]
        for row in rows("customers.csv")
    ]
    return [
        make_order(FIRST_NUMBER + place, customers[place % len(customers)], basket, products)
        for place, basket in enumerate(BASKETS)
    ]


def make_order(
    number: int, customer: Customer, basket: list[tuple[int, int]], products: list[Product]
) -> Order:
    """Return the order of that number, with its lines."""
    placed_on = datetime.date(2025, 6, 1) + datetime.timedelta(days=number - FIRST_NUMBER)
    order, is_new = Order.objects.get_or_create(
        number=number, defaults={"customer": customer, "placed_on": placed_on}
    )
    if is_new:
        OrderLine.objects.bulk_create(
            OrderLine(
                order=order,
                product=products[place],
                quantity=quantity,
                unit_price=Decimal(products[place].price),
            )
            for place, quantity in basket
        )
    return order


def rows(name: str) -> list[dict[str, str]]:
    """Read a shipped CSV file."""
    with (settings.DATA_DIR / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
