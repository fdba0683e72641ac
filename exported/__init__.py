"""A model as one file for other programs: writing, its metadata, and running it by ONNX Runtime.

Must not know: folders, colours, training.
"""
