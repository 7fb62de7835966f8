"""What a browser is told to allow on a page of ours."""

from __future__ import annotations

import base64
import hashlib


def policy(style: str, script: str, *more: str) -> str:
    """A Content-Security-Policy: this style, this script, what else is named, and nothing more."""
    parts = ("default-src 'none'", f"style-src '{_hash(style)}'", f"script-src '{_hash(script)}'")
    return "; ".join((*parts, *more, "base-uri 'none'", "form-action 'none'"))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
