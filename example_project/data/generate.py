"""
Make the shipped input anew: sales.csv.gz and pictures/. The same data each time.

    python example_project/data/generate.py     (needs Pillow)
"""

from __future__ import annotations

import colorsys
import csv
import gzip
import io
import math
import random
from datetime import date, timedelta
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

DATA = Path(__file__).resolve().parent
FIRST_DAY = date(2023, 7, 1)
LAST_DAY = date(2025, 6, 30)
SALES = 40_000
COUNTRIES = {"SE": 9, "DE": 8, "NL": 5, "CH": 4, "IT": 4, "FR": 3, "DK": 2, "NO": 2}
DISCOUNTS = {0.0: 80, 0.05: 9, 0.1: 8, 0.2: 3}
PICTURE_SIZE = (1600, 1200)


def main() -> None:
    products = list(csv.DictReader((DATA / "products.csv").open(newline="")))
    write_sales(products)
    for place, product in enumerate(products):
        draw_picture(product["sku"], place, len(products))


def write_sales(products: list[dict[str, str]]) -> None:
    """Two years of sales: busier at weekends and before Christmas, growing slowly."""
    choose = random.Random("sales")
    days = [FIRST_DAY + timedelta(n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
    dates = sorted(choose.choices(days, weights=[demand(day) for day in days], k=SALES))
    popularity = [1 / math.sqrt(float(product["price"])) for product in products]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["date", "order", "sku", "category", "quantity", "unit_price", "discount", "country"]
    )
    order = 100_000
    for day in dates:
        order += choose.random() < 0.6  # what follows without a new number is the same order
        product = choose.choices(products, popularity)[0]
        quantity = min(1 + int(choose.expovariate(1.1)), 12)
        inflation = 1 + 0.04 * (day.year - FIRST_DAY.year)
        price = round(float(product["price"]) * inflation, 2)
        discount = choose.choices(list(DISCOUNTS), list(DISCOUNTS.values()))[0]
        country = choose.choices(list(COUNTRIES), list(COUNTRIES.values()))[0]
        writer.writerow(
            [day, order, product["sku"], product["category"], quantity, price, discount, country]
        )
    # Without a time stamp in the header, so that the same sales make the same file.
    (DATA / "sales.csv.gz").write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def demand(day: date) -> float:
    """How much is bought on *day*, compared with other days."""
    growth = 1 + 0.3 * (day - FIRST_DAY).days / 365
    weekend = 1.5 if day.weekday() >= 5 else 1.0
    christmas = 2.2 if (day.month, day.day) >= (11, 24) and (day.month, day.day) <= (12, 22) else 1
    return growth * weekend * christmas


def draw_picture(sku: str, place: int, of: int) -> None:
    """A still life: a wall, a table, and the product as a shape with light and shadow."""
    choose = random.Random(sku)
    width, height = PICTURE_SIZE
    hue = place / of
    picture = Image.linear_gradient("L").resize(PICTURE_SIZE)
    wall = Image.new("RGB", PICTURE_SIZE, colour(hue, 0.18, 0.97))
    shade = Image.new("RGB", PICTURE_SIZE, colour(hue, 0.35, 0.72))
    picture = Image.composite(shade, wall, picture)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height * 0.72, width, height), fill=colour(0.08, 0.35, 0.55))
    left = width * (0.3 + 0.1 * choose.random())
    box = (left, height * 0.25, left + width * 0.3, height * 0.8)
    shadow = (box[0] - 40, box[3] - 50, box[2] + 160, box[3] + 40)
    draw.ellipse(shadow, fill=colour(0.08, 0.4, 0.38))
    picture = picture.filter(ImageFilter.GaussianBlur(12))
    draw = ImageDraw.Draw(picture)
    if place % 3 == 0:
        draw.rounded_rectangle(box, radius=60, fill=colour(hue + 0.5, 0.6, 0.75))
        draw.arc((box[2] - 80, box[1] + 150, box[2] + 180, box[3] - 200), -90, 90, "white", 36)
    elif place % 3 == 1:
        draw.ellipse(box, fill=colour(hue + 0.5, 0.65, 0.8))
    else:
        top = ((box[0] + box[2]) / 2, box[1])
        draw.polygon([top, (box[2], box[3]), (box[0], box[3])], fill=colour(hue + 0.5, 0.6, 0.7))
    draw.ellipse((box[0] + 90, box[1] + 220, box[0] + 150, box[1] + 380), fill="white")
    picture = picture.filter(ImageFilter.GaussianBlur(2))
    (DATA / "pictures").mkdir(exist_ok=True)
    if place % 4 == 3:  # PNG likes few colours
        flat = picture.resize((800, 600)).quantize(32, dither=Image.Dither.NONE)
        flat.save(DATA / "pictures" / f"{sku}.png", optimize=True)
    else:
        picture.save(DATA / "pictures" / f"{sku}.jpg", quality=80)


def colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """Return a colour as Pillow takes it."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


if __name__ == "__main__":
    main()
