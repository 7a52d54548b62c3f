"""The storage half of the assembly: it touches its folders when it is opened, and not before."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.config.manager import ConfigManager
from kvtwisted.core.options import EngineOptions
from kvtwisted.observability.metrics import Metrics
from kvtwisted.server.storage import Storage
from kvtwisted.sessions.audit import Audit


def test_construction_touches_nothing(tmp_path: Path) -> None:
    """twistd forks between: folders are made and claimed by `open`."""
    data, values = tmp_path / "data", tmp_path / "values"
    flags = {"--rocksdb-path": str(data), "--value-disk-path": str(values)}
    config = ConfigManager.load(None, {}, flags, str(tmp_path / "runtime.json"))
    storage = Storage(lambda: config.running, Metrics(CollectorRegistry()), Audit(lambda line: None))
    assert list(tmp_path.iterdir()) == []
    data.mkdir()
    engine = open_engine("rocksdict", str(data), EngineOptions())
    try:
        storage.open(engine)
        assert list(values.iterdir())
        storage.close()
    finally:
        engine.close()
