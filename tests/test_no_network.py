import socket

import pytest


@pytest.mark.parametrize('host', ['192.0.2.1', 'example.org'])
def test_other_machines_cannot_be_reached(host: str) -> None:
    with pytest.raises(RuntimeError, match='no network'):
        socket.create_connection((host, 80), timeout=0.1)


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(('localhost', 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
