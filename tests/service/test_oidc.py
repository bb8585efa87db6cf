"""Tokens of an OpenID Connect provider do what keys do; nothing but its signature, for this service, is believed."""

import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from api.auth import SCOPES_OF
from api.errors import Unauthenticated
from api.oidc import Provider
from api.settings import ServiceSettings

ISSUER = "https://login.example.org"
OURS, OTHERS = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    published = jwt.algorithms.RSAAlgorithm.to_jwk(OURS.public_key(), as_dict=True) | {"kid": "one", "use": "sig"}
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda self: {"keys": [published]})
    return Provider(ServiceSettings(oidc_issuer=ISSUER))


def token(key: object = OURS, algorithm: str = "RS256", kid: str = "one", **changed: object) -> str:
    claims = {"iss": ISSUER, "aud": "dlmp", "sub": "ann", "exp": time.time() + 60, "dlmp_role": "operator"} | changed
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key, algorithm, headers={"kid": kid})


def test_a_token_of_the_provider_names_its_holder_and_what_they_may(provider: Provider):
    who = provider.identify(token())
    assert (who.key_id, who.role, who.participant_id) == ("oidc:ann", "operator", None)
    assert who.scopes == SCOPES_OF["operator"]
    bidder = provider.identify(token(dlmp_role="aggregator", dlmp_participant="par_000000000000000000000001"))
    assert bidder.participant_id == "par_000000000000000000000001"
    assert not bidder.sees_all


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": OTHERS},
        {"kid": "two"},
        {"key": "a secret of at least thirty-two bytes", "algorithm": "HS256"},
        {"key": None, "algorithm": "none"},
        {"iss": "https://login.example.com"},
        {"aud": "another service"},
        {"exp": time.time() - 3600},
        {"exp": None},
        {"sub": None},
        {"dlmp_role": None},
        {"dlmp_role": "public"},
        {"dlmp_role": "aggregator"},
        {"dlmp_participant": "par_000000000000000000000001"},
    ],
)
def test_any_other_token_is_refused(provider: Provider, wrong: dict[str, object]):
    with pytest.raises(Unauthenticated):
        provider.identify(token(**wrong))


@pytest.mark.parametrize("text", ["", "a.b.c", "not a token"])
def test_what_is_no_token_is_refused(provider: Provider, text: str):
    with pytest.raises(Unauthenticated):
        provider.identify(text)
