"""Prints every signal that reaches it, 1 to 64, one line each: "got N".

All signals are blocked with the raw system call (the C library keeps 32 and 33 for
itself) and taken with rt_sigtimedwait, so none is lost and none is merged with what a
language runtime does. `recorder.py stop=N` ends with code 0 when N comes.
"""
import ctypes
import os
import platform
import sys

NUMBERS = {"x86_64": (14, 128), "aarch64": (135, 137)}
SIGPROCMASK, SIGTIMEDWAIT = NUMBERS[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
everything = ctypes.c_uint64(0xFFFFFFFFFFFFFFFF)
libc.syscall(SIGPROCMASK, 0, ctypes.byref(everything), None, 8)
stop = [int(a.partition("=")[2]) for a in sys.argv[1:] if a.startswith("stop=")]
info = ctypes.create_string_buffer(128)
print("recording", flush=True)
while True:
    number = libc.syscall(SIGTIMEDWAIT, ctypes.byref(everything), info, None, 8)
    if number > 0:
        os.write(1, b"got %d\n" % number)
    if number in stop:
        sys.exit(0)
