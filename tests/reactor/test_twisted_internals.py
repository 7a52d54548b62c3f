"""Twisted's private names: those that are needed are there, and no others are used."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.web.server import Request, Site

import kvtwisted
import twisted
from kvtwisted.http.application import KvRequest
from kvtwisted.http.channel import KvChannel
from kvtwisted.http.lanes import Lanes
from kvtwisted.http.site import KvSite
from kvtwisted.reactor.twisted_internals import NAMES, PrivateName
from kvtwisted.tls.connections import TlsConnection, TlsFactory


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _own(source: str) -> set[str]:
    """Private names that a class defines: methods, and what is assigned, to itself or to the class."""
    tree = ast.parse(inspect.cleandoc("\n" + source))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if _is_private(name)}


def _of_twisted(owner: type) -> set[str]:
    """Private names of a class of Twisted's and of all that it inherits from."""
    names: set[str] = set()
    for base in owner.__mro__:
        if base.__module__.startswith("twisted."):
            names |= _own(inspect.getsource(base))
    return names


@pytest.mark.parametrize("needed", NAMES, ids=lambda needed: f"{needed.owner.__name__}.{needed.name}")
def test_is_still_there(needed: PrivateName) -> None:
    """Each name that is needed is one that this release of Twisted defines."""
    assert needed.name in _of_twisted(needed.owner), (
        f"Twisted {twisted.__version__} has no {needed.owner.__name__}.{needed.name} any more, which is needed "
        f"{needed.why}: see kvtwisted/reactor/twisted_internals.py"
    )


def test_a_name_that_is_gone_is_found() -> None:
    """The test above can fail."""
    assert "_busyElsewhere" not in _of_twisted(NAMES[0].owner)


def test_no_others_are_used() -> None:
    """In the rooms that stand on these classes no private name of theirs stands in the source but those."""
    known = {needed.name for needed in NAMES}
    theirs = set().union(*map(_of_twisted, (*{needed.owner for needed in NAMES}, Request, Site)))
    folder = Path(kvtwisted.__file__).parent
    used = set()
    for path in (*folder.glob("http/*.py"), *folder.glob("tls/*.py"), *folder.glob("reactor/*.py")):
        tree = ast.parse(path.read_text())
        ours = {
            node.attr for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _is_private(node.attr):
                is_own = isinstance(node.value, ast.Name) and node.value.id == "self"
                if not is_own and node.attr in theirs and node.attr not in ours:
                    used.add((path.name, node.attr))
    assert {(name, attribute) for name, attribute in used if attribute not in known} == set()


@pytest.mark.parametrize("ours", [KvChannel, KvRequest, KvSite, TlsConnection, TlsFactory])
def test_no_clashes(ours: type) -> None:
    """No private name of a class of ours is one that Twisted's beneath it has, unless it is meant to be."""
    known = {needed.name for needed in NAMES}
    used = {
        node.attr for node in ast.walk(ast.parse(inspect.getsource(ours)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }  # fmt: skip
    assert ({name for name in used if _is_private(name)} | _own(inspect.getsource(ours))) & _of_twisted(ours) <= known


def test_classes_are_what_they_are_listed_for() -> None:
    """What the names are taken from is what is used."""
    assert {needed.owner for needed in NAMES} <= {*KvChannel.__mro__, *TlsConnection.__mro__, Connection, EPollReactor}
    assert TLSMemoryBIOProtocol in TlsConnection.__mro__
    assert TLSMemoryBIOFactory in TlsFactory.__mro__
    assert Lanes.__mro__ == (Lanes, object)
