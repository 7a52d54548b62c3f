"""Settings and their layers, TLS, and incidents."""

from __future__ import annotations

from .fault import Fault

_MANAGER = "kvtwisted/config/manager.py"

FAULTS = (
    Fault(
        "file-over-runtime",
        "What was changed at run time goes before the file.",
        _MANAGER,
        "build({**self.file, **runtime, **",
        "build({**runtime, **self.file, **",
        "tests/config/test_layers.py",
    ),
    Fault(
        "pinned-changed",
        "What the environment has set to another value cannot be changed at run time.",
        _MANAGER,
        "                if value != pin.value:\n",
        "                if value is None:\n",
        "tests/config/test_manager.py tests/config/test_layers.py tests/config/test_refusals.py",
    ),
    Fault(
        "taken-before-saved",
        "A change that cannot be saved is not taken.",
        _MANAGER,
        """            if runtime != before.runtime:
                self._save(runtime)
            self._state = after
""",
        """            self._state = after
            if runtime != before.runtime:
                self._save(runtime)
""",
        "tests/config/test_manager.py tests/config/test_refusals.py",
    ),
    Fault(
        "restart-keys-live",
        "A key that needs a restart keeps its running value until then.",
        _MANAGER,
        "value_of(settings if key.live else running, name)",
        "value_of(settings, name)",
        "tests/config/test_manager.py",
    ),
    Fault(
        "guarded-by-all",
        "A guarded key is changed by administrators alone.",
        _MANAGER,
        "    if guarded and not actor.administers:\n",
        "    if len(guarded) > 1 and not actor.administers:\n",
        "tests/config/test_actors.py",
    ),
    Fault(
        "true-is-one",
        "A boolean is no integer.",
        "kvtwisted/config/schema.py",
        "valid = isinstance(value, int) and not isinstance(value, bool) and key.low",
        "valid = isinstance(value, int) and key.low",
        "tests/config/test_schema.py",
    ),
    Fault(
        "below-the-least",
        "A number below the least of its key is refused.",
        "kvtwisted/config/schema.py",
        "and key.low <= value <= key.high",
        "and key.low <= value + 1 <= key.high + 1",
        "tests/config/test_schema.py",
    ),
    Fault(
        "open-to-all",
        "A server that others can reach does not start without anybody being asked who they are.",
        "kvtwisted/config/rules.py",
        "if not (_is_loopback(listener.host) or settings.security.tokens or listener.tls_client_ca):",
        "if not (_is_loopback(listener.host) or settings.security.tokens or listener.tls_certificate):",
        "tests/config/test_rules.py",
    ),
    Fault(
        "same-port",
        "Both interfaces on one port are refused, also when one of them listens on every address.",
        "kvtwisted/config/rules.py",
        "grpc.host == http.host or bool({grpc.host, http.host} & _EVERY_ADDRESS)",
        "grpc.host == http.host",
        "tests/config/test_rules.py",
    ),
    Fault(
        "variable-mistyped",
        "An environment variable of a section that is no key's is an error.",
        "kvtwisted/config/sources.py",
        "if name.startswith(_SECTION_PREFIXES)}",
        "if name in _VARIABLES}",
        "tests/config/test_sources.py",
    ),
    Fault(
        "no-certificate",
        "With a client CA a client without a certificate is refused in the handshake.",
        "kvtwisted/tls/contexts.py",
        "SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT",
        "SSL.VERIFY_PEER",
        "tests/tls/test_clients.py tests/tls/test_contexts.py",
    ),
    Fault(
        "resumption",
        "No session is resumed by a ticket.",
        "kvtwisted/tls/contexts.py",
        " | SSL.OP_NO_TICKET\n",
        "\n",
        "tests/http/test_tls.py::test_nothing_is_resumed",
    ),
    Fault(
        "half-a-pair",
        "A certificate is taken up when its files have stopped changing.",
        "kvtwisted/tls/renewal.py",
        "if seen != self._tried and seen == before:",
        "if seen != self._tried:",
        "tests/tls/test_renewal.py",
    ),
    Fault(
        "expired-renewal",
        "A certificate that has expired does not replace the one in force.",
        "kvtwisted/tls/renewal.py",
        "            self._check_dates(identity)\n",
        "",
        "tests/tls/test_renewal.py",
    ),
    Fault(
        "hidden-name",
        "A name in a certificate with characters that cannot be printed is nobody's.",
        "kvtwisted/sessions/peer_names.py",
        " and name.isprintable()",
        "",
        "tests/sessions/test_peer_names.py",
    ),
    Fault(
        "several-common-names",
        "A certificate with several common names and no other name is nobody's.",
        "kvtwisted/sessions/peer_names.py",
        "if len(common_names) == 1 else None",
        "if common_names else None",
        "tests/sessions/test_peer_names.py",
    ),
    Fault(
        "thread-of-incident-lost",
        "An incident in a thread of the pool is logged with where it happened there.",
        "kvtwisted/observability/incidents.py",
        "        failure.frames = [*failure.frames, *raised_at]\n",
        "        pass\n",
        "tests/observability/test_incidents.py",
    ),
)
