"""Files that torch.save wrote (.pth, .pt, .bin, .ckpt), read without running what they contain.

torch's own `weights_only` loading was measured against the hostile files of the tests (torch 2.13, with meta and mmap).
A pickle of 0.5 MB crashes the process and one of 300 bytes never ends, because any value may be a key of a dict; others
allocate what they claim (a terabyte in a call of UntypedStorage, in a storage before torch 1.6, in a bytearray), or
500 MB for 6 MB of instructions; a zip record of 4 MB inflates to 4 GB. Bounds around it need to know the pickle's
stack, which is this reader.
"""

from .reader import read_pth

__all__ = ["read_pth"]
