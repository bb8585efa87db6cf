"""A browser's session: the API key in a cookie that no script can read, and a token against forged requests.

The cookie is sent to its own site only.  What changes anything must also show the token, which another site cannot
know: it is made of the key.
"""

import hashlib
import hmac

from starlette.requests import Request
from starlette.responses import Response

from api.errors import Forbidden

COOKIE, HEADER = "dlmp_key", "x-csrf-token"
READING = frozenset({"GET", "HEAD", "OPTIONS"})


def forgery_token(key: str) -> str:
    """Token that a page of the session of an API key shows with what it changes."""
    return hashlib.sha256(b"dlmp forgery token\n" + key.encode()).hexdigest()


def key_of(request: Request) -> str | None:
    """API key of the session that a request belongs to; None where it belongs to none.

    Raises
    ------
    Forbidden
        When the request would change something and does not show the session's token.
    """
    key = request.cookies.get(COOKIE)
    if key is None or request.method in READING:
        return key
    shown = request.headers.get(HEADER, "")
    if not hmac.compare_digest(shown.encode(), forgery_token(key).encode()):
        raise Forbidden("forged", f"A request of a session must show its token in the header {HEADER}.")
    return key


def begin(response: Response, request: Request, key: str) -> None:
    """Let the browser keep `key` until it is closed."""
    is_secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=is_secure)


def end(response: Response) -> None:
    """Let the browser forget its key."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
