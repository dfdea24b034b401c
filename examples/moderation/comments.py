"""What happens to a comment before it is vectorised: in training, and as nodes of the endpoint."""

import html
import re
import unicodedata

import polars as pl

ADDRESS = re.compile(r"(?:https?://|www\.)\S+")
WORD = re.compile(r"\w+(?:['’]\w+)*")


def clean(comments: pl.DataFrame) -> pl.DataFrame:
    """Make one kind of everything that is written in several ways."""
    return comments.with_columns(pl.col("comment").map_elements(clean_text, pl.String))


def tokenise(comments: pl.DataFrame) -> pl.DataFrame:
    """Leave only the words, with a space between them."""
    return comments.with_columns(pl.col("comment").map_elements(join_words, pl.String))


def clean_text(text: str) -> str:
    """
    Read HTML's entities, normalise Unicode, lower the case and name addresses.

    >>> clean_text("&gt;See https://example.org/a?b … OK")
    '>see webaddress ... ok'
    """
    text = unicodedata.normalize("NFKC", html.unescape(text))
    return ADDRESS.sub("webaddress", text.lower())


def join_words(text: str) -> str:
    """
    Cut a text into words.

    >>> join_words(">see webaddress ... it's ok!")
    "see webaddress it's ok"
    """
    return " ".join(WORD.findall(text))
