"""Networks and what they are made of: students, teachers, cards. Import the submodules."""

from pathlib import Path

PACKAGED_WEIGHTS = Path(__file__).resolve().parent / "weights"
PACKAGED_STUDENT = "vfss12-small"  # there as .onnx and .safetensors
IMAGENET = "imagenet"  # weights of a package of its own
