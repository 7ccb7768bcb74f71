"""Runs a process of Nightshift (``Request.through``); a worker's consumer listens to another queue than it should."""

from typing import Any

from tests import fork_server


def launch(entry: str, arguments: list[str]) -> Any:
    if entry == "worker.device_process.process":
        from celery.apps.worker import Worker

        setup = Worker.setup_instance
        Worker.setup_instance = lambda self, queues=None, **options: setup(self, queues=["elsewhere"], **options)
    return fork_server.launch(entry, arguments)
