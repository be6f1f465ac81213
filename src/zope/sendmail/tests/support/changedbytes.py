"""Bytes as they should not be: samples of what is written and said in fact, with something wrong in them."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def changed(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """Draw a sample in which something is wrong, or any bytes."""
    octets = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(octets)))
        kind = draw(st.sampled_from(["put", "cut", "double", "change"]))
        if kind == "put":
            octets[at:at] = draw(
                st.binary(min_size=1, max_size=6)
                | st.sampled_from([b"\r", b"\n", b"\0", b"\xff", b'"', b"[", b"1e999", b"1" * 400])
            )
        elif kind == "cut":
            del octets[at : at + draw(st.integers(1, 20))]
        elif kind == "double":
            octets[at:at] = octets[at : at + draw(st.integers(1, 40))]
        elif at < len(octets):
            octets[at] = draw(st.integers(0, 255))
    return draw(st.just(bytes(octets)) | st.binary(max_size=200)) if draw(st.booleans()) else bytes(octets)
