"""Sounds to send to models that hear."""

import io
import math
import struct
import wave

RATE = 16_000


def tone(seconds):
    """A tone, as 16-bit samples of one channel."""
    return b"".join(struct.pack("<h", int(9_000 * math.sin(2 * math.pi * 440 * step / RATE))) for step in range(int(seconds * RATE)))


def wav(seconds):
    """The same as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes(tone(seconds))
    return file.getvalue()
