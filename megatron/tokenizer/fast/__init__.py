"""Batches of texts to ids, by the fastest engine that gives exactly the ids of the tokenizer.

A faster engine serves a tokenizer of the Hugging Face kind only where it is proven to be identical:

1. its file holds nothing but what the engine can do in the same way (`file`, `merges`, `patterns`);
2. the package is of the version that was compared with `tokenizers`, character by character (`choice`);
3. texts of the user's own give the same ids at the start (`choice`);
4. documents that might differ are left to `tokenizers` itself, one by one (`encoder`).

One process proves that and writes a blueprint, from which others build the same encoder at once.
"""
