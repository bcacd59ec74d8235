"""What is used of bitsandbytes, without its compiler.

bitsandbytes 0.50 hands a few functions to `torch.compile` as it is imported. That loads a compiler, which takes a fifth
of the time in which all libraries load, and runs it for the first weight with an odd number of columns, where a C++
compiler is installed.
"""

import torch

_compile = torch.compile
torch.compile = lambda function, **_: function  # type: ignore[assignment]
try:
    from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise, get_4bit_type
finally:
    torch.compile = _compile

__all__ = ["QuantState", "dequantize_4bit", "dequantize_blockwise", "get_4bit_type"]
