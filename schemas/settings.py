"""Settings: ``NIGHTSHIFT_…`` variables over ``nightshift.toml`` over defaults. Built once, at the entry point.

``[pairs.NAME]`` tables of ``nightshift.toml`` (``schemas.settings_file``) add pairs to the built-in ones.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import PairError, SettingsError
from schemas.pair import BUILT_IN_PAIRS, ModelPair
from schemas.printable import printable, printable_start, shown
from schemas.settings_file import settings_file_content
from schemas.windows import Window

_PREFIX = "NIGHTSHIFT_"
_NOT_FIELDS = frozenset({"NIGHTSHIFT_CONFIG"})
#: tables have no form as a variable
_OF_THE_FILE_ALONE = frozenset({"NIGHTSHIFT_PAIRS"})
_DAY_SECONDS = 86_400
#: the ``png_compress_level`` at which ``worker.image_files.png`` encodes
QUICK_PNG: Final = 1
#: they may carry a password, so neither a repr nor an error quotes them
_SECRET = frozenset({"database_url", "broker_url", "images_url", "webhook_url", "webhook_secret"})

SecretUrl = Annotated[str, Field(repr=False)]


class Settings(BaseModel):
    """Every setting of a farm. ``NIGHTSHIFT_LEASE_SECONDS=30`` sets ``lease_seconds``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    #: ledger, images, caches and logs of a farm on one machine
    home: Path = Path("~/.nightshift")
    #: SQLAlchemy URL; empty: a SQLite file in the home folder
    database_url: SecretUrl = ""
    #: Redis URL; empty: an embedded Redis that `render` and `up` start
    broker_url: SecretUrl = ""
    #: fsspec URL of the image store; empty: a folder in the home folder
    images_url: SecretUrl = ""
    #: where the init images lie that manifests may name; empty: ``inputs`` in the home folder
    input_folder: str = ""
    #: where the LoRAs lie that manifests may name, as ``NAME.safetensors``; empty: ``loras`` in the home folder
    lora_folder: str = ""
    #: the pair of batches and workers that name none
    pair: str = "tiny"
    #: "auto" (every GPU, else the CPU), "cpu", or indices: "0,1"
    devices: str = "auto"
    #: where `nightshift worker` answers /healthz and /readyz on the loopback interface; 0: nowhere
    health_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    #: how long an answer of Redis is waited for; a question is asked twice
    broker_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    #: keeps two farms on one Redis apart
    broker_prefix: Annotated[str, Field(pattern=r"^[a-z0-9_.:-]{0,63}$")] = ""
    #: Celery's remote control of workers: anybody who may write to Redis may then ask them, and stop them
    remote_control: bool = False
    #: the hours in which the farm renders, such as "22:00-06:00 Europe/Berlin"; empty: always
    window: str = ""
    lease_seconds: Annotated[float, Field(gt=0, le=_DAY_SECONDS)] = 60.0
    tick_seconds: Annotated[float, Field(gt=0, le=_DAY_SECONDS)] = 1.0
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 3
    #: a stopping worker may take this long for the packs in its hands, then they go back
    stop_seconds: Annotated[float, Field(ge=0, le=_DAY_SECONDS)] = 20.0
    #: a forward pass of which no step ends for this long counts as hung; 0: by what earlier ones of its kind took
    render_budget_seconds: Annotated[float, Field(ge=0, le=_DAY_SECONDS)] = 0.0
    #: a worker that is idle for this long while packs wait in Redis starts afresh
    deaf_seconds: Annotated[float, Field(gt=0, le=_DAY_SECONDS)] = 60.0
    #: jobs in one pack, at most
    pack_size: Annotated[int, Field(ge=1, le=1024)] = 8
    #: images in one forward pass, at most
    forward_pass_size: Annotated[int, Field(ge=1, le=1024)] = 8
    #: the share of a GPU's memory that a forward pass may fill; a larger one is split
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    #: 10⁶ bytes of a device's memory, for what text encoders made of prompts: a prompt's next seed need not ask them
    embedding_cache_megabytes: Annotated[int, Field(ge=0)] = 256
    #: packs that wait in Redis for each live worker
    queued_packs_per_worker: Annotated[int, Field(ge=1, le=1000)] = 4
    base_seed: Annotated[int, Field(ge=0, le=2**64 - 1)] = 0
    #: 1: as small as 6 in a twentieth of its time; 0 and 2 to 9: zlib's, by Pillow. The pixels are the same
    png_compress_level: Annotated[int, Field(ge=0, le=9)] = QUICK_PNG
    #: where batches that start, finish or fail are told of; empty: nowhere
    webhook_url: SecretUrl = ""
    #: signs what the webhook is told, 16 characters at least
    webhook_secret: SecretUrl = ""
    #: the hosts that the webhook may be at, such as "hooks.example.org, 10.0.0.5:8443"
    webhook_hosts: str = ""
    #: the share of a batch's jobs whose failure the webhook is told of
    webhook_failure_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    #: where `up` and `web` serve the web page; 0: any port that is free
    web_port: Annotated[int, Field(ge=0, le=65_535)] = 8_470
    #: the names under which the web page is reached, besides this machine's own: "farm.example.org, 10.0.0.5:8470"
    web_hosts: str = ""
    #: whether who asks from this machine needs a token, too: behind a reverse proxy everybody does
    web_require_token: bool = False
    #: the largest manifest that may be uploaded
    web_upload_bytes: Annotated[int, Field(ge=1)] = 1_000_000_000
    #: the largest of any other request's body; it is held in memory
    web_body_bytes: Annotated[int, Field(ge=1_000)] = 10_000_000
    #: jobs of one request, at the most
    web_max_jobs: Annotated[int, Field(ge=1)] = 1_000_000
    #: of one token, or of an address without a valid one
    web_requests_per_minute: Annotated[int, Field(ge=1)] = 1_200
    #: where the dispatcher tells Prometheus of itself and the farm (``/metrics``); 0: nowhere
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    #: where `nightshift worker` tells Prometheus of its host's workers and GPUs (``/metrics``); 0: nowhere
    worker_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    #: where the web page tells Prometheus of its requests (``/metrics``); 0: nowhere
    web_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    #: the address for all three; anybody who reaches it may read it
    metrics_host: str = "127.0.0.1"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: lines for people, or an object a line for machines
    log_format: Literal["text", "json"] = "text"
    pairs: dict[str, ModelPair] = {}

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return _expanded(home).absolute()

    @field_validator("window")
    @classmethod
    def _hours(cls, window: str) -> str:
        if window:
            Window.parse(window)
        return window

    @field_validator("pairs", mode="before")
    @classmethod
    def _named(cls, pairs: Any) -> Any:
        if not isinstance(pairs, dict) or not all(isinstance(table, dict | ModelPair) for table in pairs.values()):
            raise ValueError("pairs come as [pairs.NAME] tables of nightshift.toml")
        return {
            name: table if isinstance(table, ModelPair) else {"name": name, **table} for name, table in pairs.items()
        }

    @field_validator("input_folder", "lora_folder")
    @classmethod
    def _absolute_where_given(cls, folder: str) -> str:
        return str(_expanded(Path(folder)).absolute()) if folder else ""

    @model_validator(mode="after")
    def _places_of_home(self) -> Self:
        for name, folder in (("input_folder", self.input_folder), ("lora_folder", self.lora_folder)):
            if not folder:
                object.__setattr__(self, name, str(self.home / f"{name.removesuffix('_folder')}s"))
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.home / 'ledger.sqlite3'}")
        if not self.images_url:
            object.__setattr__(self, "images_url", (self.home / "images").as_uri())
        return self

    @property
    def log_folder(self) -> Path:
        return self.home / "logs"

    def known_pairs(self) -> dict[str, ModelPair]:
        """Built-in pairs and those of ``nightshift.toml``, which win."""
        return {**BUILT_IN_PAIRS, **self.pairs}

    def model_pair(self, name: str | None = None) -> ModelPair:
        """Raises PairError, naming the known ones, for a name that is none of them."""
        pairs = self.known_pairs()
        wanted = name or self.pair
        if wanted not in pairs:
            raise PairError(
                f"unknown pair {shown(wanted)}; known are {', '.join(sorted(pairs))} (add yours to nightshift.toml)"
            )
        return pairs[wanted]

    def given_definition(self, name: str) -> str | None:
        """Of a pair that ``nightshift.toml`` defines here; None for any other."""
        return self.pairs[name].definition if name in self.pairs else None


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: unknown key, malformed value, unreadable file.
    """
    given = _given_in_the_environment()
    content = settings_file_content(_home_of_the_environment())
    try:
        return Settings.model_validate({**content, **given})
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(item) for item in error.errors())) from None


def _given_in_the_environment() -> dict[str, str]:
    known = {f"{_PREFIX}{name.upper()}": name for name in Settings.model_fields}
    given = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX) and name not in _NOT_FIELDS}
    if unknown := sorted(given.keys() - known.keys()):
        names = printable(", ".join(unknown))
        raise SettingsError(
            f"unknown setting {names} in the environment; known are"
            f" {', '.join(sorted((known.keys() | _NOT_FIELDS) - _OF_THE_FILE_ALONE))}"
        )
    return {known[name]: value for name, value in given.items()}


def _home_of_the_environment() -> Path:
    """Where ``nightshift.toml`` may lie. What it says of the home itself comes too late for that."""
    try:
        return _expanded(Path(os.environ.get("NIGHTSHIFT_HOME", "~/.nightshift")))
    except ValueError as error:
        raise SettingsError(f"setting home: {error}") from None


def _expanded(path: Path) -> Path:
    """The path with ``~`` resolved. Raises ValueError where nobody has that name, or the path is none."""
    if "\0" in str(path):
        raise ValueError("contains a NUL character")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"nobody has the home folder {shown(path.parts[0])}; write the whole path") from None


def _unknown(name: str) -> str:
    return f"unknown setting {shown(name)}; known are {', '.join(sorted(Settings.model_fields))}"


def _sentence(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return _unknown(name)
    reason = printable_start(item["msg"].removeprefix("Value error, "), 1000)
    if name == "settings" or name in _SECRET:
        return f"setting {name}: {reason}"
    return f"setting {printable_start(name, 100)}: {shown(item['input'])}: {reason}"
