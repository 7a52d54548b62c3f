"""OpenSSL's contexts: versions, ciphers, certificates; no resumption.

TLS 1.3 with OpenSSL's own suites, all of them modern; TLS 1.2 with ephemeral keys and authenticated encryption alone
(RFC 9325, section 4.2), in the server's order; keys are agreed upon on few curves. Nothing is resumed: neither session
IDs nor tickets. So each handshake checks the client's certificate and uses the current key pair, and there is no ticket
key whose loss would open recorded traffic. Connections here live long, so that this costs little.
"""

from __future__ import annotations

from OpenSSL import SSL, crypto
from OpenSSL._util import lib as openssl

from ..core.errors import Unavailable
from ..sessions.certificates import Identity

#: For TLS 1.2. AES-128 first: it is as good for this purpose, and quicker.
CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
#: Keys are agreed upon on these curves alone, in TLS 1.3 too, where OpenSSL by itself would also do it in finite fields
#: (ffdhe2048 and so on), and on curves that cost more. The first that OpenSSL knows all of counts; the combination with
#: ML-KEM-768, which no quantum computer opens later, is known from OpenSSL 3.5 on.
#: Source: Mozilla's profile "intermediate", version 5.7, `tls_curves`; FIPS 203.
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
#: Certificates between a client's and the authority's at most.
_MAX_DEPTH = 9


def make_context(identity: Identity, protocol: bytes) -> SSL.Context:
    """A server's context for one protocol (`h2`, `http/1.1`). Quick, any thread.

    A client that asks for other protocols by ALPN is refused in the handshake; one that asks for none is not. Raises
    Unavailable, naming the setting and the file, when OpenSSL refuses files that `read_identity` accepted.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # Memory of an idle connection's buffers is given back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(CIPHERS)
    _choose_groups(context)
    context.set_alpn_select_callback(lambda _, offered: protocol if protocol in offered else b"")
    first, *others = load_pem_x509_certificates(identity.chain)
    try:
        context.use_certificate(first)
        for certificate in others:
            context.add_extra_chain_cert(certificate)
    except SSL.Error as error:
        raise identity.files.refused("certificate", f": OpenSSL does not take it: {_reason(error)}") from None
    try:
        context.use_privatekey(load_pem_private_key(identity.private_key, None))  # type: ignore[arg-type]
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise identity.files.refused("private_key", f": OpenSSL does not take it: {_reason(error)}") from None
    if identity.client_ca:
        _ask_for_certificates(context, identity)
    return context


def _choose_groups(context: SSL.Context) -> None:
    # pyOpenSSL sets one curve or none, but the binding below it, which Twisted's TLS uses likewise, has OpenSSL's
    # function, from cryptography 47 on. Without it OpenSSL's own groups stay in force, which are sound.
    choose = getattr(openssl, "SSL_CTX_set1_curves_list", None)
    if choose is None or any(choose(context._context, names) == 1 for names in GROUPS):
        return
    # Otherwise the reason would be reported with the next failure.
    openssl.ERR_clear_error()


def _ask_for_certificates(context: SSL.Context, identity: Identity) -> None:
    from cryptography.x509 import load_pem_x509_certificates

    store = context.get_cert_store()
    if store is None:  # which OpenSSL makes with every context
        raise Unavailable("OpenSSL has no store of certificates")
    # An authority counts even if it is not self-signed: the operator has said whom to trust.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    try:
        for authority in load_pem_x509_certificates(identity.client_ca):
            store.add_cert(crypto.X509.from_cryptography(authority))
            # Tells clients that have several certificates which one to send.
            context.add_client_ca(authority)
    except (SSL.Error, crypto.Error) as error:
        raise identity.files.refused("client_ca", f": OpenSSL does not take it: {_reason(error)}") from None
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_verify_depth(_MAX_DEPTH)


def _reason(error: Exception) -> str:
    """In OpenSSL's words."""
    try:
        return str(error.args[0][-1][2])
    except (IndexError, TypeError):
        return str(error) or "no reason given"
