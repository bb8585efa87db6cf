"""Settings of the service, from the environment: ``DLMP_DATA_DIR`` and so on."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

KIB, MIB = 1024, 1024 * 1024


class ServiceSettings(BaseSettings):
    """How the service runs; every setting is a variable ``DLMP_`` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="DLMP_", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("dlmp-data"), description="Folder of the embedded database.")
    database_url: str = Field(
        "", description="Database, as postgresql://user@host/name; blank is SQLite in the data directory."
    )
    max_body_bytes: int = Field(5 * MIB, gt=0, description="Largest body of a request [bytes].")
    max_bids_per_market: int = Field(10_000, gt=0, description="Most bids of a participant in a market.")
    max_blocks_per_market: int = Field(50, gt=0, description="Most block bids of a participant in a market.")
    secure_cookies: bool = Field(
        False, description="Keep a browser's session over TLS only though a proxy before this process ends it."
    )
    rate_per_second: float = Field(2_000.0, gt=0, description="Requests of a key or address, on average [1/s].")
    rate_burst: float = Field(4_000.0, ge=1, description="Requests of a key or address at once.")
    max_streams: int = Field(50, gt=0, description="Streams of events of a key, or of an address without one, at once.")
    stream_s: float = Field(
        3600.0, gt=0, description="A stream of events ends after so long, to be asked for again [s]."
    )
    run_time_limit_s: float = Field(600.0, gt=0, description="Longest time that a run may take [s].")
    run_memory_limit_mib: int = Field(8 * KIB, gt=0, description="Most memory that a run may take [MiB].")
    lease_s: float = Field(10.0, gt=0, description="A run whose worker gives no sign for so long is taken up [s].")
    max_run_attempts: int = Field(3, gt=0, description="How often an interrupted run is begun before it has failed.")
    runs_here: bool = Field(True, description="Carry out runs in this process' children.")
    oidc_issuer: str = Field("", description="OpenID Connect provider whose tokens are taken; blank: none.")
    oidc_audience: str = Field("dlmp", description="What its tokens must be meant for.")
    oidc_jwks_url: str = Field("", description="Its keys; blank: /.well-known/jwks.json of the issuer.")
    max_webhooks: int = Field(20, gt=0, description="Most webhooks of a participant, and of the operators.")
    webhooks_here: bool = Field(True, description="Send what webhooks are told from this process.")
    webhook_timeout_s: float = Field(10.0, gt=0, description="Longest time that an attempt to deliver may take [s].")
    webhook_give_up_s: float = Field(86_400.0, gt=0, description="A delivery is tried for so long [s].")
    webhook_allowed_networks: str = Field(
        "", description="Networks beside the public ones that webhooks may lead to, as 10.1.0.0/16,fd12::/48."
    )
    webhook_allow_http: bool = Field(False, description="Take webhooks without TLS, for tests and development.")
    log_format: Literal["json", "text"] = Field("json", description="Form of the log on standard output.")

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        _networks(text)
        return text

    @property
    def allowed_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Networks beside the public ones that webhooks may lead to."""
        return _networks(self.webhook_allowed_networks)

    @property
    def is_embedded(self) -> bool:
        """Whether the database is SQLite in the data directory."""
        return self.url.startswith("sqlite")

    @property
    def url(self) -> str:
        """The database as SQLAlchemy names it."""
        if self.database_url:
            scheme, _, rest = self.database_url.partition("://")
            return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else self.database_url
        return f"sqlite:///{self.data_dir / 'dlmp.sqlite'}"


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(one.strip()) for one in text.split(",") if one.strip())
