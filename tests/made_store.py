"""A server that speaks S3, on this machine, in a thread of the tests."""

import contextlib
import logging
import os
from collections.abc import Iterator
from unittest import mock

import pytest


@contextlib.contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """Run a server with these buckets while the block runs, and have the environment point to it; yields its address."""
    pytest.importorskip("s3fs", reason="s3fs is not installed; pip install 'avtlm[s3]' brings it")
    pytest.importorskip("moto.server", reason="moto is not installed; it comes with the extra dev")
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    environment = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "made",
        "AWS_SECRET_ACCESS_KEY": "up",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # so that only our own attempts count
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    try:
        with mock.patch.dict(os.environ, environment):
            S3FileSystem.clear_instance_cache()  # what is held there goes to the server before
            client = boto3.client("s3")
            for bucket in buckets:
                client.create_bucket(Bucket=bucket)
            yield address
    finally:
        S3FileSystem.clear_instance_cache()
        server.stop()
