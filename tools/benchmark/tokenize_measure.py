"""One measurement of tools/benchmark/tokenize.py, in a process of its own: `python -m tools.benchmark.tokenize_measure NAME ...`.

Prints JSON. Wall time and processor time are those of the whole call, workers and files included; the processor time, of all processes
together, is the same whatever else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import time
from pathlib import Path
from typing import Any

POOL = "pool + tokenizers"
PLAIN = "pipeline + tokenizers"
READING = "ceiling: reading and JSON"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one way to tokenise.")
    parser.add_argument("name")
    parser.add_argument(
        "--directory", type=Path, required=True, help="has a tokenizer.json, and a corpus.jsonl beside it"
    )
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    print(json.dumps(measure(args.name, args.directory, workers=args.workers)))


def measure(name: str, place: Path, *, workers: int) -> dict[str, Any]:
    """Seconds of wall and processor time, and what else is known: a digest of the output, documents left to `tokenizers`."""
    # Imported late, as worker processes import this file, too, and before the clock starts.
    from megatron.data.encoding.files import encode_files
    from megatron.data.encoding.worker import EncodeRecipe
    from megatron.tokenizer.base import TokenizerSettings
    from megatron.tokenizer.fast.choice import ENGINES
    from tools.benchmark.tokenize_corpus import read_texts
    from tools.benchmark.tokenize_pool import encode_with_pool

    corpus, tokenizer_file, prefix = place.parent / "corpus.jsonl", place / "tokenizer.json", place / "output"
    if name.startswith("ceiling: ") and name != READING:
        return measure_alone(name.split()[1], corpus, tokenizer_file)
    start, processor_start = time.perf_counter(), processor_seconds()
    if name == POOL:
        encode_with_pool(corpus, tokenizer_file, prefix, workers=workers)
    elif name == READING:
        read_texts(corpus)
    else:
        engines = tuple(engine for engine in ENGINES if engine == name.split()[-1])
        recipe = EncodeRecipe(TokenizerSettings("HFTokenizer", str(tokenizer_file)), append_eod=True, engines=engines)
        prefix = encode_files([corpus], recipe, output_prefix=prefix, workers=workers).datasets[0].prefix
    known = {"seconds": time.perf_counter() - start, "processor seconds": processor_seconds() - processor_start}
    return known if name == READING else {**known, "digest": digest(prefix)}


def measure_alone(engine: str, corpus: Path, tokenizer_file: Path) -> dict[str, Any]:
    """An engine on one core, once it is built and the texts are in memory."""
    from megatron.tokenizer.fast.choice import build_batch_encoder
    from megatron.tokenizer.fast.encoder import FastEncoder
    from megatron.tokenizer.hf import HFTokenizer
    from tools.benchmark.tokenize_corpus import read_texts

    encoder = build_batch_encoder(HFTokenizer.from_file(tokenizer_file), engines=[engine])
    assert isinstance(encoder, FastEncoder)
    texts = read_texts(corpus)
    start, processor_start = time.perf_counter(), processor_seconds()
    encoder.encode_batch(texts)
    return {
        "seconds": time.perf_counter() - start,
        "processor seconds": processor_seconds() - processor_start,
        "documents": len(texts),
        "left to tokenizers": encoder.left,
    }


def processor_seconds() -> float:
    """User and system time of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def digest(prefix: Path) -> str:
    """Of the bytes of `.bin` and `.idx`."""
    whole = hashlib.sha256()
    for suffix in (".bin", ".idx"):
        with open(f"{prefix}{suffix}", "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


if __name__ == "__main__":
    main()
