"""Thumbnails of the products, with Pillow."""

from __future__ import annotations

import io
from pathlib import Path

from django.conf import settings
from PIL import Image, ImageFilter, ImageOps

from shop.files import write_whole

SIZE = (160, 160)


def write_thumbnails() -> list[Path]:
    """Make a small JPEG of each picture in data/pictures/; return their paths."""
    pictures = sorted((settings.DATA_DIR / "pictures").iterdir())
    return [
        write_whole(f"thumbnails/{picture.stem}.jpg", thumbnail(picture)) for picture in pictures
    ]


def thumbnail(picture: Path) -> bytes:
    """Return *picture* cut to a square, made small and a little sharper."""
    with Image.open(picture) as image:
        square = ImageOps.fit(image.convert("RGB"), SIZE, Image.Resampling.LANCZOS)
    sharp = square.filter(ImageFilter.UnsharpMask(radius=1, percent=60))
    buffer = io.BytesIO()
    sharp.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
