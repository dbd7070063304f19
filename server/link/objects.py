"""The SuperLink's store of messages' bytes: rows in its database as ever, the bytes in files beside it.

Flower keeps every piece of every tensor as a value in SQLite, where each is written twice and its pages are
freed one by one; at 100 MB that is most of what a round costs the SuperLink. Here a row says only that the
piece is there. Pieces are named by the SHA-256 of their content, so after a crash ``tidy`` can tell the whole
ones from the torn. Uses names of Flower that are not public (written for flwr 1.41; a test says so when that
changes).
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store import object_store_factory
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.objectstore_models import StoredObject
from sqlalchemy import select

FLWR_MINOR = "1.41"
SMALLEST_FILE = 65_536
"""What is smaller stays in the database."""
MARK = b"in-a-file "
FOLDER = "objects"


class FileObjectStore(SqlObjectStore):
    """Flower's store in SQLite, with large contents in files of a folder beside the database.

    Args:
        database_path: of the database.
        verify: whether a content must have its name's SHA-256.
    """

    def __init__(self, database_path: str, verify: bool = True) -> None:
        super().__init__(database_path, verify=False)
        self._verify_here = verify
        self.folder = Path(database_path).parent / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def put(self, object_id: str, object_content: bytes) -> None:
        """See Flower's ``ObjectStore``.

        Raises:
            ValueError: the content does not have this name, or is none of Flower's objects.
        """
        if self._verify_here:
            if object_id != get_object_id(object_content):
                raise ValueError(f"Object ID {object_id} does not match content hash")
            validate_object_content(content=object_content)
        if len(object_content) < SMALLEST_FILE:
            super().put(object_id, object_content)
            return
        path = self.folder / object_id
        part = self.folder / f".{object_id}.{threading.get_ident()}.part"
        part.write_bytes(object_content)
        part.replace(path)
        super().put(object_id, MARK + str(len(object_content)).encode())

    def get(self, object_id: str) -> bytes | None:
        """See Flower's ``ObjectStore``; None also where a file is gone or not whole."""
        content = super().get(object_id)
        if content is None or not content.startswith(MARK):
            return content
        try:
            found = (self.folder / object_id).read_bytes()
        except OSError:
            return None
        return found if len(found) == int(content[len(MARK) :]) else None

    def delete(self, object_id: str) -> None:
        """See Flower's ``ObjectStore``; called by it for each descendant too."""
        super().delete(object_id)
        if (self.folder / object_id).exists() and object_id not in self:
            (self.folder / object_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """See Flower's ``ObjectStore``."""
        super().clear()
        self._remove(keep=set())

    def tidy(self) -> int:
        """Remove files that nobody asks for, and rows whose file is torn; for the start after a crash.

        Returns:
            How many pieces were torn: the messages that they belong to are lost, and asked for again.
        """
        with self.session() as session:
            rows = session.execute(
                select(StoredObject.object_id).where(StoredObject.content.startswith(MARK))
            )
            named = {str(row[0]) for row in rows}
        self._remove(keep=named)
        torn = 0
        for object_id in named:
            path = self.folder / object_id
            if not path.is_file() or get_object_id(path.read_bytes()) != object_id:
                path.unlink(missing_ok=True)
                torn += 1
        return torn

    def _remove(self, *, keep: set[str]) -> None:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name not in keep:
                    with contextlib.suppress(FileNotFoundError):
                        Path(entry.path).unlink()


def keep_bytes_in_files() -> None:
    """Let Flower's SuperLink of this process use the store; a database in memory keeps Flower's own."""
    factory: Any = object_store_factory

    def store(database_path: str, verify: bool = True) -> SqlObjectStore:
        if "://" in database_path or database_path.startswith(":"):
            return SqlObjectStore(database_path, verify)
        return _Tidied(database_path, verify)

    factory.SqlObjectStore = store


class _Tidied(FileObjectStore):
    """Looks through the files when it is opened."""

    def initialize(self, log_queries: bool = False, **engine_kwargs: Any) -> list[str]:
        """See Flower's ``SqlMixin``."""
        tables = super().initialize(log_queries, **engine_kwargs)
        self.tidy()
        return tables
