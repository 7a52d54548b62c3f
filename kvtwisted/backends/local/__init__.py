"""The local backend: RocksDB, or memory, in this process, which is its only writer."""
