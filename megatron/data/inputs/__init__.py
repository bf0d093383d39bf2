"""From paths to documents, one file a format.

paths.py          comma lists, directories and globs -> files, in an order that never changes
formats.py        a file's name -> how it is cut into spans and read: the table of formats
span.py           the types: Span (a part of a file), Document (its texts, or Bad), Meter (how far reading has come)
records.py        a JSON value -> what Fields takes from it: the texts under the keys asked for
json_lines.py json_array.py plain_text.py dat.py archives.py parquet.py     the formats
compression.py    .gz .zst .xz .bz2
pieces.py         files -> pieces of work of about equal size
fingerprint.py    how a file is known to be unchanged
"""
