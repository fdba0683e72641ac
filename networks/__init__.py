"""Tensors to tensors: the vision transformer, loading it, resampling, the larger heads, tracing.

It knows nothing of class names, flags or result files.
"""
