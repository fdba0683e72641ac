"""The timed jobs, and the usual training loop that they are compared with.

Run as `python -m benchmarks`; nothing imports it.
"""
