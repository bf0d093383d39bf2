"""Addresses of the Hugging Face hub: HF_ENDPOINT may name a mirror of it, HF_TOKEN an account."""

from __future__ import annotations

import os

HUB = "https://huggingface.co"


def hub_endpoint() -> str:
    """The hub, or the mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB


def hub_url(url: str) -> str:
    """An address of the hub at the endpoint; any other as it is."""
    return f"{hub_endpoint()}{url.removeprefix(HUB)}" if url.startswith(f"{HUB}/") else url


def hub_headers(url: str) -> dict[str, str]:
    """The user's token, for addresses of the hub only; a redirect to another host leaves it out."""
    if not url.startswith((f"{hub_endpoint()}/", f"{HUB}/", "https://datasets-server.huggingface.co/")):
        return {}
    from huggingface_hub import get_token  # a slow import that most downloads can do without

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}
