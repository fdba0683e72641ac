"""From a picture to scores: protocol, windows, published models, ONNX files, video frames.

Must not know: folders, colours.
"""
