"""Money that is moved by Transact is neither made nor lost, for any read of all accounts, and across kill -9.

KVTWISTED_BANK_ROUNDS sets how often the server is killed in the long form (6).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence

import pytest

from .bank import ACCOUNTS, TOTAL, Auditor, end, open_accounts, reads, start_movers, total
from .harness import PATIENCE, Launcher

ROUNDS = int(os.environ.get("KVTWISTED_BANK_ROUNDS", "6"))
SEED = int(os.environ.get("KVTWISTED_HISTORY_SEED", time.time_ns() % 1_000_000))
_OPTIONS = ("--value-disk-threshold", "2000")


def _bank(launch: Launcher, options: Sequence[str], rounds: int, seconds: float) -> None:
    print(f"\nseed {SEED}")
    chance = random.Random(SEED)
    server = launch(*_OPTIONS, *options)
    open_accounts(server)
    moved = 0
    looked: dict[str, int] = {}
    for _ in range(rounds):
        movers = start_movers(server, chance)
        with server.grpc() as client:
            auditors = [Auditor(name, read) for name, read in reads(server, client).items()]
            for auditor in auditors:
                auditor.start()
            threading.Event().wait(chance.uniform(0.7, 1) * seconds)
            server.kill()
            moved += end(movers)
            for auditor in auditors:
                auditor.over.set()
                auditor.join(PATIENCE)
                assert auditor.wrong == []
                looked[auditor.name] = looked.get(auditor.name, 0) + auditor.looked
        server = launch(*_OPTIONS, *options)
        with server.grpc() as client:
            assert {name: total(read()) for name, read in reads(server, client).items()} == dict.fromkeys(looked, TOTAL)
    print(f"{rounds} kills, {moved} transactions, {len(ACCOUNTS)} accounts; looked at: {looked}")
    assert moved
    assert all(looked.values())


def test_the_bank(launch: Launcher) -> None:
    """Once killed."""
    _bank(launch, (), 1, 1.5)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["native", "threaded"])
@pytest.mark.parametrize("options", [(), ("--rocksdb-options-sync", "true")], ids=["nosync", "sync"])
def test_the_bank_for_long(launch: Launcher, options: tuple[str, ...], transport: str) -> None:
    """Again and again, on both transports."""
    _bank(launch, ("--grpc-transport", transport, *options), ROUNDS, 4)
