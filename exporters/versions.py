"""Versions of the tools that decide what an exported file holds."""

from __future__ import annotations

from importlib import metadata

_TOOLS = (
    "pocketgan",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxsim",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
)


def versions() -> dict[str, str]:
    """The installed version of each tool, those that are missing left out."""
    found = {}
    for tool in _TOOLS:
        try:
            found[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return found
