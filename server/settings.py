"""Settings: from flags, the environment, a TOML file, and defaults, in this order.

`docs/settings.md` lists them, and a test holds it complete.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from export.runtime.choices import Provider, VariantChoice
from intents.search import SearchMode
from server.address import parse_networks
from server.errors import SettingsError

PREFIX = "FAQWIRE_"
TextPolicy = Literal["off", "redacted", "full"]
DEFAULT_FILE = Path("faqwire.toml")


def _none_if_off(value: Any) -> Any:
    """TOML and the environment have no None."""
    return None if value == "off" else value


def _are_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    parse_networks(texts)
    return texts


def _is_collector(url: str | None) -> str | None:
    if url is None:
        return None
    place = urlsplit(url)  # of what is no URL it raises a ValueError, which is a sentence
    if place.scheme not in {"http", "https"} or not place.hostname:
        raise ValueError("it begins with http:// or https:// and a host, such as http://127.0.0.1:4318/v1/traces")
    if place.username is not None or place.password is not None or place.query or place.fragment:
        # It shows in logs and in error messages.
        raise ValueError("it has a scheme, a host, a port and a path alone; OTEL_EXPORTER_OTLP_HEADERS takes secrets")
    return url


class Settings(BaseSettings):
    """Everything that can be set; frozen once read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    model: Annotated[Path, Field(description="folder of the bi-encoder's bundle")] = Path("var/model")
    index: Annotated[Path, Field(description="folder of the FAQ's index")] = Path("var/index")
    cross_encoder: Annotated[
        Path | None, Field(description="folder of the cross-encoder's bundle; without one nothing is confirmed")
    ] = None
    index_poll_seconds: Annotated[
        float | None,
        Field(
            description='how often a server looks for another current version of the index; "off" is never',
            ge=0.1,
            le=86_400,
        ),
        BeforeValidator(_none_if_off),
    ] = 1.0
    pair_tokens: Annotated[
        int, Field(description="most tokens of a message joined with a candidate; indexes keep theirs", ge=16)
    ] = 64
    candidates: Annotated[
        int, Field(description="most candidates of a message that the cross-encoder reads", ge=1, le=10)
    ] = 5
    host: Annotated[str, Field(description="address to listen on", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(description="port to listen on; 0 picks a free one", ge=0, le=65535)] = 8765
    allowed_origins: Annotated[
        tuple[str, ...],
        Field(description='origins of browser pages that may connect beside the server\'s own, "*" for all'),
    ] = ()
    require_origin: Annotated[bool, Field(description="whether clients without an Origin are refused")] = False
    trusted_proxies: Annotated[
        tuple[str, ...],
        Field(description="addresses and networks of proxies whose X-Forwarded-For is believed"),
        AfterValidator(_are_networks),
    ] = ()
    tls_certificate: Annotated[Path | None, Field(description="PEM file of the certificate to serve TLS with")] = None
    tls_key: Annotated[Path | None, Field(description="PEM file of its private key")] = None
    token_key: Annotated[
        Path | None, Field(description="file of the key that tokens are checked with; without one none is needed")
    ] = None
    token_algorithm: Annotated[Literal["HS256", "RS256"], Field(description="how tokens are signed")] = "HS256"  # noqa: S105
    token_audience: Annotated[str | None, Field(description="what tokens have to be meant for", min_length=1)] = None
    provider: Annotated[Provider, Field(description='where models run; "auto" takes CUDA if it is there')] = "auto"
    variant: Annotated[
        VariantChoice, Field(description='precision to run; "auto" is fp16 on CUDA, int8 on CPUs fast at it, else fp32')
    ] = "auto"
    provider_options: Annotated[
        dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]],
        Field(description="options of the CUDA or TensorRT provider, as ONNX Runtime names them"),
    ] = {}
    tensorrt_cache: Annotated[Path, Field(description="folder that TensorRT's engines are kept in")] = Path(
        "var/tensorrt"
    )
    sessions: Annotated[
        int,
        Field(
            description="model sessions, each with a thread of its own; 0 is one more than cores, or one on a GPU",
            ge=0,
            le=256,
        ),
    ] = 0
    search: Annotated[SearchMode, Field(description="Annoy's trees, or an exact scan of all phrasings")] = "annoy"
    budget_ms: Annotated[int, Field(description="budget of a message that brings none, in milliseconds", ge=1)] = 100
    min_budget_ms: Annotated[int, Field(description="least budget that a message may bring", ge=1)] = 5
    max_budget_ms: Annotated[int, Field(description="largest budget that a message may bring", ge=1)] = 10_000
    max_text: Annotated[int, Field(description="most characters of a message's text", ge=1, le=100_000)] = 1000
    max_frame: Annotated[int, Field(description="most bytes of a websocket frame", ge=256, le=1 << 24)] = 16_384
    max_in_flight: Annotated[int, Field(description="most unanswered messages of a connection", ge=1)] = 64
    max_connections: Annotated[int, Field(description="most connections at a time", ge=1)] = 10_000
    max_connections_per_address: Annotated[
        int, Field(description="most connections of one address at a time", ge=1)
    ] = 100
    max_handshakes: Annotated[
        int, Field(description="most connections at a time whose handshake is not over", ge=1, le=1_000_000)
    ] = 2000
    connections_per_second: Annotated[
        float, Field(description="new connections of one address a second, in the long run", ge=0.01, le=1_000_000)
    ] = 10.0
    connection_burst: Annotated[
        int, Field(description="new connections of one address at once", ge=1, le=1_000_000)
    ] = 100
    messages_per_second: Annotated[
        float, Field(description="messages of one connection a second, in the long run", ge=0.01, le=1_000_000)
    ] = 50.0
    message_burst: Annotated[int, Field(description="messages of one connection at once", ge=1, le=1_000_000)] = 200
    max_outgoing: Annotated[int, Field(description="most bytes that wait for one client to read them", ge=65_536)] = (
        1_048_576
    )
    send_seconds: Annotated[
        float, Field(description="how long a client may leave more than 32 KiB unread, in seconds", ge=1, le=86_400)
    ] = 20.0
    idle_seconds: Annotated[
        float, Field(description="after how many seconds without a message a connection is closed", ge=1, le=86_400)
    ] = 600.0
    handshake_seconds: Annotated[
        float, Field(description="how long a handshake may take, in seconds", ge=1, le=86_400)
    ] = 10.0
    hello_seconds: Annotated[
        float, Field(description="how long a client has for a hello with its token, in seconds", ge=1, le=86_400)
    ] = 10.0
    max_queue: Annotated[
        int,
        Field(
            description="most messages, or pairs with candidates, waiting for a model; more than `candidates`",
            ge=1,
        ),
    ] = 1024
    max_batch: Annotated[int, Field(description="most messages of a batch", ge=1, le=1024)] = 32
    max_batch_tokens: Annotated[int, Field(description="most tokens of a batch, padding included", ge=16)] = 4096
    max_batch_ms: Annotated[
        float, Field(description="how long a batch may be expected to take, in milliseconds", ge=0.1)
    ] = 25.0
    cache_size: Annotated[
        int, Field(description="most answers that are kept for when they are asked for again; 0 is none", ge=0)
    ] = 10_000
    journal: Annotated[
        str | None,
        # It may carry a password, and settings are shown in a traceback's last line.
        Field(
            description='file of the journal (SQLite) or postgresql:// URL; "off" keeps none', min_length=1, repr=False
        ),
        BeforeValidator(_none_if_off),
    ] = None
    journal_text: Annotated[
        TextPolicy,
        Field(description="texts in the journal: none, with addresses and numbers taken out, or as they were typed"),
    ] = "redacted"
    journal_days: Annotated[
        int | None,
        Field(description='days after which records are deleted; "off" keeps them for good', ge=1, le=36_500),
        BeforeValidator(_none_if_off),
    ] = 90
    journal_queue: Annotated[
        int, Field(description="most asks that wait to be written to the journal, and as many feedbacks", ge=1)
    ] = 10_000
    drain_seconds: Annotated[
        float, Field(description="how long a server may take to stop, in seconds", ge=1, le=86_400)
    ] = 25.0
    closings_per_second: Annotated[
        float,
        Field(description="how many clients of a stopping server are sent away in a second", ge=0.01, le=1_000_000),
    ] = 500.0
    workers: Annotated[
        int, Field(description="processes that serve the port together; 1 is without a supervisor", ge=1, le=256)
    ] = 1
    start_seconds: Annotated[
        float,
        Field(description="how long one of several workers may take to begin to serve, in seconds", ge=1, le=86_400),
    ] = 600.0
    metrics_host: Annotated[str, Field(description="address to serve metrics on", min_length=1)] = "127.0.0.1"
    metrics_port: Annotated[
        int | None,
        Field(description='port to serve metrics on; 0 picks a free one, "off" is none', ge=0, le=65535),
        BeforeValidator(_none_if_off),
    ] = 9464
    trace_endpoint: Annotated[
        str | None,
        Field(description='URL that traces are sent to (OTLP over HTTP); "off" sends none', min_length=1),
        BeforeValidator(_none_if_off),
        AfterValidator(_is_collector),
    ] = None
    trace_share: Annotated[float, Field(description="share of messages that are traced", ge=0, le=1)] = 0.05
    slow_ms: Annotated[
        int | None,
        Field(description='from how many milliseconds on a message is logged as slow; "off" logs none', ge=1),
        BeforeValidator(_none_if_off),
    ] = 250
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="least level to log")] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"], Field(description='"auto" is console on a terminal, else json')
    ] = "auto"

    @model_validator(mode="after")
    def _budgets_are_in_order(self) -> Self:
        if not self.min_budget_ms <= self.budget_ms <= self.max_budget_ms:
            raise ValueError(
                f"budget_ms ({self.budget_ms}) is outside of min_budget_ms and max_budget_ms "
                f"({self.min_budget_ms} to {self.max_budget_ms})"
            )
        return self

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key need each other; set both, or neither")
        if self.token_audience is not None and self.token_key is None:
            raise ValueError("token_audience is set, and no token is asked for without a token_key")
        if "token_algorithm" in self.model_fields_set and self.token_key is None:
            raise ValueError("token_algorithm is set, and no token is asked for without a token_key")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the TOML file named in `model_config`."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings(file: Path | None = None, **flags: Any) -> Settings:
    """Read settings.

    Args:
        file: a TOML file, or None for `faqwire.toml` in the working directory where there is one.
        flags: from the command line; None is not given.

    Raises:
        SettingsError: the file is missing or not TOML, or a setting is unknown or out of its range.
    """
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    if file is not None:
        _check_file(file)
    _check_environment()

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return FromFile(**given)
    except ValidationError as exc:
        sentences = [_sentence(error, given, file) for error in exc.errors()]
        raise SettingsError("\n".join(sentences)) from None
    except ValueError as exc:  # a list in the environment that is not JSON
        raise SettingsError(f"a setting in the environment cannot be read: {exc}") from exc


def _check_file(file: Path) -> None:
    try:
        known = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{file} does not exist; name a settings file, or leave it out") from None
    except OSError as exc:
        raise SettingsError(f"{file} cannot be read ({exc.strerror})") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise SettingsError(f"{file} is not valid TOML: {exc}") from exc
    for name in known:
        if name not in Settings.model_fields:
            raise SettingsError(f"{file}: {name}: is not a setting{_guess(name)}")


def _check_environment() -> None:
    for variable in os.environ:
        name = variable.lower().removeprefix(PREFIX.lower())
        if variable.upper().startswith(PREFIX) and name not in Settings.model_fields:
            raise SettingsError(f"environment: {variable}: is not a setting{_guess(name, PREFIX)}")


def _guess(name: str, prefix: str = "") -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1)
    if not close:
        return "; `docs/settings.md` lists them all"
    return f"; did you mean {prefix + close[0].upper() if prefix else close[0]}?"


def _sentence(error: Any, flags: dict[str, Any], file: Path | None) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    if not name:
        return f"settings: {message}"
    if name in flags:
        place = f"--{name.replace('_', '-')}"
    elif PREFIX + name.upper() in os.environ:
        place = f"environment: {PREFIX + name.upper()}"
    else:
        place = f"{file}: {name}"
    return f"{place}: {message[:1].lower()}{message[1:]}, not {error['input']!r}"
