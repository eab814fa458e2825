"""GDCM at arm's length: it decodes in a process of its own.

Only GDCM decodes lossless and 12-bit JPEG under a free licence, and a damaged frame can make it
abort or crash. That must cost the frame, not the whole ingest. `decode` sends a coded frame to the
process and starts another one when it dies; `python -m vfss_distill.intake.gdcm_process` is its
other end. Each message is a line of JSON, followed by as many bytes as it says.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_PATIENCE_S = 60.0  # a frame takes milliseconds
_SYNTAX_12_BIT = "1.2.840.10008.1.2.4.51"


@dataclass
class GdcmProcess:
    """The process, started when it is first needed; one frame at a time."""

    _process: subprocess.Popen[bytes] | None = None
    _owner: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def decode(self, data: bytes, syntax: str, options: dict[str, Any]) -> NDArray[Any]:
        """One coded frame as pydicom's decoder of `syntax` returns it with `options`.

        12-bit JPEG Extended, which pydicom declines, gives uint16 (H, W). Raises RuntimeError when
        the frame cannot be decoded.
        """
        with self._lock:
            process = self._running()
            timer = threading.Timer(_PATIENCE_S, process.kill)
            timer.start()
            try:
                assert process.stdin is not None and process.stdout is not None
                _send(process.stdin, {"syntax": syntax, "options": options}, data)
                answer, pixels = _receive(process.stdout)
            except (OSError, ValueError, EOFError) as error:
                self.close()
                raise RuntimeError("the decoder died of this frame") from error
            finally:
                timer.cancel()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return np.frombuffer(pixels, answer["dtype"]).reshape(answer["shape"])

    def close(self) -> None:
        """End the process; the next frame starts another one."""
        atexit.unregister(self.close)
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        # After a fork the process still belongs to the parent.
        if self._process is None or self._owner != os.getpid():
            self._owner = os.getpid()
            atexit.register(self.close)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vfss_distill.intake.gdcm_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._process


GDCM = GdcmProcess()


def serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Decode what comes from `source` until it ends."""
    while True:
        try:
            question, data = _receive(source)
        except EOFError:
            return
        try:
            pixels = _decode(data, question["syntax"], question["options"])
        except Exception as error:  # whatever a decoder raises is told to the other end
            _send(target, {"error": type(error).__name__}, b"")
        else:
            answer = {"dtype": pixels.dtype.str, "shape": pixels.shape}
            _send(target, answer, np.ascontiguousarray(pixels).tobytes())


def _decode(data: bytes, syntax: str, options: dict[str, Any]) -> NDArray[Any]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    if syntax == _SYNTAX_12_BIT and options["bits_stored"] > 8:
        return _decode_12_bit(data, options["rows"], options["columns"])
    decoder = get_decoder(syntax)
    pixels, _ = decoder.as_array(encapsulate([data]), index=0, decoding_plugin="gdcm", **options)
    return np.asarray(pixels)


def _decode_12_bit(data: bytes, height: int, width: int) -> NDArray[np.uint16]:
    """A grey frame of JPEG Extended with 12 bits (T.81, process 4)."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((width, height, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    syntax = gdcm.TransferSyntax.GetTSType(_SYNTAX_12_BIT)
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    pixels = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), "<u2")
    return pixels.reshape(height, width)


def _send(stream: IO[bytes], head: dict[str, Any], data: bytes) -> None:
    stream.write(json.dumps(head | {"bytes": len(data)}).encode() + b"\n" + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Raises EOFError where the other end is gone."""
    line = stream.readline()
    head = json.loads(line) if line.endswith(b"\n") else None
    data = b"" if head is None else stream.read(head["bytes"])
    if head is None or len(data) != head["bytes"]:
        raise EOFError
    return head, data


def _main() -> None:
    # What libraries print must not fall into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
