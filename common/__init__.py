"""What the scripts share: flags, processes, signals, overlapping stages, untrusted files.

It knows nothing of masks or networks.
"""
