"""Every codec that Kafka's clients can choose is installed on hosts."""

from __future__ import annotations

import pytest
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder


@pytest.mark.parametrize("number", range(5), ids=["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_compressed_batch_is_read(number: int) -> None:
    builder = MemoryRecordsBuilder(magic=2, compression_type=number, batch_size=1_000_000)
    for offset in range(100):
        builder.append(timestamp=1_000, key=b"stream", value=b"value %d" % offset, headers=[])
    builder.close()
    batch = MemoryRecords(builder.buffer()).next_batch()
    assert [record.value for record in batch] == [b"value %d" % offset for offset in range(100)]
