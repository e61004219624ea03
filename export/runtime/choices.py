"""What an operator may choose of how models run: words alone, for those who read settings and run nothing."""

from typing import Literal

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
VariantChoice = Literal["auto", "fp32", "int8", "fp16"]
