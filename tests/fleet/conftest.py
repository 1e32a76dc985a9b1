"""One fleet for all tests: four hosts with two traces each, the third one slow."""

from __future__ import annotations

import pytest
from fleets import fleet


@pytest.fixture(autouse=True)
def _own_key(tmp_path_factory, monkeypatch) -> None:
    """Host names are hashed with a key of the tests, not of whoever runs them."""
    monkeypatch.setenv("NSYSKIT_FLEET_KEY", str(tmp_path_factory.getbasetemp() / "fleet-key"))


@pytest.fixture(scope="session")
def traces(tmp_path_factory):
    """The folder of the fleet; tests only read it."""
    folder = tmp_path_factory.mktemp("fleet")
    fleet(folder, hosts=4, each=2, slow=2)
    return folder
