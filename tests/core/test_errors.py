"""The error family."""

from __future__ import annotations

import inspect
import re

import pytest

from kvtwisted.core import errors

FAMILY = [value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__]


def test_family_is_one() -> None:
    """Every class of the module is a KvError."""
    assert len(FAMILY) > 10
    assert all(issubclass(error, errors.KvError) for error in FAMILY)


def test_codes_are_unique_stable_words() -> None:
    """Each class has a word of its own, in lower case with underscores; to a client a disk is full or it is not."""
    of_full_disks = (errors.NearlyFull, errors.NoInodes, errors.NoRoomForBackup)
    codes = [error.code for error in FAMILY if error not in of_full_disks]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("error", FAMILY)
def test_message_is_the_sentence(error: type[errors.KvError]) -> None:
    """`str` gives the sentence for the user."""
    assert str(error("what went wrong")) == "what went wrong"
