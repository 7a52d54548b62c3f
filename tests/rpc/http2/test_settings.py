"""What a client's SETTINGS ask for (RFC 9113, section 6.5.2), and clients that hold the server to it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hpack import HPACKError
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from ..support import CLASSES, MIB, World
from .peer import Peer

GET, SET, NOTHING = (f"/kv.v1.KeyValueService/{name}" for name in ("Get", "Set", "Nothing"))
TABLE, WINDOW, FRAME, LIST = (
    SettingsFrame.HEADER_TABLE_SIZE,
    SettingsFrame.INITIAL_WINDOW_SIZE,
    SettingsFrame.MAX_FRAME_SIZE,
    SettingsFrame.MAX_HEADER_LIST_SIZE,
)


@pytest.fixture
def world() -> Iterator[World]:
    """A native server."""
    started = World(transport="native")
    started.start()
    yield started
    started.stop()


class StrictPeer(Peer):
    """One whose decoder holds the server to the table that it is allowed, from the acknowledgement on, as nghttp2's."""

    expected: int | None = None

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, SettingsFrame) and "ACK" in frame.flags and self.expected is not None:
            if self.expected < self.decoder.header_table_size:
                self.update_due = True
            self.decoder.max_allowed_table_size = self.expected
        if isinstance(frame, HeadersFrame):
            if self.update_due and frame.data[0] & 0xE0 != 0x20:
                raise HPACKError("the size update is not at the beginning of the first block")
            self.update_due = False
        super()._note(frame)

    update_due = False


def blocks(peer: Peer) -> list[bytes]:
    """The header blocks that came."""
    return [frame.data for frame in peer.frames if isinstance(frame, HeadersFrame)]


@pytest.mark.parametrize("size", [0, 1, 100, 4095])
@pytest.mark.parametrize("when", ["at first", "between calls"])
def test_a_smaller_header_table(world: World, size: int, when: str) -> None:
    """The next header block begins with a size update, and no other does (RFC 7541, sections 4.2 and 6.3)."""
    message = CLASSES["Get"][0](key="none").SerializeToString()
    with StrictPeer(world.address, greet=False) as peer:
        peer.expected = size if when == "at first" else None
        peer.greet({TABLE: size} if when == "at first" else None)
        if when == "between calls":
            assert peer.answer(peer.start(GET, message)).status == "0"
            peer.expected = size
            peer.send(SettingsFrame(settings={TABLE: size}))
        # Answers of each kind: at once, from the pool, a refusal.
        for path, status in ((GET, "0"), (NOTHING, "12"), (GET, "0")):
            assert peer.answer(peer.start(path, message)).status == status
        assert peer.call("ScanKeys").keys == []
    updates = [block[:1] == b"\x20" for block in blocks(peer)]
    assert updates.count(True) == 1
    assert updates.index(True) == (0 if when == "at first" else 2)


def test_a_smaller_header_table_while_calls_run(world: World) -> None:
    """Calls and SETTINGS in one go: what was answered before the acknowledgement is as it was."""
    message = CLASSES["Get"][0](key="none").SerializeToString()
    with StrictPeer(world.address) as peer:
        peer.expected = 0
        streams = [peer.start(GET, message) for _ in range(3)]
        peer.send(SettingsFrame(settings={TABLE: 0}), SettingsFrame(settings={TABLE: 4096}))
        peer.expected = None
        streams += [peer.start(GET, message) for _ in range(3)]
        assert [peer.answer(stream).status for stream in streams] == ["0"] * 6
    assert sum([block.startswith(b"\x20") for block in blocks(peer)]) == 1


@pytest.mark.parametrize("size", [4096, 65_536, (1 << 32) - 1])
def test_a_header_table_as_large_as_before(world: World, size: int) -> None:
    """There is nothing to say then."""
    with Peer(world.address, {TABLE: size}) as peer:
        assert peer.call("Get", key="none").value == ""
    assert not any(block.startswith(b"\x20") for block in blocks(peer))


@pytest.mark.parametrize("limit", [0, 50, 120, 150, 250, 10_000])
def test_a_small_header_list(world: World, limit: int) -> None:
    """A status sentence is cut to what the client takes; the status itself always comes."""
    whole = "there is no method /kv.v1.KeyValueService/Nothing"
    with Peer(world.address, {LIST: limit}) as peer:
        answer = peer.answer(peer.start(NOTHING))
        assert answer.status == "12"
        sentence = answer.headers.get("grpc-message", "")
        assert whole.startswith(sentence)
        size = sum(len(name) + len(value) + 32 for name, value in answer.headers.items())
        assert size <= max(limit, 147)
        assert (sentence == whole) is (limit >= 250)


def test_a_sentence_is_not_cut_within_an_escape(world: World) -> None:
    """What is left of it can be decoded."""
    with Peer(world.address) as peer:
        for limit in range(220, 260):
            peer.send(SettingsFrame(settings={LIST: limit}))
            answer = peer.answer(peer.start("/%" * 20))
            assert re.fullmatch(r"(?:[^%]|%25)*", answer.headers["grpc-message"])


def test_larger_frames(world: World) -> None:
    """DATA comes in larger frames where the client takes them, and never in larger ones than it takes."""
    world.fill(["large"], "v" * MIB)
    for size in (16_384, 20_000, (1 << 24) - 1):
        with Peer(world.address, {FRAME: size, WINDOW: 2 * MIB}) as peer:
            peer.send(WindowUpdateFrame(0, window_increment=2 * MIB))
            assert len(peer.call("Get", key="large").value) == MIB
            assert max(frame.body_len for frame in peer.frames) == min(size, 65_536)


CLIENTS: dict[str, tuple[str, ...]] = {
    "no table": ("--header-table-size=0",),
    "a small table": ("--header-table-size=100",),
    "a large table": ("--header-table-size=65536",),
    "no table of its own": ("--encoder-header-table-size=0",),
    "a small table of its own": ("--encoder-header-table-size=100",),
    "small windows": ("--window-bits=4", "--connection-window-bits=5"),
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_h2load(world: World, tmp_path: Path, kind: str) -> None:
    """Every call of nghttp2's client is answered, which looks at what h2spec does not."""
    request = tmp_path / "request"
    request.write_bytes(b"\0\0\0\0\3\n\1k")
    world.fill(["k"], "v" * 100)
    command: list[Any] = [
        "h2load", "-n", 300, "-c", 3, "-m", 20, *CLIENTS[kind], "-d", request,
        "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{world.address}{GET}",
    ]  # fmt: skip
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=True)
    assert "300 succeeded, 0 failed, 0 errored, 0 timeout" in run.stdout, run.stdout
