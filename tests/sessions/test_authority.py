"""Who asks: good tokens, bad ones, those that were good, and floods of bad ones."""

from __future__ import annotations

import threading
import time

import pytest

from kvtwisted.core.errors import RateLimited, Unauthenticated
from kvtwisted.sessions.authority import FAILURE_SECONDS, NOT_VALID, Authority
from kvtwisted.sessions.buckets import Rate
from kvtwisted.sessions.entries import OwnRate
from kvtwisted.sessions.grants import Principal

from .support import PEER, ManualTime, grant, made

NO_RATE = Rate()


class Scene:
    """An authority with times of its own."""

    def __init__(self, failed_logins: int = 0, default_rate: Rate = NO_RATE) -> None:
        self.wall = ManualTime(1_800_000_000.0)
        self.seconds = ManualTime(50.0)
        self.authority = Authority(
            default_rate=default_rate, failed_logins=failed_logins, wall=self.wall, seconds=self.seconds
        )

    def refusal(self, *headers: bytes, peer: str = PEER) -> str:
        """The sentence with which these headers are refused."""
        with pytest.raises(Unauthenticated) as refused:
            self.authority.principal(headers, peer)
        return str(refused.value)


@pytest.fixture
def scene() -> Scene:
    """Without a limit of failed logins."""
    return Scene()


def test_a_good_token(scene: Scene) -> None:
    """It is its principal, always the same one, with its rights."""
    header, entry = made("app", grant("get", b"a"))
    scene.authority.replace([entry, made("other")[1]])
    principal = scene.authority.principal([header], PEER)
    assert (principal.name, principal.grants, scene.authority.tokens) == ("app", entry.grants, 2)
    assert scene.authority.principal([header], "2001:db8::/64") is principal


def test_one_sentence_for_everything_that_is_wrong(scene: Scene) -> None:
    """Unknown, wrong, expired, not yet known, malformed, twice: none is told from another."""
    header, entry = made("app")
    old, expired = made("old", not_after=int(scene.wall()))
    other, _ = made("app")
    unknown, _ = made("unknown")
    scene.authority.replace([entry, expired])
    malformed = ([b""], [b"x"], [header, header], [header[:-1]], [header.lower()], [b"x" * 10**6])
    for headers in ([other], [unknown], [old], *malformed):
        assert scene.refusal(*headers) == NOT_VALID
    assert scene.authority.principal([header], PEER).name == "app"


def test_no_token_has_its_own(scene: Scene) -> None:
    """It says what to send."""
    assert scene.refusal() == "a token is required: send the header Authorization with Bearer and the token"


def test_the_id_of_nobody_is_nobody(scene: Scene) -> None:
    """The entry that unknown ids are compared with cannot be used."""
    header, _ = made("nobody")
    assert scene.refusal(header) == NOT_VALID
    assert scene.refusal(b"Bearer kv1_nobody_" + b"0" * 43) == NOT_VALID


def test_unknown_ids_take_the_same_path(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest is compared for them too."""
    compared = []
    original = __import__("hmac").compare_digest
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or original(a, b))
    _, entry = made("app")
    scene.authority.replace([entry])
    for header in (made("app")[0], made("unknown")[0]):
        scene.refusal(header)
    assert compared == [(32, 32), (32, 32)]


def test_expiry_to_the_second(scene: Scene) -> None:
    """`not_after` is the first moment at which it is not valid."""
    header, entry = made("app", not_after=1_800_000_010)
    scene.authority.replace([entry])
    principal = scene.authority.principal([header], PEER)
    scene.wall.now = 1_800_000_009.99
    assert scene.authority.principal([header], PEER) is principal
    assert scene.wall() < principal.valid_until
    scene.wall.now = 1_800_000_010.0
    assert scene.refusal(header) == NOT_VALID
    assert not scene.wall() < principal.valid_until


def test_revocation_reaches_who_is_in(scene: Scene) -> None:
    """A principal that somebody keeps is over at once."""
    header, entry = made("app")
    kept_header, kept = made("kept")
    scene.authority.replace([entry, kept])
    principal, other = scene.authority.principal([header], PEER), scene.authority.principal([kept_header], PEER)
    scene.authority.replace([kept])
    assert not scene.wall() < principal.valid_until
    assert scene.wall() < other.valid_until
    assert scene.authority.principal([kept_header], PEER) is other
    assert scene.refusal(header) == NOT_VALID


@pytest.mark.parametrize(
    "change", [{"grants": (grant("get"),)}, {"not_after": 1_900_000_000}, {"rate": OwnRate(5)}, {"digest": bytes(32)}]
)
def test_a_changed_token_is_another_principal(scene: Scene, change: dict[str, object]) -> None:
    """New rights, a new end or a new rate count from the next request on; a new secret ends the old one."""
    header, entry = made("app")
    scene.authority.replace([entry])
    principal = scene.authority.principal([header], PEER)
    scene.authority.replace([entry._replace(**change)])  # type: ignore[arg-type]
    assert not scene.wall() < principal.valid_until
    if "digest" in change:
        assert scene.refusal(header) == NOT_VALID
    else:
        assert scene.authority.principal([header], PEER) is not principal


def test_the_same_tokens_again_change_nothing(scene: Scene) -> None:
    """A file that was only touched leaves principals alone, whatever the order."""
    header, entry = made("app")
    _, other = made("other")
    scene.authority.replace([entry, other])
    principal = scene.authority.principal([header], PEER)
    scene.authority.replace([other, entry])
    assert scene.authority.principal([header], PEER) is principal
    assert scene.wall() < principal.valid_until


def test_rates() -> None:
    """Its own go before the default, each of the two by itself; 0 is none."""
    scene = Scene(default_rate=Rate(10, 1000))
    entries = [made("a"), made("b", rate=OwnRate(5)), made("c", rate=OwnRate(0, 0)), made("d", rate=OwnRate(0))]
    scene.authority.replace([entry for _, entry in entries])
    a, b, c, d = (scene.authority.principal([header], PEER).limiter for header, _ in entries)
    assert a is not None
    assert b is not None
    assert d is not None
    assert c is None
    assert [limiter.take(10, 0, 1.0) for limiter in (a, b, d)] == [0, 0, 0]
    assert [limiter.take(1, 0, 1.0) for limiter in (a, b, d)] == pytest.approx([0.1, 1.2, 0])
    assert [limiter.take(0, 1000, 10.0) for limiter in (a, b, d)] == [0, 0, 0]
    assert [limiter.take(0, 1000, 10.0) for limiter in (a, b, d)] == [1, 1, 1]


def test_other_default_rates() -> None:
    """They count for tokens that follow them, from the next request on; others go on as they are."""
    scene = Scene()
    (follows, one), (own, two) = made("a"), made("b", rate=OwnRate(5, 5))
    scene.authority.replace([one, two])
    before = [scene.authority.principal([header], PEER) for header in (follows, own)]
    assert before[0].limiter is None
    scene.authority.retune(default_rate=Rate(1), failed_logins=0)
    after = [scene.authority.principal([header], PEER) for header in (follows, own)]
    assert after[0] is not before[0]
    assert after[0].limiter is not None
    assert after[1] is before[1]
    assert not scene.wall() < before[0].valid_until
    scene.authority.retune(default_rate=Rate(1), failed_logins=0)


def flood(scene: Scene, count: int, peer: str = PEER) -> list[type[Exception]]:
    """How so many bad tokens are answered."""
    answers: list[type[Exception]] = []
    header, _ = made("app")
    for _ in range(count):
        with pytest.raises((Unauthenticated, RateLimited)) as refused:
            scene.authority.principal([header], peer)
        answers.append(refused.type)
    return answers


def test_failed_logins_are_limited() -> None:
    """So many in a minute for each address; then the answer is another one, and says when to come back."""
    scene = Scene(failed_logins=4)
    assert flood(scene, 6) == [Unauthenticated] * 4 + [RateLimited] * 2
    assert flood(scene, 1, "192.0.2.2") == [Unauthenticated]
    with pytest.raises(
        RateLimited, match=r"too many failed logins: security\.failed_logins is 4 a minute; try again in 15\.0"
    ) as refused:
        scene.authority.principal([b"x"], PEER)
    assert refused.value.retry_after == pytest.approx(FAILURE_SECONDS / 4)
    scene.seconds.now += FAILURE_SECONDS / 4 + 0.001
    assert flood(scene, 2) == [Unauthenticated, RateLimited]


def test_a_good_token_is_never_locked_out() -> None:
    """Others behind its address may fail as often as they like."""
    scene = Scene(failed_logins=1)
    header, entry = made("app")
    scene.authority.replace([entry])
    assert flood(scene, 3)[-1] is RateLimited
    assert scene.authority.principal([header], PEER).name == "app"


def test_no_token_is_no_failed_login() -> None:
    """Whoever sends none guesses nothing."""
    scene = Scene(failed_logins=1)
    for _ in range(5):
        scene.refusal()
    assert flood(scene, 2) == [Unauthenticated, RateLimited]


def test_another_limit_of_failed_logins() -> None:
    """It counts at once; one that stays as it was forgets nothing."""
    scene = Scene(failed_logins=1)
    flood(scene, 2)
    scene.authority.retune(default_rate=Rate(), failed_logins=1)
    assert flood(scene, 1) == [RateLimited]
    scene.authority.retune(default_rate=Rate(), failed_logins=2)
    assert flood(scene, 3) == [Unauthenticated, Unauthenticated, RateLimited]
    scene.authority.retune(default_rate=Rate(), failed_logins=0)
    assert flood(scene, 3) == [Unauthenticated] * 3


@pytest.mark.parametrize("changes", [40, pytest.param(200, marks=pytest.mark.long)])
def test_tokens_change_under_many_threads(changes: int) -> None:
    """A token that stays is good in every moment, while others come and go."""
    authority = Authority()
    header, entry = made("stays")
    authority.replace([entry])
    expected = authority.principal([header], PEER)
    stop, seen = threading.Event(), []

    def ask() -> None:
        found: set[Principal] = set()
        while not stop.is_set():
            found.add(authority.principal([header], PEER))
        seen.append(found)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(changes):
        authority.replace([entry, made(f"t{number}")[1]])
        time.sleep(0)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen == [{expected}] * 4
