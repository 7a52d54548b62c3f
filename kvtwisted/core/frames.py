"""Errors that are kept, and what they would keep."""

from __future__ import annotations

from typing import TypeVar

AnyError = TypeVar("AnyError", bound=BaseException)


def without_frames(error: AnyError) -> AnyError:
    """`error`, which holds nothing any more of where it was raised, nor do those that led to it.

    Note [An error that is kept]: a traceback holds frames, each frame its variables and its caller's frame. So an error
    in a variable of any of these closes a cycle, and all that they hold (a request's message, a part of the database)
    stays until the collector comes by, which may take minutes. What is kept, or handed from thread to thread, is
    therefore kept without.
    """
    seen = {id(None)}
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += (one.__cause__, one.__context__)
    return error
