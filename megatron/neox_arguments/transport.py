"""Finished arguments as one word of a command line, from the launcher to the workers: base64 of zlib of JSON."""

from __future__ import annotations

import base64
import binascii
import json
import zlib

from pydantic import ValidationError

from megatron.errors import ConfigError
from megatron.neox_arguments.arguments import NeoXArgs


def encode(args: NeoXArgs) -> str:
    """`args`, and where its values come from, as text without spaces or quotes."""
    values = {key: value for key, value in args.to_dict().items() if value is not None}
    text = json.dumps({"values": values, "origins": dict(args.origins())}, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode())).decode("ascii")


def decode(text: str) -> NeoXArgs:
    """The arguments that `encode` was given. Raises ConfigError for text that it did not make."""
    try:
        content = json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))
        return NeoXArgs.from_resolved(content["values"], origins=content["origins"])
    except (binascii.Error, zlib.error, ValueError, ValidationError, KeyError, TypeError) as error:
        raise ConfigError([f"the encoded arguments (--neox-args) are damaged: {type(error).__name__}"]) from None
