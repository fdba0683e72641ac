"""From a picture to scores: protocol, windows, published heads, video frames.

Must not know: folders, colours.
"""
