"""Guards `server.settings`: where a setting comes from, and what is refused in which words."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server.errors import SettingsError
from server.settings import PREFIX, Settings, read_settings


@pytest.fixture(autouse=True)
def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    return tmp_path


def refusal(file: Path | None = None, **flags: Any) -> str:
    """The sentence with which settings are refused."""
    with pytest.raises(SettingsError) as caught:
        read_settings(file, **flags)
    return str(caught.value)


def test_defaults(aside: Path) -> None:
    """Without anything said, everything has a value, and the budgets are in order."""
    settings = read_settings()
    assert (settings.host, settings.port, settings.index) == ("127.0.0.1", 8765, Path("var/index"))
    assert settings.min_budget_ms <= settings.budget_ms <= settings.max_budget_ms


def test_precedence(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag beats the environment, the environment beats the file, the file beats the default."""
    file = aside / "my.toml"
    file.write_text("port = 1\nmax_queue = 1\nmax_batch = 1\n", encoding="utf-8")
    monkeypatch.setenv("FAQWIRE_PORT", "2")
    monkeypatch.setenv("FAQWIRE_MAX_QUEUE", "2")
    settings = read_settings(file, port=3)
    assert (settings.port, settings.max_queue, settings.max_batch) == (3, 2, 1)
    assert settings.max_connections == Settings.model_fields["max_connections"].default


def test_journal(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal is named by a file or a URL, "off" is none; its password is not shown with the settings."""
    assert read_settings().journal is None
    monkeypatch.setenv("FAQWIRE_JOURNAL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("FAQWIRE_JOURNAL_DAYS", "off")
    settings = read_settings()
    assert (settings.journal, settings.journal_days) == ("postgresql://u:secret@h/d", None)
    assert "secret" not in repr(settings)
    assert read_settings(journal="off").journal is None


def test_flag_that_is_not_given(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag of None was not given, and hides nothing; one of 0 was."""
    monkeypatch.setenv("FAQWIRE_PORT", "2")
    assert read_settings(port=None).port == 2
    assert read_settings(port=0).port == 0


def test_empty_variable_is_none(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing says nothing."""
    monkeypatch.setenv("FAQWIRE_PORT", "")
    assert read_settings().port == 8765


def test_file_in_the_working_directory(aside: Path) -> None:
    """`faqwire.toml` is read where there is one, unless another file is named."""
    (aside / "faqwire.toml").write_text("port = 1\n", encoding="utf-8")
    (aside / "other.toml").write_text("max_queue = 7\n", encoding="utf-8")
    assert read_settings().port == 1
    assert read_settings(aside / "other.toml").port == 8765


def test_lists(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is a TOML array in the file and JSON in the environment."""
    file = aside / "my.toml"
    file.write_text('allowed_origins = ["https://a.example"]\n', encoding="utf-8")
    assert read_settings(file).allowed_origins == ("https://a.example",)
    monkeypatch.setenv("FAQWIRE_ALLOWED_ORIGINS", '["https://b.example", "https://c.example"]')
    assert read_settings(file).allowed_origins == ("https://b.example", "https://c.example")
    monkeypatch.setenv("FAQWIRE_ALLOWED_ORIGINS", "https://b.example")
    sentence = refusal(file)
    assert "environment" in sentence
    assert "allowed_origins" in sentence


def test_tables(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is a TOML table in the file and JSON in the environment; numbers in it are taken as they are written."""
    file = aside / "my.toml"
    file.write_text('[provider_options]\ndevice_id = 1\ncudnn_conv_algo_search = "HEURISTIC"\n', encoding="utf-8")
    assert read_settings(file).provider_options == {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"}
    monkeypatch.setenv("FAQWIRE_PROVIDER_OPTIONS", '{"gpu_mem_limit": 2147483648}')
    assert read_settings().provider_options == {"gpu_mem_limit": "2147483648"}


def test_frozen(aside: Path) -> None:
    """Settings do not change once they are read."""
    with pytest.raises(ValidationError):
        read_settings().port = 1  # type: ignore[misc]


# A TOML file, and the refusal that it gets.
BAD_FILES: dict[str, tuple[str, str]] = {
    "unknown key": ("prot = 1\n", r"my\.toml: prot: is not a setting; did you mean port\?"),
    "unknown key, nothing close": ("zzz = 1\n", r"my\.toml: zzz: is not a setting; `docs/settings\.md` lists them all"),
    "table": ("[server]\nport = 1\n", r"my\.toml: server: is not a setting; .*"),
    "not TOML": ("port: 1\n", r"my\.toml is not valid TOML: .*line 1.*"),
    "twice": ("port = 1\nport = 2\n", r"my\.toml is not valid TOML: .*"),
    "out of range": ("port = 65536\n", r"my\.toml: port: input should be less than or equal to 65535, not 65536"),
    "wrong type": ('port = "http"\n', r"my\.toml: port: input should be a valid integer, .*, not 'http'"),
    "not a choice": (
        'provider = "tpu"\n',
        r"my\.toml: provider: input should be 'auto', 'cpu', 'cuda' or 'tensorrt', not 'tpu'",
    ),
    "list of numbers": ("allowed_origins = [1]\n", r"my\.toml: allowed_origins: input should be a valid string, not 1"),
    "option that is no text": (
        "[provider_options]\narena_extend_strategy = true\n",
        r"my\.toml: provider_options: input should be a valid string, not True",
    ),
    "endless": (
        "drain_seconds = inf\n",
        r"my\.toml: drain_seconds: input should be less than or equal to 86400, not inf",
    ),
    "an algorithm without a key": (
        'token_algorithm = "RS256"\n',
        r"settings: token_algorithm is set, and no token is asked for without a token_key",
    ),
    "empty host": ('host = ""\n', r"my\.toml: host: string should have at least 1 character, not ''"),
    "no network": (
        'trusted_proxies = ["::1", "proxy"]\n',
        r"my\.toml: trusted_proxies: 'proxy' does not appear to be an IPv4 or IPv6 network, not \['::1', 'proxy'\]",
    ),
    "certificate without a key": (
        'tls_certificate = "site.pem"\n',
        "settings: tls_certificate and tls_key need each other; set both, or neither",
    ),
    "audience of no tokens": (
        'token_audience = "chat"\n',
        "settings: token_audience is set, and no token is asked for without a token_key",
    ),
    "no algorithm": (
        'token_algorithm = "none"\n',
        r"my\.toml: token_algorithm: input should be 'HS256' or 'RS256', not 'none'",
    ),
    "budget above the largest": (
        "budget_ms = 99\nmax_budget_ms = 98\n",
        r"settings: budget_ms \(99\) is outside of .*",
    ),
    "budget below the least": ("budget_ms = 9\nmin_budget_ms = 10\n", r"settings: budget_ms \(9\) .* \(10 to 10000\)"),
}


@pytest.mark.parametrize(("toml", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(aside: Path, toml: str, says: str) -> None:
    """What is wrong in a file is named with the file, the setting, and what would be right, in one line."""
    (aside / "my.toml").write_text(toml, encoding="utf-8")
    assert re.fullmatch(says, refusal(Path("my.toml")))


def test_file_that_cannot_be_read(aside: Path) -> None:
    """A file that is missing, no file, or no text is refused in one line that names it."""
    assert refusal(Path("my.toml")) == "my.toml does not exist; name a settings file, or leave it out"
    (aside / "my.toml").mkdir()
    assert refusal(Path("my.toml")) == "my.toml cannot be read (Is a directory)"
    (aside / "latin.toml").write_bytes(b"host = '\xe9'\n")
    assert refusal(Path("latin.toml")).startswith("latin.toml is not valid TOML: ")


def test_file_in_the_working_directory_is_checked(aside: Path) -> None:
    """A file that nobody named is held to the same rules."""
    (aside / "faqwire.toml").write_text("prot = 1\n", encoding="utf-8")
    assert refusal() == "faqwire.toml: prot: is not a setting; did you mean port?"


def test_bad_environment(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong in the environment is named by its variable."""
    monkeypatch.setenv("FAQWIRE_PORT", "-1")
    assert refusal() == "environment: FAQWIRE_PORT: input should be greater than or equal to 0, not '-1'"
    monkeypatch.setenv("FAQWIRE_PROT", "1")
    assert refusal() == "environment: FAQWIRE_PROT: is not a setting; did you mean FAQWIRE_PORT?"


def test_bad_flags(aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong on the command line is named by its option, also where the environment says something too."""
    monkeypatch.setenv("FAQWIRE_BUDGET_MS", "50")
    assert refusal(budget_ms=0) == "--budget-ms: input should be greater than or equal to 1, not 0"


def test_all_that_is_wrong_at_once(aside: Path) -> None:
    """Several settings out of their ranges are several lines."""
    (aside / "my.toml").write_text("port = -1\nmax_batch = 0\n", encoding="utf-8")
    lines = refusal(Path("my.toml"), sessions=-1).splitlines()
    assert sorted(line.partition(": input")[0] for line in lines) == [
        "--sessions",
        "my.toml: max_batch",
        "my.toml: port",
    ]
