"""enwik8: the first 100,000,000 bytes of English Wikipedia's XML dump of 3 March 2006, the file of the Hutter prize.

A page is a document (what comes before the first page belongs to it), in the order of the dump: all documents together are the file to
the byte (but for a character that its end cuts in two), and the usual split of 90, 5 and 5 MB is `split: "90, 5, 5"` to within a page. One member of the archive is read, nothing is unpacked.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron.data.corpora.base import About, take_files
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.remote import RemoteCorpus
from megatron.errors import DataError

ARCHIVE = RemoteFile(
    "enwik8.zip",
    ("https://mattmahoney.net/dc/enwik8.zip", "https://data.deepai.org/enwik8.zip"),
    sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    size=36_445_475,
)
PAGE = "  <page>\n"


class Enwik8(RemoteCorpus):
    """The pages in the archive."""

    name = "enwik8"
    about = About("first 100 MB of English Wikipedia's XML of 2006; a document a page", "36 MB", "GFDL, CC BY-SA")
    fits_memory = True
    variant = "by page"

    def __init__(self, directory: Path, *, first_files: int | None = None, archive: RemoteFile = ARCHIVE) -> None:
        super().__init__(directory, name=self.name, remote=take_files([archive], first_files))

    def files(self) -> Sequence[Path] | None:
        """None: the archive holds no format the readers know."""
        return None

    def documents(self) -> Iterator[str]:
        text = self._text()
        begin = 0
        while begin < len(text):
            first_page = text.find(PAGE, begin)
            end = text.find(PAGE, first_page + 1) if first_page >= 0 else -1
            end = end if end >= 0 else len(text)
            yield text[begin:end]
            begin = end

    def _text(self) -> str:
        path = self.raw / self.remote[0].name
        try:
            with zipfile.ZipFile(path) as archive:
                # The last page is cut off by the length of the file, which may be inside a character.
                return archive.read("enwik8").decode("utf-8", errors="replace")
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read ({error}): use --force and it is downloaded again.") from None
