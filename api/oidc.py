"""Bearer tokens of an OpenID Connect provider, beside the service's own keys.

A token is a JWT (RFC 7519) that the provider of the settings signed, for this service; the claims ``dlmp_role`` and
``dlmp_participant`` say what its holder may do and for whom.
"""

from typing import Any

import jwt

from api.auth import AGGREGATOR, ROLES, SCOPES_OF, Principal, unknown_key
from api.settings import ServiceSettings

ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA")
"""Asymmetric ones only: what is public must not be able to sign."""
ROLE_CLAIM, PARTICIPANT_CLAIM = "dlmp_role", "dlmp_participant"


class Provider:
    """Checks tokens against the keys that the provider publishes."""

    def __init__(self, settings: ServiceSettings):
        self._issuer, self._audience = settings.oidc_issuer, settings.oidc_audience
        url = settings.oidc_jwks_url or f"{self._issuer.rstrip('/')}/.well-known/jwks.json"
        self._keys = jwt.PyJWKClient(url, cache_keys=True, lifespan=300, timeout=5)

    def identify(self, token: str) -> Principal:
        """Return who holds `token`.

        Raises
        ------
        Unauthenticated
            When it is not signed by the provider for this service, has expired, or names no role.
        """
        try:
            key = self._keys.get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=30,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError:
            raise unknown_key() from None
        role, participant_id = claims.get(ROLE_CLAIM), claims.get(PARTICIPANT_CLAIM)
        is_participant = isinstance(participant_id, str)
        if role not in ROLES or (role == AGGREGATOR) != is_participant:
            raise unknown_key()
        return Principal(f"oidc:{claims['sub']}", role, SCOPES_OF[role], participant_id)
