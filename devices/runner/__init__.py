"""Our own arm64 runner: one C program and the runtimes' public wheels, no NDK.

`bundle.py` builds the program and gathers what it needs; `run.py` brings it to a device and runs it.
"""
