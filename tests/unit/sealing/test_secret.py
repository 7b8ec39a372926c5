"""Nothing that holds a key or plaintext shows it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from tests.unit.sealing.conftest import Party, sealed_reply


def test_no_object_on_the_way_prints_or_pickles_its_secret(plain_party: Party) -> None:
    envelope, sealed = plain_party.seal(b"my prompt", work_key=b"k" * 32)
    opened = plain_party.open(envelope)
    opener = sealed.reply_opener()
    frame = opener.open(*sealed_reply(opened, [b"my answer"])[0])
    things: list[Any] = [sealed, opened, opener, opened.reply_sealer(2), frame, opener._cipher]
    for thing in things:
        assert repr(thing) == f"<{type(thing).__name__}>"
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(thing)
        with pytest.raises(TypeError, match="secret"):
            thing.__getstate__()
        assert not hasattr(thing, "__dict__")
    assert "prompt" not in repr(envelope)
