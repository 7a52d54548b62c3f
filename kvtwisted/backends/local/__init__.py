"""RocksDB, or memory, in this process: the one backend that has the only writer."""
