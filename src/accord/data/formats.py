"""What a file is by its first bytes, whatever it is called."""

from __future__ import annotations

from accord.data.samples import Refused

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""The only formats that are ever opened, by Pillow's names."""

_FORMAT_LIST = "JPEG, PNG, WebP, BMP, TIFF or GIF"

_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"WEBP", 8, "WEBP"),
    (b"WAVE", 8, "WAVE audio"),
    (b"GIF8", 0, "GIF"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"II+\0", 0, "TIFF"),
    (b"MM\0+", 0, "TIFF"),
    (b"BM", 0, "BMP"),
    (b"ftypavif", 4, "AVIF"),
    (b"ftypavis", 4, "AVIF"),
    (b"ftyphei", 4, "HEIC"),
    (b"ftyphev", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIC"),
    (b"ftypmsf1", 4, "HEIC"),
    (b"ftyp", 4, "MP4 video"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\0\0\0\x0cJXL ", 0, "JPEG XL"),
    (b"\0\0\0\x0cjP  ", 0, "JPEG 2000"),
    (b"%PDF", 0, "PDF"),
    (b"%!PS", 0, "PostScript"),
    (b"8BPS", 0, "Photoshop"),
    (b"SIMPLE  =", 0, "FITS"),
    (b"PK\x03\x04", 0, "ZIP"),
    (b"\x1f\x8b", 0, "gzip"),
    (b"\0\0\x01\0", 0, "icon"),
    (b"\x7fELF", 0, "program"),
    (b"MZ", 0, "program"),
    (b"\x80\x02", 0, "pickle"),
    (b"\x80\x03", 0, "pickle"),
    (b"\x80\x04", 0, "pickle"),
    (b"\x80\x05", 0, "pickle"),
)


def sniff(data: bytes) -> str:
    """What the first bytes say: one of FORMATS, another format's name, "HTML", "SVG", "text", or "unknown"."""
    for magic, place, name in _MAGIC:
        if data.startswith(magic, place):
            return name
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "SVG"
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if data and all(32 <= c < 127 or c in b"\t\r\n" for c in data[:256]):
        return "text"
    return "unknown"


def foreign(found: str) -> Refused:
    """The refusal of what `sniff` says is no image that is read, with the remedy for the formats people do have."""
    remedies = {
        "SVG": 'render it to PNG first, for example with "cairosvg" (pip install cairosvg)',
        "HEIC": 'convert it to PNG or JPEG first, for example with "pillow-heif" (pip install pillow-heif)',
        "AVIF": 'convert it to PNG or JPEG first, for example with "pillow" itself or "pillow-avif-plugin"',
        "JPEG XL": 'convert it to PNG or JPEG first, for example with "pillow-jxl-plugin"',
    }
    if found in remedies:
        return Refused("E315", f"{found} images are not read: expected {_FORMAT_LIST}", remedies[found])
    what = "bytes of no known format" if found == "unknown" else f"{found}, by its first bytes"
    return Refused(
        "E304", f"not an image: {what}; expected {_FORMAT_LIST}", "delete it or replace it by the image it should be"
    )
