"""What the values in masks mean: class names, colours, class files, mask encodings.

It knows nothing of folders, networks or devices.
"""
