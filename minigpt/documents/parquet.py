"""Parquet files: a row is a document."""

from __future__ import annotations

from collections.abc import Iterator

from minigpt.documents.base import MAX_UNPACKED, Row, Source, Table, Unread, check_size

BATCH = 1024


def read(source: Source) -> Iterator[Table]:
    """Yield the table of a file."""
    yield Table(rows=rows(source))


def rows(source: Source) -> Iterator[Row]:
    """Yield the rows, a batch at a time.

    Raises:
        Unread: It is damaged or too large.
    """
    import pyarrow
    from pyarrow import parquet

    check_size(source.size, MAX_UNPACKED)
    with source.opener() as stream:
        try:
            for batch in parquet.ParquetFile(stream).iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise Unread(f"damaged: {str(error).splitlines()[0]}") from None
