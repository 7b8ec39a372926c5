"""What a dishonest machine, or whoever sits between it and the caller, can do to a sealed reply.

Each attack gets the opened work and returns the frames that the runtime posts. The honest reply is two frames and a
final one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from lattice.core.chat import Usage
from lattice.core.ids import b64url
from lattice.core.relay import ResultFrame
from lattice.sealing.frames import ReplySealer
from lattice.sealing.identity import IdentityKey
from lattice.sealing.receipt import Receipt, SignedReceipt, sign_receipt
from tests.harness import Answer, event

Frames = tuple[ResultFrame, ...]
USAGE = Usage(12, 3)


def honest(answer: Answer) -> Frames:
    """The reply as it should be."""
    return (
        answer.frame(event("fo"), 1),
        answer.frame(event("ur"), 2),
        answer.final(event("", "stop"), USAGE),
    )


def _changed(frames: Frames, index: int, **changes: object) -> Frames:
    return (*frames[:index], msgspec.structs.replace(frames[index], **changes), *frames[index + 1 :])


def replayed(answer: Answer) -> Frames:
    """The first frame a second time, in the next place."""
    first, second, final = honest(answer)
    again = msgspec.structs.replace(first, sequence=1)
    return first, again, *_renumbered((second, final), 2)


def reordered(answer: Answer) -> Frames:
    """Two frames change places."""
    first, second, final = honest(answer)
    return (*_renumbered((second, first), 0), final)


def cut_in_the_middle(answer: Answer) -> Frames:
    """One frame is left out."""
    first, _, final = honest(answer)
    return first, *_renumbered((final,), 1)


def cut_at_the_end(answer: Answer) -> Frames:
    """The last frame is withheld and the one before it passes for the last, with the genuine receipt."""
    first, second, final = honest(answer)
    return first, msgspec.structs.replace(second, final=True, receipt=final.receipt)


def shortened(answer: Answer) -> Frames:
    """The last byte of a frame is missing."""
    frames = honest(answer)
    return _changed(frames, 1, frame=frames[1].frame[:-1])


def altered(answer: Answer) -> Frames:
    """One bit of a frame is flipped."""
    frames = honest(answer)
    return _changed(frames, 1, frame=bytes([frames[1].frame[0] ^ 1]) + frames[1].frame[1:])


def reheaded(answer: Answer) -> Frames:
    """Sealed under the right key for another header, so for another question."""
    other = hashlib.sha256(answer.envelope.header + b" ").digest()
    answer.sealer = ReplySealer(answer.opened._work_key, other, answer.work.attempt)
    return honest(answer)


def of_another_attempt(answer: Answer) -> Frames:
    """Sealed for the attempt after this one."""
    answer.sealer = answer.opened.reply_sealer(answer.work.attempt + 1)
    return honest(answer)


def counted_up(answer: Answer) -> Frames:
    """A frame claims more tokens than it was sealed with."""
    return _changed(honest(answer), 1, tokens=1_000_000)


def counted_down(answer: Answer) -> Frames:
    """The last frame claims fewer tokens than it was sealed with."""
    return _changed(honest(answer), 2, tokens=1)


def counted_below_zero(answer: Answer) -> Frames:
    """A count that no caller's arithmetic expects."""
    return _changed(honest(answer), 1, tokens=-1)


def counted_beyond_all_bounds(answer: Answer) -> Frames:
    """A count that does not fit the wire."""
    return _changed(honest(answer), 1, tokens=2**63)


def falling_count(answer: Answer) -> Frames:
    """Sealed with a count that falls, which only a runtime that lies can do."""
    first = answer.frame(event("fo"), 5)
    answer.sealer.tokens = 0
    return first, answer.frame(event("ur"), 2), answer.final(event("", "stop"), USAGE)


def ended_early(answer: Answer) -> Frames:
    """A frame in the middle is passed off as the last."""
    return _changed(honest(answer), 1, final=True)


def not_ended(answer: Answer) -> Frames:
    """The last frame is passed off as one in the middle."""
    return _changed(honest(answer), 2, final=False, receipt=None)


def without_receipt(answer: Answer) -> Frames:
    """Nobody vouches for the reply."""
    return _changed(honest(answer), 2, receipt=None)


def with_garbage_for_a_receipt(answer: Answer) -> Frames:
    """Bytes that are no receipt."""
    return _changed(honest(answer), 2, receipt=b"\x00\x00\x00\x01{" + b"\xff" * 80)


def forged_receipt(answer: Answer) -> Frames:
    """The right content, signed by somebody else."""
    frames = honest(answer)
    signed = SignedReceipt.decode(frames[2].receipt or b"")
    forged = sign_receipt(IdentityKey.generate(), msgspec.json.decode(signed.receipt, type=Receipt))
    return _changed(frames, 2, receipt=forged.encode())


def _receipt_says(**said: object) -> Callable[[Answer], Frames]:
    def attack(answer: Answer) -> Frames:
        return (
            answer.frame(event("fo"), 1),
            answer.frame(event("ur"), 2),
            answer.final(event("", "stop"), USAGE, signed=said),
        )

    return attack


def receipt_for_another_attempt(answer: Answer) -> Frames:
    """A receipt of an attempt that lost its lease."""
    return _receipt_says(attempt=answer.work.attempt + 1)(answer)


receipt_for_other_frames = _receipt_says(frames_hash=b64url(bytes(32)))
receipt_for_other_work = _receipt_says(envelope_hash=b64url(bytes(32)))
receipt_for_more_tokens = _receipt_says(usage=Usage(12, 4_000))
receipt_for_a_longer_prompt = _receipt_says(usage=Usage(1_000_000, 3))
receipt_for_another_status = _receipt_says(status=400)


def _renumbered(frames: Frames, start: int) -> Frames:
    return tuple(msgspec.structs.replace(frame, sequence=start + i) for i, frame in enumerate(frames))


REPLY_INVALID = {
    attack.__name__: attack
    for attack in (
        replayed,
        reordered,
        cut_in_the_middle,
        shortened,
        altered,
        reheaded,
        of_another_attempt,
        counted_up,
        counted_down,
        counted_below_zero,
        counted_beyond_all_bounds,
        falling_count,
        ended_early,
        cut_at_the_end,
        not_ended,
    )
}
"""Attacks on the frames."""

RECEIPT_INVALID = {
    "without_receipt": without_receipt,
    "with_garbage_for_a_receipt": with_garbage_for_a_receipt,
    "forged_receipt": forged_receipt,
    "receipt_for_another_attempt": receipt_for_another_attempt,
    "receipt_for_other_frames": receipt_for_other_frames,
    "receipt_for_other_work": receipt_for_other_work,
    "receipt_for_more_tokens": receipt_for_more_tokens,
    "receipt_for_a_longer_prompt": receipt_for_a_longer_prompt,
    "receipt_for_another_status": receipt_for_another_status,
}
"""Attacks on what is charged."""


def vouched_for(answer: Answer, frames: Frames) -> Frames:
    """The same frames with a receipt that covers them: the runtime itself is dishonest, and signs."""
    hashed = hashlib.sha256()
    for frame in frames:
        hashed.update(frame.frame)
    last = frames[-1]
    receipt = Receipt(
        runtime=answer.runtime.runtime,
        work_id=answer.work.work_id,
        attempt=answer.work.attempt,
        envelope_hash=b64url(answer.envelope.envelope_hash),
        frames_hash=b64url(hashed.digest()),
        usage=USAGE,
        model=answer.header.model,
        finished_at_ms=answer.runtime.clock.now_ms(),
    )
    signed = sign_receipt(answer.runtime.identity, receipt).encode()
    return (*frames[:-1], msgspec.structs.replace(last, final=True, receipt=signed))
