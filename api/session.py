"""A browser's session: the API key in a cookie that no script can read, and a token against forged requests.

The cookie is sent to its own site only.  What changes anything must also show the token, which another site cannot
know: it is made of the key.
"""

import hashlib
import hmac
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.errors import Forbidden

COOKIE, HEADER = "dlmp_key", "x-csrf-token"
SECURE_COOKIE = f"__Host-{COOKIE}"
"""Its name over TLS: with it browsers take the cookie from this host itself only (RFC 6265bis, 4.1.3.2)."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})


def forgery_token(key: str) -> str:
    """Token that a page of the session of an API key shows with what it changes."""
    return hashlib.sha256(b"dlmp forgery token\n" + key.encode()).hexdigest()


def kept_key(request: Request) -> str | None:
    """API key that the browser keeps; None where it keeps none."""
    return request.cookies.get(_cookie(request)["key"])


def key_of(request: Request) -> str | None:
    """API key of the session that a request belongs to; None where it belongs to none.

    Raises
    ------
    Forbidden
        When the request would change something and does not show the session's token.
    """
    key = kept_key(request)
    if key is None or request.method in READING:
        return key
    shown = request.headers.get(HEADER, "")
    if not hmac.compare_digest(shown.encode(), forgery_token(key).encode()):
        raise Forbidden("forged", f"A request of a session must show its token in the header {HEADER}.")
    return key


def begin(response: Response, request: Request, key: str) -> None:
    """Let the browser keep `key` until it is closed."""
    response.set_cookie(**_cookie(request), value=key)


def end(response: Response, request: Request) -> None:
    """Let the browser forget its key."""
    response.delete_cookie(**_cookie(request))


def _cookie(request: Request) -> dict[str, Any]:
    """Name and attributes of the cookie, as a request came in."""
    is_secure = request.url.scheme == "https" or request.app.state.service.settings.secure_cookies
    name = SECURE_COOKIE if is_secure else COOKIE
    return {"key": name, "httponly": True, "samesite": "strict", "secure": is_secure}
