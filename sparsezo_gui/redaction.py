"""Redacts secrets in text that a user may paste somewhere."""

from __future__ import annotations

import re

TOKEN = r"hf_(?:(?:oauth|jwt)_[A-Za-z0-9_.-]+|[A-Za-z0-9]{10,})"
"""An access token of the Hugging Face Hub."""
REDACTED = "•••"
# Shorter words after hf_, as in hf_hub_download, are function names. A URL that was treated as a path has lost a slash.
_BEFORE_AT = r"(?:(?<=://)|(?<=:[/\\]))[^\s/?#]+(?=@)"
_SECRETS = re.compile(rf"{TOKEN}[\w-]*|(?<=bearer)\s+[^\s\"',;]+|{_BEFORE_AT}", re.IGNORECASE)


def redacted(text: str) -> str:
    """``text`` with tokens, bearer credentials and the part before the @ of a URL replaced by `REDACTED`."""
    return _SECRETS.sub(lambda found: " " * found[0][0].isspace() + REDACTED, text)
