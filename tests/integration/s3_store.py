"""An S3 store as a user sets one up: by botocore's own variables, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import fsspec
import pytest

from tests.integration.s3_proxy import S3Proxy
from tests.servers import S3Server

SECRET = "planted-secret-access-key"  # nothing may show it


@dataclass(frozen=True)
class S3Store:
    """``url``: of an image store, below a fresh bucket."""

    server: S3Server
    bucket: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/farm/images"


def s3_variables(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """From now on; what fsspec has opened with other variables is forgotten."""
    for name, value in s3_variables(endpoint).items():
        monkeypatch.setenv(name, value)
    forget_opened()


def forget_opened() -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def keys(store: S3Store) -> list[str]:
    """Of every object in the bucket."""
    remote = fsspec.filesystem("s3")
    remote.invalidate_cache()
    return sorted(key.removeprefix(f"{store.bucket}/") for key in remote.find(store.bucket))


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    use_endpoint(monkeypatch, s3_server.url)
    yield S3Store(s3_server, s3_server.new_bucket())
    forget_opened()


@pytest.fixture
def proxy(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """In front of the store: what is opened from now on goes through it."""
    with S3Proxy(s3.server.port) as proxy:
        use_endpoint(monkeypatch, proxy.url)
        yield proxy
