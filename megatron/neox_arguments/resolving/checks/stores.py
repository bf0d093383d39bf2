"""Checkpoints in a store behind a URL: what can be said of it without asking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

URL_KEYS = ("save", "load", "s3_path")

_S3 = ("s3", "s3a")
_S3_LEAST_PART = 5 << 20
_S3_BUCKET = range(3, 64)
_LOCAL = ("file", "local")


def check_upload(args: Draft) -> None:
    """What is saved on this machine can be uploaded elsewhere."""
    if args.s3_path is None:
        return
    if protocol_of(args.s3_path) in (None, *_LOCAL):
        raise Conflict(
            ("s3_path",),
            "checkpoints are uploaded to a store; give its URL, s3://bucket/directory or gs://bucket/directory, or remove s3_path",
        )
    if args.save is None:
        raise Conflict(
            ("s3_path", "save"),
            "checkpoints are uploaded after they were written on this machine; name a directory in save as well, or move this to save",
        )
    if protocol_of(args.save) not in (None, *_LOCAL):
        raise Conflict(
            ("s3_path", "save"),
            "save is a URL already, and checkpoints are uploaded from a directory; make save a directory, or remove s3_path",
        )


def check_buckets(args: Draft) -> None:
    """S3 has buckets with names of 3 to 63 characters."""
    for key in URL_KEYS:
        url = getattr(args, key)
        if protocol_of(url) in _S3 and len(bucket := url.partition("://")[2].partition("/")[0]) not in _S3_BUCKET:
            raise Conflict(
                (key,),
                f'"{bucket}" is no bucket of S3, whose names have {_S3_BUCKET.start} to {_S3_BUCKET.stop - 1} characters; '
                "write s3://bucket/directory",
            )


def check_part_size(args: Draft) -> None:
    """S3 refuses smaller parts."""
    for key in ("s3_path", "save"):
        if protocol_of(getattr(args, key)) in _S3 and args.s3_chunk_size < _S3_LEAST_PART:
            raise Conflict(
                ("s3_chunk_size", key), f"S3 takes parts of 5 MiB and more; set s3_chunk_size to {_S3_LEAST_PART}"
            )


def protocol_of(place: str | None) -> str | None:
    """The protocol of a URL; None of a directory, or nothing."""
    protocol, separator, _ = (place or "").partition("://")
    return protocol if separator else None
