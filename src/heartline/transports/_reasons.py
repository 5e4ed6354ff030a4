"""Why a stream broke, in words for a person."""

from __future__ import annotations

import ssl

__all__ = ["hint_of", "reason_of"]

_ALERTS = {
    "CERTIFICATE_REQUIRED": "it wants a certificate: tls= a context with load_cert_chain()",
    "HANDSHAKE_FAILURE": (
        "it may speak no TLS (then the URL's scheme is tcp:// or ws://), or want a certificate "
        "(tls= a context with load_cert_chain()), or have no cipher in common"
    ),
    "UNKNOWN_CA": "it does not trust the authority of the certificate that it was shown",
    "PROTOCOL_VERSION": "there is no version of TLS in common",
}
"""What the alerts mean whose names do not say it."""

_FAILURES = {
    "HTTP_REQUEST": "the peer speaks HTTP without TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer showed no certificate",
    "UNSUPPORTED_PROTOCOL": "there is no version of TLS in common",
    "NO_SHARED_CIPHER": "there is no cipher in common",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
}

_UNKNOWN_AUTHORITY = {18, 19, 20, 21}
"""OpenSSL's codes for a certificate that is its own, or whose authority is not at hand (X509_V_ERR_...)."""


def reason_of(error: BaseException) -> str:
    """Say in one line why a stream broke, given the error that it raised; names a TLS alert of the peer."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    text = _reason_of_tls(cause) if isinstance(cause, ssl.SSLError) else str(cause)
    return text if text.isprintable() else ascii(text)


def hint_of(error: BaseException) -> str:
    """What a client may do about the error that ended its own handshake; may be empty."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_AUTHORITY:
            return "; an authority of your own is trusted with tls=ssl.create_default_context(cafile=...)"
    elif isinstance(error, ssl.SSLEOFError):
        return "; does it speak TLS?"
    elif isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "; the URL's scheme may have to be tcp:// or ws://"
    return ""


def _reason_of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLEOFError):
        return "the peer ended the stream in the TLS handshake"
    reason = error.reason or ""
    _, is_alert, name = reason.partition("ALERT_")
    if is_alert:
        told = f"the peer sent the TLS alert '{name.replace('_', ' ').lower()}'"
        return f"{told}: {_ALERTS[name]}" if name in _ALERTS else told
    return _FAILURES.get(reason) or str(error)
