"""Which teacher made a picture: hashes that are equal only where the outputs are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from compressor.generators.spec import ImageFormat


def digest(*parts: str) -> str:
    """Hex SHA-256 of some texts, told apart from each other."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def identity_of(content: str, image: ImageFormat, *parts: str) -> str:
    """A teacher's identity from the hash of its file, its format, and what else its outputs depend on."""
    told = asdict(image)
    told.pop("size")
    return digest(content, json.dumps(told, sort_keys=True), *parts)
